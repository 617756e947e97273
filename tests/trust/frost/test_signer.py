"""The signer: what it signs is its own decision, nonces serve once, and what coordinators leave behind is bounded."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trust.frost import Commitment, aggregate, new_nonces, transcript
from trust.group import IDENTITY, ONE, scalar_of
from trust.identity import verify
from trust.sessionwire import (
    DETAIL_CHARS_MAX,
    CommitReply,
    CommitRequest,
    Reason,
    RefusalReply,
    ShareReply,
    ShareRequest,
    ToCoordinator,
)
from trust.signer import Answer, Asked, Denied, Granted, Signer, SignerConfig, Tick

ALICE, BOB, CAROL = b"alice-0000000000", b"bob-000000000000", b"carol-0000000000"
SESSION = b"s" * 16
TWO = scalar_of(2)


def policy(request: bytes, coordinator: bytes, now: float) -> bytes | Denied:
    """Signs what asks nicely."""
    return b"signed " + request if request.startswith(b"please") else Denied(detail="say please " * 100)


class Bench:
    """Signer 1 of a group of 2 of 3; the test plays the coordinators and signer 2."""

    def __init__(self, group: Any, **bounds: float) -> None:
        self.group = group
        self.signer = Signer([group.shares[ONE]], policy, group.entropy, SignerConfig(**bounds))
        self.granted: list[Granted] = []

    def ask(
        self, message: CommitRequest | ShareRequest, now: float = 0.0, by: bytes = ALICE
    ) -> ToCoordinator:
        *records, answer = self.signer.step(now, Asked(coordinator=by, message=message))
        self.granted += [record for record in records if isinstance(record, Granted)]
        assert isinstance(answer, Answer)
        assert answer.coordinator == by
        return answer.message

    def commitment(self, now: float = 0.0, by: bytes = ALICE, epoch: int = 0) -> Commitment:
        reply = self.ask(CommitRequest(session=SESSION, epoch=epoch), now, by)
        assert isinstance(reply, CommitReply)
        return Commitment(identifier=ONE, hiding=reply.hiding, binding=reply.binding)

    def request(self, *own: Commitment, request: bytes = b"please", epoch: int = 0) -> ShareRequest:
        other = new_nonces(self.group.shares[TWO], self.group.entropy).commitment
        return ShareRequest(
            session=SESSION, epoch=epoch, attempt=1, request=request, commitments=(*own, other)
        )


@pytest.fixture
def bench(new_group: Callable[..., Any]) -> Bench:
    return Bench(new_group(2, 3))


def refusal(reply: ToCoordinator) -> tuple[Reason, int]:
    assert isinstance(reply, RefusalReply)
    return reply.reason, reply.epoch


def test_it_signs_what_it_derives_itself_and_offers_its_next_commitment(bench: Bench) -> None:
    other = Signer([bench.group.shares[TWO]], policy, bench.group.entropy)
    (offered,) = other.step(0, Asked(coordinator=ALICE, message=CommitRequest(session=SESSION, epoch=0)))
    assert isinstance(offered, Answer)
    assert isinstance(offered.message, CommitReply)
    second = Commitment(identifier=TWO, hiding=offered.message.hiding, binding=offered.message.binding)
    request = replace(bench.request(), commitments=(bench.commitment(), second))
    mine = bench.ask(request)
    (_, theirs) = other.step(0, Asked(coordinator=ALICE, message=request))
    assert isinstance(mine, ShareReply)
    assert isinstance(theirs, Answer)
    assert isinstance(theirs.message, ShareReply)
    agreed = transcript(bench.group.key, b"signed please", request.commitments)
    signature = aggregate(agreed, {ONE: mine.share, TWO: theirs.message.share})
    assert verify(bench.group.key.public, b"signed please", signature)
    assert bench.granted == [Granted(coordinator=ALICE, session=SESSION, epoch=0, message=b"signed please")]
    following = Commitment(identifier=ONE, hiding=mine.hiding, binding=mine.binding)
    assert isinstance(bench.ask(bench.request(following)), ShareReply)


def test_a_nonce_serves_once_whatever_is_asked_with_it_again(bench: Bench) -> None:
    own = bench.commitment()
    first = bench.request(own)
    assert isinstance(bench.ask(first), ShareReply)
    for again in (first, replace(first, attempt=2), bench.request(own, request=b"please, another")):
        assert refusal(bench.ask(again)) == (Reason.NONCE, 0)
    assert len(bench.granted) == 1


def test_a_nonce_is_gone_also_when_policy_or_set_made_the_signer_refuse(bench: Bench) -> None:
    for spoil, reason in (
        (lambda own: bench.request(own, request=b"now!"), Reason.POLICY),
        (lambda own: replace(bench.request(own), commitments=(own,)), Reason.SET),
        (lambda own: bench.request(own, own), Reason.SET),
        (lambda own: bench.request(own, replace(own, identifier=scalar_of(9))), Reason.SET),
        (lambda own: bench.request(own, replace(own, identifier=scalar_of(3), hiding=IDENTITY)), Reason.SET),
    ):
        own = bench.commitment()
        assert refusal(bench.ask(spoil(own)))[0] is reason
        assert refusal(bench.ask(bench.request(own)))[0] is Reason.NONCE
    assert bench.granted == []
    assert bench.signer.statistics().refused == 10
    assert bench.signer.statistics().outstanding == 0


@pytest.mark.parametrize("end", ["granted", "denied", "bad set", "expired", "displaced", "retired"])
def test_nonces_are_wiped_however_they_end(new_group: Callable[..., Any], end: str) -> None:
    bench = Bench(new_group(2, 3), nonces_per_coordinator_max=1, nonces_max=4)
    own = bench.commitment()
    (kept,) = bench.signer._kept.values()
    assert not kept.nonces.used
    match end:
        case "granted":
            bench.ask(bench.request(own))
        case "denied":
            bench.ask(bench.request(own, request=b"now!"))
        case "bad set":
            bench.ask(bench.request(own, own))
        case "expired":
            bench.signer.step(60.0, Tick())
        case "displaced":
            bench.commitment()
        case "retired":
            bench.signer.retire(0)
    assert kept.nonces.used


def test_the_refusal_of_the_policy_is_told_within_its_bound(bench: Bench) -> None:
    reply = bench.ask(bench.request(bench.commitment(), request=b"now!"))
    assert isinstance(reply, RefusalReply)
    assert reply.detail == ("say please " * 100)[:DETAIL_CHARS_MAX]


def test_a_commitment_serves_the_coordinator_it_was_made_for_alone(bench: Bench) -> None:
    own = bench.commitment(by=ALICE)
    assert refusal(bench.ask(bench.request(own), by=BOB))[0] is Reason.NONCE
    assert isinstance(bench.ask(bench.request(own), by=ALICE), ShareReply)


def test_it_knows_only_its_own_commitments(bench: Bench) -> None:
    own = bench.commitment()
    altered = replace(own, hiding=own.binding, binding=own.hiding)
    for request in (bench.request(altered), bench.request(), bench.request(replace(own, identifier=TWO))):
        assert refusal(bench.ask(request))[0] is Reason.NONCE


def test_a_nonce_expires(bench: Bench) -> None:
    early, late = bench.commitment(now=0.0), bench.commitment(now=10.0)
    assert bench.signer.deadline == 60.0
    assert bench.signer.step(59.9, Tick()) == []
    assert bench.signer.statistics().expired == 0
    assert bench.signer.step(60.0, Tick()) == []
    assert bench.signer.statistics().expired == 1
    assert bench.signer.deadline == 70.0
    assert refusal(bench.ask(bench.request(early), now=60.0))[0] is Reason.NONCE
    assert isinstance(bench.ask(bench.request(late), now=69.9), ShareReply)
    bench.signer.step(1000.0, Tick())
    assert bench.signer.deadline is None


def test_a_flood_displaces_the_flooders_own_oldest(new_group: Callable[..., Any]) -> None:
    bench = Bench(new_group(2, 3), nonces_max=10, nonces_per_coordinator_max=3)
    quiet = bench.commitment(by=BOB)
    flood = [bench.commitment(by=ALICE) for _ in range(5)]
    statistics = bench.signer.statistics()
    assert (statistics.outstanding, statistics.committed, statistics.displaced) == (4, 6, 2)
    assert [isinstance(bench.ask(bench.request(own)), ShareReply) for own in flood[:2]] == [False, False]
    assert isinstance(bench.ask(bench.request(quiet), by=BOB), ShareReply)


def test_a_full_table_takes_from_whoever_holds_most(new_group: Callable[..., Any]) -> None:
    bench = Bench(new_group(2, 3), nonces_max=5, nonces_per_coordinator_max=4)
    bobs = bench.commitment(by=BOB)
    alices = [bench.commitment(by=ALICE) for _ in range(4)]
    carols = [bench.commitment(by=CAROL) for _ in range(2)]
    assert bench.signer.statistics().outstanding == 5
    assert [isinstance(bench.ask(bench.request(own)), ShareReply) for own in alices[:3]] == [
        False,
        False,
        True,
    ]
    assert isinstance(bench.ask(bench.request(bobs), by=BOB), ShareReply)
    assert isinstance(bench.ask(bench.request(carols[0]), by=CAROL), ShareReply)


def test_a_signer_of_another_epoch_says_which_it_is_at(new_group: Callable[..., Any]) -> None:
    group = new_group(2, 3, epoch=7)
    bench = Bench(group)
    assert refusal(bench.ask(CommitRequest(session=SESSION, epoch=6))) == (Reason.EPOCH, 7)
    own = bench.commitment(epoch=7)
    assert refusal(bench.ask(bench.request(own, epoch=8))) == (Reason.EPOCH, 7)
    assert isinstance(bench.ask(bench.request(own, epoch=7)), ShareReply)


def test_it_answers_for_two_epochs_and_wipes_what_is_older(new_group: Callable[..., Any]) -> None:
    groups = [new_group(2, 3, seed=40 + epoch, epoch=epoch) for epoch in range(3)]
    signer = Signer([groups[0].shares[ONE]], policy, groups[0].entropy)
    signer.adopt(groups[1].shares[ONE])
    signer.adopt(groups[1].shares[ONE])
    assert signer.epochs == (0, 1)
    assert not groups[1].shares[ONE].secret.wiped
    bench = Bench(groups[0])
    bench.signer = signer
    old, new = bench.commitment(epoch=0), bench.commitment(epoch=1)
    assert refusal(bench.ask(bench.request(old, epoch=1)))[0] is Reason.NONCE  # made with the other share
    signer.adopt(groups[2].shares[ONE])
    assert signer.epochs == (1, 2)
    assert groups[0].shares[ONE].secret.wiped
    assert signer.statistics().outstanding == 1
    assert refusal(bench.ask(bench.request(old, epoch=0))) == (Reason.EPOCH, 2)
    bench.group = groups[1]
    assert isinstance(bench.ask(bench.request(new, epoch=1)), ShareReply)
    for epoch in (1, 2, 3):
        signer.retire(epoch)
    assert signer.epochs == ()
    assert signer.deadline is None
    assert refusal(bench.ask(CommitRequest(session=SESSION, epoch=2))) == (Reason.EPOCH, 0)


def test_a_restarted_signer_knows_no_nonce(bench: Bench) -> None:
    own = bench.commitment()
    restarted = Bench(bench.group)
    assert refusal(restarted.ask(bench.request(own)))[0] is Reason.NONCE
    assert restarted.commitment() != own


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 30)), max_size=30))
def test_no_sequence_of_requests_gets_two_shares_of_one_nonce(
    new_group: Callable[..., Any], actions: list[tuple[int, int, int]]
) -> None:
    """Coordinators of ill will, with all commitments they have seen: whose they are, in what order, at what time."""
    bench = Bench(new_group(2, 3), nonces_max=6, nonces_per_coordinator_max=3, nonce_ttl_s=40.0)
    seen: list[Commitment] = []
    used: list[Commitment] = []
    now = 0.0
    for kind, who, at in actions:
        coordinator, now = (ALICE, BOB, CAROL)[who], now + at / 2
        if kind == 0 or not seen:
            seen.append(bench.commitment(now, coordinator))
            continue
        own = seen[at % len(seen)]
        request = bench.request(own, request=b"please" if kind < 3 else b"now!")
        reply = bench.ask(request, now, coordinator)
        if isinstance(reply, ShareReply):
            assert own not in used
            used.append(own)
            seen.append(Commitment(identifier=ONE, hiding=reply.hiding, binding=reply.binding))
        assert bench.signer.statistics().outstanding <= 6
    assert len(set(seen)) == len(seen)


def test_neither_share_nor_nonce_is_printed(bench: Bench) -> None:
    bench.commitment()
    text = repr(bench.signer) + repr(bench.signer.statistics()) + repr(bench.group.shares[ONE])
    assert text.startswith("Signer(epochs=(0,), outstanding=1)")
    assert bench.group.shares[ONE].secret.expose().hex() not in text


def test_two_runs_with_one_entropy_are_the_same(new_group: Callable[..., Any]) -> None:
    def digest() -> str:
        bench = Bench(new_group(2, 3))
        bench.signer = Signer([bench.group.shares[ONE]], policy, Random(9).randbytes)
        return hashlib.sha256(repr([bench.commitment() for _ in range(3)]).encode()).hexdigest()

    assert digest() == digest()
