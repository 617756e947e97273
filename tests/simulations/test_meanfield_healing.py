"""The end of a long partition (simulations/meanfield/healing.py)."""

import numpy as np
import pytest
from click.testing import CliRunner

from gossip.config import lan
from simulations.large import large
from simulations.meanfield.healing import healing, knock_interval_s, stream_s
from simulations.meanfield.parameters import Network


def test_a_member_knocks_as_often_as_its_dead_and_the_cap_allow() -> None:
    assert knock_interval_s(lan(), 1) == 30.0
    assert knock_interval_s(lan(), 10) == 3.0
    assert knock_interval_s(lan(), 5000) == 1.0


@pytest.mark.parametrize("members", [100, 10_000])
def test_the_first_contact_is_the_first_of_so_many_knocks(members: int) -> None:
    firsts = [healing(lan(), members, seed=seed).first_contact_s for seed in range(300)]
    assert np.mean(firsts) == pytest.approx(knock_interval_s(lan(), members // 2) / (members + 1), rel=0.2)


def test_everybody_is_healed_within_the_goals() -> None:
    assert max(healing(lan(), 100, seed=seed).seconds(1.0) for seed in range(20)) <= 10
    assert max(healing(lan(), 10_000, seed=seed).seconds(1.0) for seed in range(5)) <= 30


def test_nobody_is_healed_before_the_summons_and_a_stream() -> None:
    result = healing(lan(), 1000, seed=1, network=Network(loss=0.3))
    assert result.first_contact_s < result.summoned_s
    assert (result.healed_at >= result.summoned_s + stream_s(1000, Network())).all()


def test_loss_makes_it_slower_and_comparing_lists_faster() -> None:
    def mean_s(loss: float, *, compared: bool) -> float:
        network = Network(loss=loss)
        return float(
            np.mean(
                [
                    healing(lan(), 2000, seed=s, network=network, compared=compared).seconds(1.0)
                    for s in range(20)
                ]
            )
        )

    assert mean_s(0.0, compared=False) < mean_s(0.5, compared=False) < mean_s(0.8, compared=False)
    assert mean_s(0.8, compared=True) < mean_s(0.8, compared=False)


def test_one_seed_gives_one_result() -> None:
    assert np.array_equal(healing(lan(), 500, seed=2).healed_at, healing(lan(), 500, seed=2).healed_at)


def test_the_command_tells_of_updates_deaths_and_healing() -> None:
    result = CliRunner().invoke(large, ["--nodes", "100", "--runs", "1", "--seed", "3"])
    assert result.exit_code == 0, result.output
    updates, deaths, healed, told = result.stdout.strip().split("\n\n")
    assert [len(table.splitlines()) for table in (updates, deaths, healed)] == [6, 4, 4]
    row = [cell.strip() for cell in healed.splitlines()[2].strip("|").split("|")]
    assert row[:3] == ["100", "0%", "lan"]
    assert 0 < float(row[3]) < float(row[4]) <= float(row[5]) < 10
    assert told.startswith("1 runs each, seed 3, ")
