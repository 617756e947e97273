"""What the node's own probes ended with (simulations/probed.py), and the command that prints it beside the arrays."""

from functools import partial
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from gossip.config import lan
from simulations.exact import settled
from simulations.large import LOSSES_PROBED, mistakes
from simulations.meanfield.parameters import Network
from simulations.meanfield.probing import probing
from simulations.probed import End, Listener, Probed, probed
from simulations.tables.ground import forget

MEMBERS = 32


def _probed(loss: float, *, seconds: float, meshes: int = 1) -> Probed:
    hours = MEMBERS * seconds / 3600
    return probed(lan(), Network(loss=loss), members=MEMBERS, node_hours=hours, meshes=meshes, seed=3)


def test_without_loss_each_probe_is_answered_at_once_and_counted_once() -> None:
    """A probe an interval a node, but for those under way when counting begins and ends."""
    result = _probed(0.0, seconds=20, meshes=2)
    assert set(result.ends) == {End.FIRST}
    assert result.ends[End.FIRST] == pytest.approx(MEMBERS * 20, abs=2)
    assert (result.accusations, result.verdicts, result.outrun) == (0, 0, 0)


def test_where_nothing_comes_through_all_probes_fail_and_accuse() -> None:
    result = _probed(0.999, seconds=3)
    assert result.share(result.ends[End.FAILED]) > 0.99
    assert result.accusations > 0
    assert result.verdicts > 0


def test_each_step_saves_as_many_as_in_the_arrays() -> None:
    """Within four standard errors of a share; leaving any step out is off by its whole share."""
    network = Network(loss=0.5)
    node = _probed(network.loss, seconds=12)
    arrays = probing(lan(), network, members=500, intervals=200, seed=3)
    steps = (1 - arrays.unanswered, arrays.second, arrays.relayed, arrays.streamed, arrays.failed)
    for end, share in zip(End, steps, strict=True):
        error = (share * (1 - share) / node.ends.total()) ** 0.5
        assert node.share(node.ends[end]) == pytest.approx(share, abs=4 * error), end
        assert share > 5 * error, "or a step left out would not be seen"
    assert sum(steps) == pytest.approx(1, abs=0.01)
    assert 0 < node.outrun < node.ends[End.FAILED]


def test_listening_changes_nothing() -> None:
    def story(listens: bool) -> tuple[int, list[int]]:
        world = settled(MEMBERS, 5, lan(), Network(loss=0.4))
        listeners = [Listener(host.node) for host in world.hosts if listens and host.node is not None]
        world.run(6)
        assert sum(each.ends.total() for each in listeners) == pytest.approx(listens * 6 * MEMBERS, rel=0.2)
        told = world.events, [host.traffic.bytes_sent for host in world.hosts]
        forget(world)
        return told

    assert story(True) == story(False)


# ------------------------------------------------------------ the command
def _mistakes(*words: str) -> list[str]:
    few = partial(probing, members=200, intervals=20)
    with (
        patch("simulations.meanfield.probing.probing", few),
        patch("simulations.meanfield.mistakes.probing", few),
        patch("simulations.probed.LOSSY_S", 1.0),
    ):
        result = CliRunner().invoke(mistakes, ["--nodes", "32", "--hours", "1", *words])
    assert result.exit_code == 0, result.output
    return [line for line in result.stdout.splitlines() if line.startswith("|")]


def test_the_command_prints_the_node_beside_the_arrays_if_asked() -> None:
    lines = _mistakes("--exact-hours", "0.02,0.02,0.02,0.02")
    assert lines[0].endswith("the node itself, counted | in node-hours | its wrong verdicts |")
    assert [line.split(" | ")[-2:] for line in lines[2:6]] == [["0.02", "0 |"]] * len(LOSSES_PROBED)
    counted = [line.split(" | ")[-3] for line in lines[2:6]]
    assert counted[0] == "0 (at most 1.5e+02)"  # three in 0.02 hours
    assert " ± " in counted[-1]
    assert [line.split(" | ")[1] for line in lines[8:16]] == ["the node", "arrays"] * len(LOSSES_PROBED)
    for line in lines[8:16]:
        shares = [float(word) for word in line.strip("| ").split(" | ")[2:]]
        assert sum(shares[:5]) == pytest.approx(1, abs=0.01), line


def test_the_command_prints_the_arrays_alone_if_not_asked() -> None:
    assert not any("the node" in line for line in _mistakes())


@pytest.mark.parametrize("hours", ["1", "1,1,1", "1,1,1,0", "1,1,1,-2", "1,1,1,1001", "1,1,1,nan", "a,b,c,d"])
def test_hours_that_make_no_sense_are_refused(hours: str) -> None:
    result = CliRunner().invoke(mistakes, ["--exact-hours", hours])
    assert result.exit_code == 2
    assert "--exact-hours" in result.output
