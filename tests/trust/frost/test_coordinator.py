"""Many signatures at a time: one round trip each once warm, bounds that hold, and signers that share the work."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trust.coordinator import Coordinator, CoordinatorConfig, Request
from trust.group import Scalar, scalar_of
from trust.identity import verify
from trust.roast import (
    Completed,
    Excluded,
    Failed,
    Failure,
    Reply,
    Send,
    SigningConfig,
    Tick,
    Unreachable,
)
from trust.sessionwire import CommitRequest, Reason, RefusalReply, ShareReply, ShareRequest
from trust.signer import SignerConfig

NewNet = Callable[..., Any]
NewGroup = Callable[..., Any]


def request(number: int) -> Request:
    body = f"please {number}".encode()
    return Request(session=number.to_bytes(16, "big"), request=body, message=b"signed " + body)


def coordinator(group: Any, **options: Any) -> Coordinator:
    return Coordinator(group.key, Random(1), CoordinatorConfig(**options))


def silent(*_: Any) -> list[Any]:
    return []


def feed(net: Any, machine: Coordinator, numbers: range) -> list[Any]:
    """All requests at once, then until everything is quiet."""
    told: list[Any] = []
    for number in numbers[:-1]:
        net.take(machine.step(net.now, request(number)), told)
    return told + net.run(machine, request(numbers[-1]), until=net.now + 60)


def sign(net: Any, machine: Coordinator, numbers: range) -> None:
    check(net, feed(net, machine, numbers), numbers)


def slow(net: Any, machine: Coordinator, numbers: range) -> int:
    """How many of these, one after the other, took longer than an honest answer takes."""
    count = 0
    for number in numbers:
        start = net.now
        sign(net, machine, range(number, number + 1))
        count += net.told_at - start > 0.2
    return count


def check(net: Any, told: list[Any], numbers: range) -> None:
    sessions = {event.session: event.signature for event in told if isinstance(event, Completed)}
    assert sorted(sessions) == [request(number).session for number in numbers]
    for number in numbers:
        wanted = request(number)
        assert verify(net.group.key.public, wanted.message, sessions[wanted.session])


def kinds(net: Any) -> Counter[str]:
    return Counter(type(message).__name__ for message in net.sent)


def test_the_first_takes_two_round_trips_and_each_later_one_a_single_one(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    machine = coordinator(net.group)
    sign(net, machine, range(1))
    assert kinds(net) == {"CommitRequest": 3, "ShareRequest": 2}
    for number in range(1, 20):
        sign(net, machine, range(number, number + 1))
    assert kinds(net) == {"CommitRequest": 3, "ShareRequest": 40}
    statistics = machine.statistics()
    assert (statistics.completed, statistics.failed, statistics.attempts) == (20, 0, 20)
    assert (statistics.under_way, statistics.waiting) == (0, 0)
    assert machine.deadline is None


def test_signers_share_the_work(new_group: NewGroup, new_net: NewNet) -> None:
    net = new_net(new_group(3, 5))
    machine = coordinator(net.group)
    for number in range(60):
        feed(net, machine, range(number, number + 1))
    work = [signer.statistics().granted for signer in net.signers.values()]
    assert sum(work) == 180
    assert min(work) >= 20


def test_many_at_a_time_are_all_signed_and_no_nonce_serves_twice(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    machine = coordinator(net.group, signings_max=8)
    told = feed(net, machine, range(40))
    check(net, told, range(40))
    assert len(net.used) == 80
    for signer in net.signers.values():
        assert signer.statistics().outstanding <= 2 * 8
        assert signer.statistics().displaced == 0


def test_what_is_under_way_and_waiting_is_bounded(new_group: NewGroup) -> None:
    machine = coordinator(new_group(2, 3), signings_max=2, waiting_max=3)
    for number in range(5):
        out = machine.step(0.0, request(number))
        assert bool(out) == (number < 2)
    assert (machine.statistics().under_way, machine.statistics().waiting) == (2, 3)
    (failed,) = machine.step(0.0, request(5))
    assert failed == Failed(session=request(5).session, failure=Failure.BUSY, refusals=(), silent=(), epoch=0)
    assert repr(machine) == "Coordinator(epoch=0, under_way=2, waiting=3)"


def test_what_waits_too_long_is_given_up_and_what_ends_makes_room(new_group: NewGroup) -> None:
    config = SigningConfig(timeout_s=10.0)
    machine = coordinator(new_group(2, 3), signings_max=1, signing=config)
    machine.step(0.0, request(0))
    machine.step(4.0, request(1))
    machine.step(5.0, request(2))
    assert machine.deadline == 10.0
    out = machine.step(10.0, Tick())  # the first has failed, the second begins
    assert [type(o) for o in out] == [Failed, Send, Send, Send]
    assert machine.deadline == 15.0  # the third is given up while the second is under way
    (failed,) = machine.step(15.0, Tick())
    assert isinstance(failed, Failed)
    assert (failed.session, failed.failure) == (request(2).session, Failure.TIMEOUT)
    (failed,) = machine.step(20.0, Tick())
    assert isinstance(failed, Failed)
    assert machine.deadline is None
    assert machine.statistics().failed == 3


def test_spares_are_few_and_not_kept_longer_than_signers_keep_theirs(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    machine = coordinator(net.group, spares_max=2, signings_max=8, spare_ttl_s=30.0)
    feed(net, machine, range(8))
    assert machine.statistics().spares <= 6
    net.sent.clear()
    net.now += 29.0
    feed(net, machine, range(8, 9))
    assert kinds(net) == {"ShareRequest": 2}
    net.sent.clear()
    net.now += 31.0
    feed(net, machine, range(9, 10))
    assert kinds(net) == {"CommitRequest": 3, "ShareRequest": 2}


def test_a_dead_signer_costs_one_patience_and_is_then_asked_last(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    machine = coordinator(net.group)
    feed(net, machine, range(1))
    dead = scalar_of(2)
    net.behaviours[dead] = silent
    assert slow(net, machine, range(1, 40)) == 1
    # Forgiven after a while; it has no commitment left then, so it costs nothing.
    net.now += 31.0
    assert slow(net, machine, range(40, 41)) == 0


def test_a_signer_that_fell_silent_with_spares_left_costs_one_patience_all_the_same(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    machine = coordinator(net.group)
    feed(net, machine, range(10))  # at once: ten spares of each
    net.behaviours[scalar_of(2)] = silent
    assert slow(net, machine, range(10, 30)) == 1


def test_a_session_takes_no_more_spares_than_it_needs(new_group: NewGroup, new_net: NewNet) -> None:
    net = new_net(new_group(1, 3))
    machine = coordinator(net.group)
    feed(net, machine, range(12))
    spares = machine.statistics().spares
    assert spares >= 6
    net.sent.clear()
    sign(net, machine, range(12, 12 + spares))
    assert kinds(net) == {"ShareRequest": spares}


def test_signers_that_were_restarted_are_asked_for_new_commitments(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    machine = coordinator(net.group)
    feed(net, machine, range(5))
    for i, signer in net.signers.items():
        fresh = new_net(net.group).signers[i]
        net.signers[i] = fresh
        assert signer is not fresh
    told = feed(net, machine, range(5, 10))
    check(net, told, range(5, 10))
    assert net.told_at - net.now < 0.5


def test_a_liar_is_told_of_once_a_session_and_asked_last_after_it(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    liar = scalar_of(1)

    def lie(_net: Any, _signer: Scalar, message: Any, answers: list[Any]) -> list[Any]:
        assert isinstance(message, CommitRequest | ShareRequest)
        return [
            (0.001, a if not isinstance(a, ShareReply) else type(a)(**{**fields(a), "share": b"\1" * 32}))
            for a in answers
        ]

    net.behaviours[liar] = lie
    machine = coordinator(net.group)
    told = [event for number in range(20) for event in feed(net, machine, range(number, number + 1))]
    check(net, told, range(20))
    excluded = [event for event in told if isinstance(event, Excluded)]
    assert {event.signer for event in excluded} <= {liar}
    assert len(excluded) <= 2


def fields(message: ShareReply) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__slots__}


def test_an_unreachable_signer_loses_its_spares_and_is_asked_last(
    new_group: NewGroup, new_net: NewNet
) -> None:
    net = new_net(new_group(2, 3))
    machine = coordinator(net.group)
    feed(net, machine, range(1))
    gone = scalar_of(3)
    assert machine.step(net.now, Unreachable(signer=gone)) == []
    assert machine.step(net.now, Unreachable(signer=scalar_of(9))) == []
    net.sent.clear()
    before = net.signers[gone].statistics().granted
    for number in range(1, 10):
        feed(net, machine, range(number, number + 1))
    assert net.signers[gone].statistics().granted == before
    assert kinds(net)["CommitRequest"] == 0


def test_refusals_of_the_policy_are_passed_on(new_group: NewGroup) -> None:
    group = new_group(2, 3, epoch=4)
    machine = coordinator(group)
    out = machine.step(0.0, request(0))
    told: list[Any] = []
    for output in out:
        assert isinstance(output, Send)
        refusal = RefusalReply(
            session=output.message.session,
            epoch=5,
            attempt=0,
            reason=Reason.EPOCH,
            detail="this signer is at epoch 5",
        )
        told += machine.step(0.1, Reply(signer=output.signer, message=refusal))
    (failed,) = told
    assert (failed.failure, failed.epoch) == (Failure.REFUSED, 5)
    assert [text for _, text in failed.refusals] == ["this signer is at epoch 5"] * 2


def test_a_session_is_used_once_at_a_time(new_group: NewGroup) -> None:
    machine = coordinator(new_group(2, 3), signings_max=1)
    machine.step(0.0, request(0))
    machine.step(0.0, request(1))
    for number in (0, 1):
        with pytest.raises(AssertionError, match="session of its own"):
            machine.step(0.0, request(number))
    with pytest.raises(AssertionError, match="fits its bound"):
        machine.step(0.0, Request(session=bytes(16), request=bytes(8193), message=b""))
    with pytest.raises(AssertionError, match="16 random bytes"):
        machine.step(0.0, Request(session=bytes(15), request=b"", message=b""))


def test_the_bounds_of_coordinator_and_signer_fit_each_other() -> None:
    ours, theirs = CoordinatorConfig(), SignerConfig()
    # What may be outstanding at a signer: one commitment of each signing, and the spares.
    assert ours.signings_max + ours.spares_max <= theirs.nonces_per_coordinator_max
    assert ours.spare_ttl_s + ours.signing.timeout_s <= theirs.nonce_ttl_s


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_any_load_with_dead_and_live_signers_ends_in_one_answer_each(
    new_group: NewGroup, new_net: NewNet, seed: int
) -> None:
    rng = Random(seed)
    net = new_net(new_group(2, 4), seed)
    machine = coordinator(net.group, signings_max=rng.randint(1, 6), waiting_max=20)
    net.behaviours = dict.fromkeys(rng.sample(sorted(net.signers), 2), silent)
    count = rng.randint(1, 12)
    told = feed(net, machine, range(count))
    check(net, told, range(count))
    assert Counter(event.session for event in told) == {request(number).session: 1 for number in range(count)}


def test_one_seed_one_run(new_group: NewGroup, new_net: NewNet) -> None:
    def trace() -> list[Any]:
        net = new_net(new_group(2, 3), 5)
        return [feed(net, coordinator(net.group), range(6)), net.sent]

    assert trace() == trace()
