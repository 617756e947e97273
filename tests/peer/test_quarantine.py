"""What is in quarantine, and which state is proven."""

from dataclasses import replace

from peer.catalog import PolicyEntry
from peer.quarantine import (
    DEADLY,
    ENDS_UNPROVEN_MAX,
    PROVEN_AFTER_S,
    REJECTED,
    RESTART_S,
    Probation,
    Quarantine,
    version_of,
)
from tests.peer.meshview import route


def edited(policy: PolicyEntry, seq: int) -> PolicyEntry:
    return replace(policy, versions=(replace(policy.versions[0], seq=seq),))


def test_quarantine_is_of_a_version() -> None:
    quarantine, first, other = Quarantine(), route("r", "x"), route("other", "x")
    second = edited(first, 2)
    quarantine.hold(second, REJECTED, "why", instead=first)
    assert quarantine.admit([second, other]) == (first, other)
    third = edited(first, 3)
    assert quarantine.admit([third, other]) == (third, other)
    assert len(quarantine) == 0


def test_what_is_deleted_is_in_quarantine_no_more() -> None:
    quarantine, policy = Quarantine(), route("r", "x")
    quarantine.hold(policy, REJECTED, "why", instead=None)
    assert quarantine.admit([policy]) == ()
    assert quarantine.admit([]) == ()
    assert quarantine.admit([policy]) == (policy,)


def test_what_was_restored_holds_for_that_version_only() -> None:
    quarantine, policy = Quarantine(), route("r", "x")
    quarantine.restore("HTTPRoute/default/r", version_of(policy), "ended workers")
    assert quarantine.held["HTTPRoute/default/r"].reason == DEADLY
    assert quarantine.admit([policy]) == ()
    assert quarantine.admit([edited(policy, 2)]) == (edited(policy, 2),)


def test_a_state_is_proven_when_it_has_run_long_enough() -> None:
    probation: Probation[str] = Probation()
    probation.serve(0.0, "a")
    assert not probation.end(PROVEN_AFTER_S)
    assert probation.proven == "a"
    probation.serve(40.0, "b")
    assert not probation.end(41.0)
    assert probation.end(42.0)
    assert probation.proven == "a"


def test_ends_are_counted_over_all_that_came_since_the_proven_state() -> None:
    probation: Probation[str] = Probation()
    probation.serve(0.0, "a")
    probation.serve(40.0, "b")
    assert probation.end(41.0) is False
    probation.serve(42.0, "c")
    assert probation.end(43.0) is True
    assert probation.proven == "a"


def test_one_end_is_forgotten_after_a_good_run() -> None:
    probation: Probation[str] = Probation()
    probation.serve(0.0, "a")
    probation.serve(40.0, "b")
    assert not probation.end(41.0)
    assert not probation.end(41.0 + RESTART_S + PROVEN_AFTER_S)
    assert probation.proven == "b"
    probation.serve(100.0, "c")
    assert not probation.end(101.0)


def test_a_worker_that_takes_long_to_start_again_has_not_run_meanwhile() -> None:
    probation: Probation[str] = Probation(proven_after_s=3.0)
    probation.serve(0.0, "a")
    probation.serve(40.0, "b")
    assert not probation.end(41.0)
    assert probation.end(41.0 + RESTART_S)
    assert probation.proven == "a"


def test_with_nothing_proven_it_takes_more_ends() -> None:
    probation: Probation[str] = Probation()
    probation.serve(0.0, "a")
    ends = [probation.end(float(t)) for t in range(1, ENDS_UNPROVEN_MAX + 1)]
    assert ends == [False] * (ENDS_UNPROVEN_MAX - 1) + [True]
    assert probation.proven is None


def test_states_that_follow_one_another_quickly_are_proven_all_the_same() -> None:
    probation: Probation[int] = Probation()
    for second in range(100):
        probation.serve(float(second), second)
    assert probation.proven is not None
    assert probation.proven >= 30
