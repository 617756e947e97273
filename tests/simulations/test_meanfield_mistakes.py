"""What becomes of a wrong accusation (simulations/meanfield/mistakes.py)."""

from dataclasses import replace

import pytest

from gossip.config import lan
from simulations.meanfield.mistakes import SETTLED_S, Mistakes, mistakes
from simulations.meanfield.parameters import Network


@pytest.fixture(scope="module")
def at_five_percent() -> Mistakes:
    return mistakes(lan(), 128, Network(loss=0.05), accusations=300, seed=1)


def test_nearly_all_suspect_and_are_set_right_before_any_verdict(at_five_percent: Mistakes) -> None:
    assert at_five_percent.suspecting > 64
    assert at_five_percent.longest_s < at_five_percent.waits_s[2]
    assert at_five_percent.unended == 0


def test_none_in_a_million_node_hours_is_what_the_bound_says(at_five_percent: Mistakes) -> None:
    """It rests on three members that might have suspected long enough where none did."""
    expected = at_five_percent.verdicts_per_hour * 1e6
    assert 0 < expected < 0.05


def test_more_loss_and_fewer_tellings_leave_members_in_error_longer(at_five_percent: Mistakes) -> None:
    silent = replace(lan(), witnesses=0, heralds=0, gossip_nodes=1, retransmit_mult=1)
    result = mistakes(silent, 128, Network(loss=0.5), accusations=20, seed=1)
    assert result.longest_s > at_five_percent.longest_s
    assert result.unended > 0, "who is told too seldom suspects on, and that is not taken for an end"
    assert result.longest_s < SETTLED_S
    assert result.verdicts_per_hour > at_five_percent.verdicts_per_hour


def test_one_seed_gives_one_result() -> None:
    one, same = (mistakes(lan(), 32, Network(loss=0.05), accusations=5, seed=2) for _ in range(2))
    assert one == same
