"""Planted faults are found, shrunk and replayed: here those that a few seeds find, all in `make chaos-mutations`."""

import pytest

from chaos.experiment import dump, parse
from chaos.fault import Lie
from tests.chaos.mutation_table import HEADING, row_of, saved, table_of
from tests.chaos.mutations import BY_NAME, FAULTS_MAX, MUTATIONS, Mutation, broken_by, find, planted

QUICK = ("no-refutation", "stale-timers", "no-limit", "last-writer-wins", "no-heal")


@pytest.mark.parametrize("name", QUICK)
def test_is_found_shrunk_and_replayed(name: str) -> None:
    found = find(BY_NAME[name], range(10))
    assert found is not None
    assert found.faults <= FAULTS_MAX
    again = parse(dump(found.smallest), "kept.yaml")
    with planted(BY_NAME[name]):
        assert broken_by(again) & found.broken
    assert not broken_by(again)


LIED = {
    "unsigned-alive": Lie.FORGED_INCARNATION,
    "unsigned-witnesses": Lie.FORGED_INCARNATION,
    "bare-verdicts": Lie.FALSE_SUSPICION,
    "equivocators-stay": Lie.EQUIVOCATION,
}


@pytest.mark.parametrize("name", LIED)
def test_what_only_a_liar_shows_is_shown_by_one(name: str) -> None:
    text = (
        "title: x\ntopology: {nodes: 6}\nmethod:\n"
        f"- {{at: 1s, for: 40s, fault: byzantine, lie: {LIED[name].value}, pick: {{nodes: [n3]}}}}\n"
        "- {at: 3s, for: 35s, fault: flap, every: 4s, pick: {nodes: [n0, n1, n2]}}\n"
        "steady-state-hypothesis: {within: 10s}"
    )
    experiment = parse(text, "liar.yaml")
    assert not broken_by(experiment)
    with planted(BY_NAME[name]):
        assert broken_by(experiment)


def test_a_certificate_below_the_threshold_is_found_where_the_root_is_held_in_shares() -> None:
    found = find(BY_NAME["one-signer-less"], [10, 14, 19, 24])
    assert found is not None
    assert found.broken == {"no-certificate-below-the-threshold"}
    assert found.faults <= FAULTS_MAX


def test_a_finding_that_stays_large_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What shrinks to a single fault is too large here, so that the search goes on to the seed that needs none."""
    monkeypatch.setattr("tests.chaos.mutations.FAULTS_MAX", -1)
    monkeypatch.setattr("tests.chaos.mutations.FINDINGS_MAX", 2)
    found = find(BY_NAME["no-limit"], range(10))
    assert found is not None
    assert found.seeds in ((0,), (0, 1)), "the smallest of two"
    monkeypatch.setattr("tests.chaos.mutations.FAULTS_MAX", 0)
    found = find(BY_NAME["no-limit"], range(10))
    assert found is not None
    assert found.seeds == (0,)


def test_what_is_not_there_is_not_found() -> None:
    assert find(Mutation("nothing", "is as it should be", lambda _patch: None), range(3)) is None


def test_a_mutation_ends_with_its_block() -> None:
    before = [vars(owner).copy() for owner in _owners()]
    for mutation in MUTATIONS:
        with planted(mutation):
            assert [vars(owner) for owner in _owners()] != before, mutation.name
        assert [vars(owner) for owner in _owners()] == before, mutation.name


def _owners() -> list[object]:
    from crdt import register
    from crdt.log import WriterLog
    from gossip import accusation, judge
    from gossip.broadcast import Queue
    from gossip.clockwork import Clockwork
    from peer.node_intake import Intake
    from peer.records import Registry
    from simulations import host
    from simulations.loop import Loop
    from trust.ceremony.growth import SignerRules

    weighing = [accusation, accusation.Accusations, judge.Judge, Queue, Clockwork]
    return [register, WriterLog, *weighing, Intake, Registry, host, Loop, SignerRules]


def test_the_table_replaces_the_one_before() -> None:
    rows = [row_of(MUTATIONS[0], None)]
    old = f"# Results\n\n{HEADING}\n\nWords.\n\n| a |\n| - |\n\n## More\n"
    new = saved(old, table_of(rows))
    assert new.startswith(f"# Results\n\n{HEADING}\n\nWords.\n\n| planted |")
    assert new.endswith("not within 200 |  |  |  |\n\n## More\n")
    with pytest.raises(ValueError, match="no table"):
        saved("# Results\n", "")
