"""ROAST: t honest live signers make the signature whatever the others do, in as few attempts as was promised."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trust.frost import Commitment, new_nonces, sign_share
from trust.group import IDENTITY, ONE, Scalar, base_mul, scalar_add, scalar_of
from trust.identity import verify
from trust.roast import (
    Begin,
    Completed,
    Excluded,
    Failed,
    Failure,
    Reply,
    Send,
    Signing,
    SigningConfig,
    SigningOutput,
    Tick,
    Unreachable,
)
from trust.sessionwire import (
    CommitReply,
    CommitRequest,
    Reason,
    RefusalReply,
    ShareReply,
    ShareRequest,
    ToCoordinator,
    ToSigner,
)

SESSION, REQUEST, MESSAGE = b"s" * 16, b"please", b"signed please"
CONFIG = SigningConfig(patience_s=0.3, timeout_s=10.0)
L = 2**252 + 27742317777372353535851937790883648493
A, B, C, D, E = (scalar_of(i) for i in range(1, 6))

Timed = list[tuple[float, ToCoordinator]]


def signing(group: Any, order: Sequence[Scalar] | None = None, **options: Any) -> Signing:
    arguments: dict[str, Any] = {"spares": {}, "config": CONFIG, "session": SESSION, **options}
    return Signing(
        group=group.key, request=REQUEST, message=MESSAGE, order=order or list(group.shares), **arguments
    )


# ------------------------------------------------------------------ how signers misbehave


def silent(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return []


def slow(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return [(net.rng.uniform(0.2, 3.0), answer) for answer in answers]


def dies_later(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return [(0.01, answer) for answer in answers if not isinstance(answer, ShareReply)]


def garbage(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return altered(net, answers, lambda part: net.rng.randbytes(32))


def off_by_one(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return altered(net, answers, lambda part: scalar_add(part, ONE))


def second_encoding(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return altered(net, answers, lambda part: (int.from_bytes(part, "little") + L).to_bytes(32, "little"))


def other_nonces(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    """Signs correctly, with nonces it did not commit to."""
    if not isinstance(message, ShareRequest):
        return [(0.01, answer) for answer in answers]
    nonces = new_nonces(net.group.shares[signer], net.rng.randbytes)
    commitments = [nonces.commitment if c.identifier == signer else c for c in message.commitments]
    part = sign_share(net.group.shares[signer], nonces, b"signed " + message.request, commitments)
    return altered(net, answers, lambda _: part)


def altered(net: Any, answers: list[ToCoordinator], alter: Callable[[bytes], bytes]) -> Timed:
    return [
        (
            net.rng.uniform(0.001, 0.02),
            replace(answer, share=alter(answer.share)) if isinstance(answer, ShareReply) else answer,
        )
        for answer in answers
    ]


def no_points(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    bad = net.rng.choice([IDENTITY, bytes(32), b"\x02" + bytes(31), (2**255 - 20).to_bytes(32, "little")])
    which = net.rng.choice(["hiding", "binding"])
    return [
        (0.001, answer if isinstance(answer, RefusalReply) else replace(answer, **{which: bad}))
        for answer in answers
    ]


def same_commitment(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    point = base_mul(scalar_of(5))
    return [
        (0.001, answer if isinstance(answer, RefusalReply) else replace(answer, hiding=point, binding=point))
        for answer in answers
    ]


def changing_commitments(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    """Gives one commitment, then at once another for the same request."""
    return [
        (0.001 * (1 + i), answer if isinstance(answer, RefusalReply) else replace(answer, hiding=point))
        for answer in answers
        for i, point in enumerate(base_mul(scalar_of(net.rng.randrange(1, 2**60))) for _ in range(3))
    ]


def replays(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    """Everything it ever said, before and after what it should say, and never the right thing."""
    old = list(net.said[signer])
    return [(0.001 * (1 + i), answer) for i, answer in enumerate([*old, *old])] + [
        (0.01, answer) for answer in answers if not isinstance(answer, ShareReply)
    ]


def refuses(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return [
        (
            0.001,
            RefusalReply(
                session=message.session,
                epoch=net.rng.choice([0, 9]),
                attempt=getattr(message, "attempt", 0),
                reason=net.rng.choice(list(Reason)),
                detail="no",
            ),
        )
    ]


def forgetful(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    """Commits, and then claims for ever that it has lost its nonces."""
    if isinstance(message, CommitRequest):
        return [(0.001, answer) for answer in answers]
    refusal = RefusalReply(
        session=message.session, epoch=0, attempt=message.attempt, reason=Reason.NONCE, detail="lost"
    )
    return [(0.001, refusal)]


def confused(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    """Answers other attempts, sessions and epochs than it was asked about."""
    wrong: list[ToCoordinator] = []
    for answer in answers:
        wrong += [replace(answer, session=b"x" * 16), replace(answer, epoch=5)]
        if isinstance(answer, ShareReply):
            wrong += [replace(answer, attempt=answer.attempt + 1), replace(answer, attempt=255)]
    net.rng.shuffle(wrong)
    return [(0.001 * (1 + i), answer) for i, answer in enumerate(wrong)]


def moody(net: Any, signer: Scalar, message: ToSigner, answers: list[ToCoordinator]) -> Timed:
    return net.rng.choice(BEHAVIOURS)(net, signer, message, answers)


BEHAVIOURS: list[Callable[..., Timed]] = [
    silent, slow, dies_later, garbage, off_by_one, second_encoding, other_nonces, no_points, same_commitment,
    changing_commitments, replays, refuses, forgetful, confused,
]  # fmt: skip


def share_requests(net: Any) -> list[ShareRequest]:
    return [message for message in net.sent if isinstance(message, ShareRequest)]


def check_run(net: Any, machine: Signing, told: list[Any]) -> None:
    """What holds however signers behave."""
    n, t = len(net.group.shares), net.group.key.threshold
    assert machine.finished
    assert machine.deadline is None
    final = told[-1]
    assert all(isinstance(event, Excluded) for event in told[:-1])
    if isinstance(final, Completed):
        assert verify(net.group.key.public, MESSAGE, final.signature)
    # Every attempt but the last has cost a liar or a silent one; a signer may claim once to have lost its nonces.
    assert machine.attempts <= 2 * n - t + 1
    by_attempt = {request.attempt: request.commitments for request in share_requests(net)}
    assert sorted(by_attempt) == list(range(1, machine.attempts + 1))
    used = [commitment for commitments in by_attempt.values() for commitment in commitments]
    assert len(set(used)) == len(used)
    assert all(len(commitments) == t for commitments in by_attempt.values())


# ------------------------------------------------------------------ t honest live signers always succeed


@pytest.mark.parametrize("behave", [*BEHAVIOURS, moody], ids=lambda behave: behave.__name__)
@pytest.mark.parametrize(("t", "n"), [(1, 3), (2, 3), (3, 5)])
def test_n_minus_t_of_any_one_kind_do_not_prevent_it(
    new_group: Callable[..., Any], new_net: Callable[..., Any], t: int, n: int, behave: Callable[..., Timed]
) -> None:
    net = new_net(new_group(t, n))
    bad = list(net.signers)[: n - t]  # asked first
    net.behaviours = dict.fromkeys(bad, behave)
    machine = signing(net.group)
    told = net.run(machine, Begin())
    check_run(net, machine, told)
    assert isinstance(told[-1], Completed)
    assert net.told_at <= 0.1 + CONFIG.patience_s * (n - t)
    assert {event.signer for event in told[:-1]} <= set(bad)


@settings(max_examples=80)
@given(st.data())
def test_any_mixture_of_up_to_n_minus_t_does_not_prevent_it(
    new_group: Callable[..., Any], new_net: Callable[..., Any], data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 6), "n")
    t = data.draw(st.integers(1, n), "t")
    net = new_net(new_group(t, n), data.draw(st.integers(0, 2**32), "seed"))
    bad = data.draw(
        st.lists(st.sampled_from(sorted(net.signers)), max_size=n - t, unique=True), "bad"
    ) if n > t else []  # fmt: skip
    net.behaviours = {i: data.draw(st.sampled_from([*BEHAVIOURS, moody])) for i in bad}
    machine = signing(net.group, data.draw(st.permutations(sorted(net.signers)), "order"))
    told = net.run(machine, Begin())
    check_run(net, machine, told)
    assert isinstance(told[-1], Completed)
    assert net.told_at <= 0.1 + CONFIG.patience_s * len(bad)
    assert {event.signer for event in told[:-1]} <= set(bad), "no honest signer is excluded"


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_honest_signers_that_are_all_slower_than_patience_succeed(
    new_group: Callable[..., Any], new_net: Callable[..., Any], seed: int
) -> None:
    net = new_net(new_group(3, 5), seed)
    net.behaviours = dict.fromkeys(net.signers, slow) | {A: silent, B: garbage}
    # Commitments and n - t + 1 attempts, one after the other in the worst case, at most 3 s each.
    machine = signing(net.group, config=replace(CONFIG, timeout_s=12.1))
    told = net.run(machine, Begin())
    check_run(net, machine, told)
    assert isinstance(told[-1], Completed)


@settings(max_examples=60)
@given(st.data())
def test_with_fewer_than_t_honest_ones_it_ends_all_the_same_and_never_falsely(
    new_group: Callable[..., Any], new_net: Callable[..., Any], data: st.DataObject
) -> None:
    net = new_net(new_group(3, 5), data.draw(st.integers(0, 2**32)))
    bad = data.draw(st.lists(st.sampled_from(sorted(net.signers)), min_size=3, unique=True))
    net.behaviours = {i: data.draw(st.sampled_from([*BEHAVIOURS, moody])) for i in bad}
    machine = signing(net.group)
    told = net.run(machine, Begin())
    check_run(net, machine, told)
    assert net.told_at <= CONFIG.timeout_s + 0.01
    if isinstance(told[-1], Failed):
        assert {signer for signer, _ in told[-1].refusals} <= set(bad)
        assert (len(told[-1].refusals) >= 3) == (told[-1].failure is Failure.REFUSED)


def test_all_honest_signers_need_one_attempt_and_no_patience(
    new_group: Callable[..., Any], new_net: Callable[..., Any]
) -> None:
    for t, n in ((1, 1), (2, 3), (3, 5), (5, 5)):
        net = new_net(new_group(t, n))
        machine = signing(net.group)
        told = net.run(machine, Begin())
        check_run(net, machine, told)
        assert machine.attempts == 1
        assert net.told_at < 0.1
        assert len(share_requests(net)) == t


def test_a_lie_in_an_attempt_that_never_completes_is_seen_when_patience_ends(
    new_group: Callable[..., Any],
) -> None:
    script = Script(new_group(3, 5))
    first = script.start([A, B, C])
    script.reply(D, script.offer(D))
    script.reply(E, script.offer(E))
    lie = script.share(B, first)
    assert script.reply(B, replace(lie, share=scalar_add(lie.share, ONE)), now=0.01) == []
    excluded, *sends = script.machine.step(0.3, Tick())  # of A and C nothing was heard
    assert excluded == Excluded(session=SESSION, signer=B, reason="gave a wrong share")
    assert sends == []  # D and E are too few
    lie = script.share(C, first)
    assert script.reply(C, replace(lie, share=ONE), now=0.4)[0] == Excluded(
        session=SESSION, signer=C, reason="gave a wrong share"
    )
    second = request_in(script.reply(A, script.share(A, first), now=0.5))
    assert [c.identifier for c in second.commitments] == [A, D, E]


# ------------------------------------------------------------------ step by step


class Script:
    """A signing whose signers the test plays."""

    def __init__(self, group: Any, **options: Any) -> None:
        self.group = group
        self.machine = signing(group, **options)
        self.entropy = Random(5).randbytes
        self.nonces: dict[Commitment, Any] = {}

    def offer(self, signer: Scalar) -> CommitReply:
        nonces = new_nonces(self.group.shares[signer], self.entropy)
        self.nonces[nonces.commitment] = nonces
        return CommitReply(
            session=SESSION, epoch=0, hiding=nonces.commitment.hiding, binding=nonces.commitment.binding
        )

    def share(self, signer: Scalar, request: ShareRequest) -> ShareReply:
        own = next(c for c in request.commitments if c.identifier == signer)
        part = sign_share(self.group.shares[signer], self.nonces[own], MESSAGE, request.commitments)
        following = self.offer(signer)
        return ShareReply(
            session=SESSION, epoch=0, attempt=request.attempt, share=part,
            hiding=following.hiding, binding=following.binding,
        )  # fmt: skip

    def begin(self) -> list[SigningOutput]:
        return self.machine.step(0.0, Begin())

    def reply(self, signer: Scalar, message: ToCoordinator, now: float = 0.0) -> list[SigningOutput]:
        return self.machine.step(now, Reply(signer=signer, message=message))

    def refuse(
        self, signer: Scalar, reason: Reason, attempt: int = 0, epoch: int = 0, now: float = 0.0
    ) -> list[SigningOutput]:
        refusal = RefusalReply(session=SESSION, epoch=epoch, attempt=attempt, reason=reason, detail="because")
        return self.reply(signer, refusal, now)

    def start(self, signers: Sequence[Scalar]) -> ShareRequest:
        self.begin()
        out: list[SigningOutput] = []
        for signer in signers:
            out = self.reply(signer, self.offer(signer))
        return request_in(out)


def request_in(out: Sequence[SigningOutput]) -> ShareRequest:
    requests = {
        o.message.attempt: o.message
        for o in out
        if isinstance(o, Send) and isinstance(o.message, ShareRequest)
    }
    ((_, request),) = requests.items()
    return request


def asked(out: Sequence[SigningOutput]) -> list[Scalar]:
    return [o.signer for o in out if isinstance(o, Send)]


@pytest.fixture
def script(new_group: Callable[..., Any]) -> Script:
    return Script(new_group(2, 3))


def test_it_asks_all_for_commitments_and_the_first_t_for_shares(script: Script) -> None:
    commit = CommitRequest(session=SESSION, epoch=0)
    assert script.begin() == [Send(signer=i, message=commit) for i in (A, B, C)]
    assert script.machine.deadline == CONFIG.timeout_s
    assert script.reply(C, script.offer(C)) == []
    out = script.reply(B, script.offer(B), now=0.1)
    assert asked(out) == [B, C]  # in the order given
    request = request_in(out)
    assert (request.request, request.attempt, request.epoch) == (REQUEST, 1, 0)
    assert script.machine.deadline == pytest.approx(0.4)
    assert script.reply(A, script.offer(A), now=0.2) == []  # ready, and not needed as long as there is hope
    assert (
        script.reply(B, script.share(B, request), now=0.25) == []
    )  # two are ready, the patience is not over
    (completed,) = script.reply(C, script.share(C, request), now=0.29)
    assert isinstance(completed, Completed)
    assert set(script.machine.spares()) == {A, B, C}
    assert script.machine.step(99.0, Tick()) == []


def test_when_patience_is_over_others_are_asked_and_whichever_attempt_is_first_counts(script: Script) -> None:
    first = script.start([A, B])
    script.reply(C, script.offer(C))
    script.reply(A, script.share(A, first))
    assert script.machine.step(0.29, Tick()) == []
    out = script.machine.step(0.3, Tick())
    assert asked(out) == [A, C]
    second = request_in(out)
    assert second.attempt == 2
    assert script.machine.late == (B, A, C)
    script.reply(C, script.share(C, second), now=0.35)
    (completed,) = script.reply(B, script.share(B, first), now=0.36)  # the slow one was first after all
    assert isinstance(completed, Completed)
    assert script.machine.late == (A,)


def test_spares_make_it_one_round_trip_and_nobody_else_is_asked(new_group: Callable[..., Any]) -> None:
    group = new_group(2, 3)
    spares = {i: new_nonces(group.shares[i], group.entropy).commitment for i in (B, C)}
    machine = signing(group, spares=spares)
    out = machine.step(0.0, Begin())
    assert asked(out) == [B, C]
    assert request_in(out).commitments == (spares[B], spares[C])


def test_a_signer_that_lost_its_nonces_is_asked_again_once(script: Script) -> None:
    first = script.start([A, B])
    assert script.refuse(A, Reason.NONCE, first.attempt) == [
        Send(signer=A, message=CommitRequest(session=SESSION, epoch=0))
    ]
    script.reply(B, script.share(B, first))
    second = request_in(script.reply(A, script.offer(A)))
    assert {c.identifier for c in second.commitments} == {A, B}
    assert second.attempt == 2
    assert script.refuse(A, Reason.NONCE, second.attempt) == []  # out, without a second chance
    third = request_in([*script.reply(C, script.offer(C)), *script.reply(B, script.share(B, second))])
    assert {c.identifier for c in third.commitments} == {B, C}


def test_an_unreachable_signer_is_not_waited_for(script: Script) -> None:
    first = script.start([A, B])
    script.reply(C, script.offer(C))
    assert script.machine.step(0.01, Unreachable(signer=B)) == []  # A is still at work
    second = request_in(script.reply(A, script.share(A, first), now=0.02))
    assert {c.identifier for c in second.commitments} == {A, C}
    (completed,) = script.reply(B, script.share(B, first), now=0.03)  # it was heard after all
    assert isinstance(completed, Completed)


def test_an_unreachable_signer_is_welcome_when_it_answers_after_all(script: Script) -> None:
    script.begin()
    script.machine.step(0.0, Unreachable(signer=A))
    script.machine.step(0.0, Unreachable(signer=A))
    script.machine.step(0.0, Unreachable(signer=scalar_of(9)))
    script.reply(B, script.offer(B))
    assert set(asked(script.reply(A, script.offer(A)))) == {A, B}


def test_a_ready_signer_that_becomes_unreachable_is_not_chosen(script: Script) -> None:
    script.begin()
    script.reply(A, script.offer(A))
    script.machine.step(0.0, Unreachable(signer=A))
    assert script.reply(B, script.offer(B)) == []
    assert asked(script.reply(C, script.offer(C))) == [B, C]


def test_when_fewer_than_t_are_left_it_fails_at_once_and_says_why(script: Script) -> None:
    script.begin()
    assert script.refuse(A, Reason.EPOCH, epoch=4) == []
    (failed,) = script.refuse(B, Reason.POLICY)
    assert failed == Failed(
        session=SESSION,
        failure=Failure.REFUSED,
        refusals=((A, "because"), (B, "because")),
        silent=(C,),
        epoch=4,
    )
    assert script.machine.deadline is None
    assert script.reply(C, script.offer(C)) == []


def test_when_time_is_up_it_fails_and_names_the_silent(script: Script) -> None:
    script.begin()
    script.reply(A, script.offer(A))
    assert script.machine.step(9.99, Tick()) == []
    (failed,) = script.machine.step(10.0, Tick())
    assert failed == Failed(session=SESSION, failure=Failure.TIMEOUT, refusals=(), silent=(B, C), epoch=0)


def test_what_answers_nothing_that_was_asked_changes_nothing(script: Script) -> None:
    script.begin()
    offered = script.offer(A)
    script.reply(A, offered)
    request = request_in(script.reply(B, script.offer(B)))
    share = script.share(A, request)
    before = repr(script.machine)
    stranger = scalar_of(9)
    for signer, message in (
        (A, offered),
        (A, script.offer(A)),
        (C, share),
        (stranger, share),
        (A, replace(share, attempt=2)),
        (A, replace(share, session=b"x" * 16)),
        (C, replace(script.offer(C), session=b"x" * 16)),
    ):
        assert script.reply(signer, message) == []
        assert repr(script.machine) == before
    for attempt in (0, 2):
        assert script.refuse(A, Reason.POLICY, attempt) == []
    assert script.refuse(C, Reason.POLICY, 1) == []
    assert repr(script.machine) == before
    assert script.reply(A, share) == []
    assert script.reply(A, share) == []  # a duplicate
    assert isinstance(script.reply(B, script.share(B, request))[0], Completed)


def test_a_reply_of_another_epoch_counts_as_a_refusal(script: Script) -> None:
    script.begin()
    assert script.reply(A, replace(script.offer(A), epoch=1)) == []
    (failed,) = script.reply(B, replace(script.offer(B), epoch=1))
    assert isinstance(failed, Failed)
    assert failed.refusals[0] == (A, "answered for epoch 1, asked for 0")


def test_a_commitment_given_twice_excludes_but_its_share_counts(script: Script) -> None:
    request = script.start([A, B])
    own = next(c for c in request.commitments if c.identifier == A)
    share = replace(script.share(A, request), hiding=own.hiding, binding=own.binding)
    assert script.reply(A, share) == [
        Excluded(session=SESSION, signer=A, reason="gave the same commitment twice")
    ]
    assert isinstance(script.reply(B, script.share(B, request))[0], Completed)


def test_the_order_is_of_all_signers_and_it_begins_once(script: Script) -> None:
    with pytest.raises(AssertionError, match="place"):
        signing(script.group, [A, B])
    with pytest.raises(AssertionError, match="may still be used"):
        script.machine.spares()
    script.begin()
    with pytest.raises(AssertionError, match="once"):
        script.begin()


# ------------------------------------------------------------------ anything at all


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_no_sequence_of_messages_raises_or_uses_a_commitment_twice(
    new_group: Callable[..., Any], seed: int
) -> None:
    rng = Random(seed)
    group = new_group(rng.randint(1, 3), 4)
    machine = signing(group)
    points = [base_mul(scalar_of(i)) for i in range(1, 7)] + [IDENTITY, bytes(32)]
    used: list[Commitment] = []
    attempts: set[int] = set()
    now = 0.0
    out = machine.step(now, Begin())
    for _ in range(60):
        for output in out:
            if isinstance(output, Send) and isinstance(output.message, ShareRequest):
                if output.message.attempt not in attempts:
                    used += output.message.commitments
                attempts.add(output.message.attempt)
        now += rng.choice([0.0, 0.01, 0.2])
        signer = rng.choice([*group.shares, scalar_of(9)])
        session = rng.choice([SESSION] * 9 + [b"x" * 16])
        epoch = rng.choice([0] * 9 + [1])
        attempt = rng.choice([*attempts, 1])
        hiding, binding = rng.choices(points, k=2)
        out = machine.step(
            now,
            rng.choice(
                [
                    Tick(),
                    Unreachable(signer=signer),
                    Reply(
                        signer=signer,
                        message=CommitReply(session=session, epoch=epoch, hiding=hiding, binding=binding),
                    ),
                    Reply(
                        signer=signer,
                        message=ShareReply(
                            session=session, epoch=epoch, attempt=attempt, share=rng.randbytes(31) + b"\0",
                            hiding=hiding, binding=binding,
                        ),
                    ),
                    Reply(
                        signer=signer,
                        message=RefusalReply(
                            session=session, epoch=epoch, attempt=rng.choice([0, attempt]),
                            reason=rng.choice(list(Reason)), detail="",
                        ),
                    ),
                ]
            ),
        )  # fmt: skip
        assert not any(isinstance(output, Completed) for output in out)
    assert len(set(used)) == len(used)
    assert len(attempts) <= 2 * 4 - group.key.threshold + 1
