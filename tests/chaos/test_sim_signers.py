"""The driver `sim` where the root is held in shares, and where releases differ: faults, verdicts, what it lacks."""

import pytest

from chaos.drivers.sim import SimDriver
from chaos.drivers.sim_faults import Hands
from chaos.experiment import Experiment, ExperimentError, parse
from chaos.hypothesis import Invariant
from chaos.journal import Journal
from chaos.plan import resolve
from chaos.shrink import shrink
from simulations.authority import LATE, RESHARED, WANTING
from simulations.world import World
from trust.ceremony.growth import SignerRules

ISSUED = "steady-state-hypothesis: {within: 60s, invariants: [views-agree, certificates-are-issued]}"


def experiment(
    method: str, *, topology: str = "nodes: 6, signers: 3, certificates: 30s", more: str = ISSUED
) -> Experiment:
    return resolve(parse(f"title: x\ntopology: {{{topology}}}\nmethod:\n{method}\n{more}", "f.yaml"))


def run(given: Experiment, *, brief: bool = False) -> Journal:
    driver = SimDriver()
    assert driver.lacks(given) == ()
    return driver.run(given, lambda _done, _total, _what: None, brief=brief)


def test_two_of_three_signers_lost_leave_nobody_who_signs() -> None:
    journal = run(experiment("- {at: 0s, for: 40s, fault: signers, count: 2}"))
    assert journal.status == "completed"
    assert journal.sometimes[WANTING] > 0
    assert journal.sometimes[LATE] >= 4
    assert "down" in [truth for lane in journal.lanes[:2] for _, truth in lane.truth]


def test_a_revoked_signer_signs_no_more_and_the_root_stays() -> None:
    journal = run(experiment("- {at: 1s, fault: signers, how: revoke}\n- {at: 1s, for: 30s, fault: pause}"))
    assert journal.status == "completed"
    assert journal.sometimes[RESHARED] == 1
    assert (journal.figures["certificates"] or 0) >= 4


def test_certificates_run_out_where_nobody_renews_them() -> None:
    method = "- {at: 0s, for: 40s, fault: certificates, how: expire, pick: {nodes: [n4]}}"
    journal = run(experiment(method))
    assert journal.status == "completed"
    (lane,) = (lane for lane in journal.lanes if lane.node == "n4")
    assert max(seen.dead for seen in lane.seen) == 5
    assert journal.sometimes[LATE] == 1
    assert journal.figures["false_positives"] == 0


def test_one_who_never_renews_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.drivers.sim.Hands.end", lambda *_: None)
    method = "- {at: 0s, for: 35s, fault: certificates, how: expire, pick: {nodes: [n4]}}"
    journal = run(experiment(method, more=ISSUED.replace("60s", "5s")))
    assert Invariant.ISSUED.value in {violation.invariant for violation in journal.violations}


def test_a_threshold_one_too_low_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    threshold_of = SignerRules.threshold_of
    monkeypatch.setattr(SignerRules, "threshold_of", lambda self, count: threshold_of(self, count) - 1)
    journal = run(experiment("- {at: 1s, for: 60s, fault: pause}"), brief=True)
    assert {violation.invariant for violation in journal.violations} == {Invariant.THRESHOLD.value}
    assert journal.lasted_s < 2


def test_runs_with_signers_replay_exactly() -> None:
    given = experiment(
        "- {at: 1s, for: 20s, fault: flap, every: 4s}\n- {at: 2s, fault: signers, how: revoke}"
    )
    one, other = run(given), run(given)
    assert one.digest == other.digest
    assert one.data() | {"took_s": 0} == other.data() | {"took_s": 0}


def test_shrinking_keeps_signers_only_while_they_matter() -> None:
    given = experiment("- {at: 1s, for: 20s, fault: pause, pick: {nodes: [n1]}}")
    matter = shrink(given, lambda each: each.topology.signers == 3, lambda _runs, _each: None)
    assert (matter.topology.signers, matter.topology.size) == (3, 3)
    assert shrink(given, lambda _each: True, lambda _runs, _each: None).topology.signers == 0


def test_who_reads_another_version_is_told_of_by_its_name_until_it_reads_theirs() -> None:
    given = experiment(
        "- {at: 0s, fault: version, version: 2, pick: {nodes: [n3]}}", topology="nodes: 4", more=""
    )
    world, reasons = World(seed=1, size=4), list[str]()
    for index in range(4):
        world.add(seeds=tuple(range(min(2, index))))
    world.start_warm(world.hosts)
    world.on_note.append(lambda _host, note: reasons.append(str(note.fields.get("reason", ""))))
    hands, (event,) = Hands(world, given), given.method
    hands.begin(0, event)
    world.run(10)
    told = "n3 reads datagrams of versions 2 to 2, this node 1 to 1"
    assert any(told in reason for reason in reasons)
    hands.end(0, event)
    world.run(10)
    reasons.clear()
    world.run(5)
    assert reasons == []
    assert world.converged()


def test_a_release_that_reads_both_versions_misses_nothing() -> None:
    both = "- {at: 1s, for: 30s, fault: version, version: 2, oldest: 1, pick: {nodes: [n3]}}"
    journal = run(experiment(both, topology="nodes: 5", more="workload: {policies: {every: 300ms}}"))
    assert journal.status == "completed"
    assert journal.figures["false_positives"] == 0


@pytest.mark.parametrize(
    ("method", "topology", "words"),
    [
        ("{at: 1s, fault: signers}", "nodes: 5", "give topology.signers"),
        ("{at: 1s, fault: certificates, how: expire}", "nodes: 5", "give topology.signers"),
        ("{at: 1s, fault: signers, how: revoke, count: 3}", "nodes: 5, signers: 3", "somebody has to stay"),
        (
            "{at: 1s, fault: certificates, how: revoke}",
            "nodes: 5, signers: 3",
            "nobody revokes in the virtual world",
        ),
        ("{at: 1s, fault: pause}", "nodes: 301, signers: 3", "over 300 nodes sign with stand-ins"),
    ],
)
def test_what_cannot_be_done_is_said(method: str, topology: str, words: str) -> None:
    lacks = SimDriver().lacks(experiment(f"- {method}", topology=topology, more=""))
    assert [words in lack.why for lack in lacks] == [True]


def test_what_cannot_be_judged_is_said() -> None:
    (lack,) = SimDriver().lacks(experiment("- {at: 1s, fault: pause}", topology="nodes: 5"))
    assert lack.why == "certificates-are-issued needs signers: give topology.signers"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topology: {nodes: 3, signers: 4}", "4 signers are more than the 3 nodes"),
        ("topology: {nodes: 3, certificates: 9s}", "certificates"),
        (
            "topology: {nodes: 3}\nmethod: [{at: 0s, fault: version, version: 1, oldest: 2}]",
            "oldest is above",
        ),
        ("topology: {nodes: 3}\nmethod: [{at: 0s, fault: version, version: 200}]", "version"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        parse(f"title: x\n{text}", "f.yaml")
