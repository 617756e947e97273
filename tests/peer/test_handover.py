"""Used tokens across a change of the signers: whoever signs next knows them before anybody new is let in."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from peer import handover
from peer.handover import HANDED_MAX, Handover, Settled, decode_settled
from peer.io.store import StoreError
from peer.io.stream import SPENT
from peer.signing import DeniedError, LaterError
from tests.peer.team import Seat, Team
from trust.admission import ADMITTED_MAX, Spend, TokenLedger


async def settle(seats: Iterable[Seat], epoch: int) -> None:
    """Let these run until they are settled."""
    tasks = [asyncio.create_task(seat.handover.run()) for seat in seats]
    try:
        async with asyncio.timeout(20):
            while any(seat.handover.settled.epoch < epoch for seat in seats):
                await asyncio.sleep(0.01)
    finally:
        for task in tasks:
            task.cancel()


async def changed(team: Team, *, keep: int) -> tuple[list[Seat], Seat]:
    """The five signers become `keep` of them and others; those who sign now, and somebody who does not."""
    other = await team.member(60)
    fresh = [await team.member(61 + number) for number in range(5 - keep)]
    record, shares = team.reshared([*team.signers[5 - keep :], *(seat.identity for seat in fresh)])
    team.epochs.append((record, shares))
    team.tell(record, shares, team.all.values())
    return [*team.seats[5 - keep :], *fresh], other


@pytest.mark.parametrize("keep", [0, 3, 5])
async def test_a_token_used_before_a_change_admits_nobody_else_after_it(team: Team, keep: int) -> None:
    token = team.token()
    await team.seats[0].parts.issuer.credential(team.join(token, 1))
    signing, other = await changed(team, keep=keep)
    with pytest.raises(LaterError, match="does not know yet which tokens"):
        await other.parts.issuer.credential(team.join(team.token(), 3))
    assert await other.parts.issuer.svid(team.svid(other))  # nothing else waits
    await settle(signing, 1)
    assert {seat.settled for seat in signing} == {Settled(epoch=1)}
    for seat in signing:
        assert {spend.token_id for spend in seat.disk} == {token.invitation.id}
    with pytest.raises(DeniedError, match="used by another host"):
        await other.parts.issuer.credential(team.join(token, 2))
    assert await other.parts.issuer.credential(team.join(token, 1))  # a retry of who was let in
    assert await other.parts.issuer.credential(team.join(team.token(), 3))


async def test_the_old_ones_let_nobody_in_any_more(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that has not heard of the change yet."""
    late = await team.member(70)
    learn = late.parts.custody
    monkeypatch.setattr(late.parts.custody, "learn", lambda _record: False)
    await changed(team, keep=5)
    assert learn.record is not None
    assert learn.record.epoch == 0
    with pytest.raises(LaterError, match="epoch 1 has begun"):
        await late.parts.issuer.credential(team.join(team.token(), 1))
    assert await late.parts.issuer.svid(team.svid(late))


async def test_so_many_ledgers_are_needed_that_every_quorum_is_in_them(team: Team, caplog: Any) -> None:
    signing, _ = await changed(team, keep=0)
    for seat in team.seats[:3]:
        await seat.stop()
    newcomer = signing[0]
    running = asyncio.create_task(newcomer.handover.run())
    while not newcomer.handover._told:
        await asyncio.sleep(0.01)
    assert newcomer.handover._told[1].startswith("2 of 3 ledgers of epoch 0 are here")
    assert newcomer.handover.settled.epoch < 1
    running.cancel()
    assert "tokens_unsettled" in caplog.text
    team.epochs.pop()  # it comes back as it was, and hears of the change then
    await team.seats[0].start()
    team.epochs.append((newcomer.parts.custody.chain.records[-1], {}))
    team.seats[0].parts.custody.learn(team.epochs[-1][0])
    await settle([newcomer], 1)


async def test_who_is_not_settled_itself_hands_nothing_over(team: Team) -> None:
    await changed(team, keep=5)
    record, shares = team.reshared(team.signers, seed=2)
    team.epochs.append((record, shares))
    team.tell(record, shares, team.seats)
    assert "does not know yet itself" in await asked(team.seats[0], team.seats[1], 2)
    await settle(team.seats, 2)  # one epoch after the other
    assert await asked(team.seats[0], team.seats[1], 2) == ""


async def asked(seat: Seat, by: Seat, epoch: int) -> str:
    """What `seat` answers; "" for a ledger."""
    answer = await by.handover._ask(seat.node, epoch)
    return answer if isinstance(answer, str) else ""


async def test_an_epoch_that_nobody_can_hand_over_any_more_holds_no_later_one_up(
    team: Team, monkeypatch: Any
) -> None:
    """The late one signs in 1 and 2, and was never told what was used in 0; the others of 1 know."""
    signing, _ = await changed(team, keep=3)
    *settled, late = signing
    await settle(settled, 1)
    record, shares = team.reshared([seat.identity for seat in signing], seed=2)
    team.epochs.append((record, shares))
    team.tell(record, shares, signing)
    honest = Handover._refusal
    monkeypatch.setattr(
        Handover,
        "_refusal",
        lambda self, asking, epoch: "gone" if epoch == 1 else honest(self, asking, epoch),
    )
    assert "gone" in await asked(team.seats[0], late, 1)
    await settle([late], 2)
    assert late.settled == Settled(epoch=2)


async def test_what_the_chain_does_not_tell_is_skipped_but_for_the_newest(team: Team) -> None:
    await changed(team, keep=5)
    record, shares = team.reshared(team.signers, seed=2)
    team.epochs.append((record, shares))
    team.tell(record, shares, team.seats)
    seat = team.seats[0]
    seat.handover._settled = Settled()
    assert [each.epoch for each in seat.handover._due()] == [2, 0, 1]
    chain = type(seat.parts.custody.chain)(team.record.group.public, trusted=team.epochs[1][0])
    chain.add(record)
    seat.parts.custody._chain = chain
    assert [each.epoch for each in seat.handover._due()] == [2]
    assert await seat.handover._gathered(team.epochs[1][0]) == "who signed in epoch 0 is not known here"


async def test_ledgers_are_handed_to_signers_only(team: Team) -> None:
    signing, other = await changed(team, keep=4)
    old, new = team.seats[0], signing[-1]
    assert await asked(old, new, 1) == ""
    assert "no signer of epoch 1 asks" in await asked(old, other, 1)
    assert "did not sign in epoch 0" in await asked(new, old, 1) or "no signer" in await asked(new, old, 1)
    assert "epoch 2 has not begun here" in await asked(old, new, 2)
    assert "epoch 0 has not begun" in await asked(old, new, 0)
    stream = await team.dial(new, old.node, SPENT)
    stream.write(b"?")
    assert await stream.read() == b""
    await stream.closed()


async def test_a_large_ledger_comes_in_pages_and_expired_uses_stay_away(team: Team, monkeypatch: Any) -> None:
    monkeypatch.setattr(handover, "PAGE", 7)
    signing, _ = await changed(team, keep=4)
    now = int(team.live.now())
    for number in range(30):
        spend = Spend(
            token_id=bytes([number]) * 16, node=bytes(16), expires_at=now + 600 - 1000 * (number % 2)
        )
        team.seats[0].handover.spending.ledger.record(spend)
    answer = await signing[-1].handover._ask(team.seats[0].node, 1)
    assert not isinstance(answer, str)
    assert {spend.token_id[0] for spend in answer} == set(range(0, 30, 2))


async def test_more_uses_than_can_be_are_not_believed(team: Team, monkeypatch: Any) -> None:
    assert HANDED_MAX >= 2 * ADMITTED_MAX > 10_000
    monkeypatch.setattr(handover, "HANDED_MAX", 10)
    signing, _ = await changed(team, keep=4)
    fill(team, 11)
    monkeypatch.setattr(Handover, "_refusal", lambda *_: "")  # a liar's
    assert "more than 10 uses of tokens" in await asked(team.seats[0], signing[-1], 1)
    assert len(signing[-1].handover.spending.ledger) == 0


def fill(team: Team, count: int) -> None:
    """So many uses in the first signer's ledger."""
    now = int(team.live.now())
    for number in range(count):
        spend = Spend(token_id=bytes([number]) * 16, node=bytes(16), expires_at=now + 600)
        team.seats[0].handover.spending.ledger.record(spend)


async def test_a_ledger_that_is_too_large_is_kept_back_whole_and_loudly_until_tokens_expire(
    team: Team, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(handover, "HANDED_MAX", 10)
    signing, _ = await changed(team, keep=4)
    fill(team, 10)
    assert await asked(team.seats[0], signing[-1], 1) == ""
    fill(team, 11)
    for _ in range(2):
        answer = await signing[-1].handover._ask(team.seats[0].node, 1)
        assert isinstance(answer, str), "no part of it is handed over"
        assert "counts 11 uses of tokens, more than the 10 that can be handed over" in answer
    told = [each for each in caplog.records if each.message == "ledger_too_large"]
    assert len(told) == 1
    team.seats[0].handover.spending.ledger.prune(team.live.now() + 600)
    assert await asked(team.seats[0], signing[-1], 1) == ""


async def test_uses_that_no_store_could_keep_are_not_believed(team: Team) -> None:
    """One that lasts for ever, or whose end is no number a database knows, would stay owed to the disk."""
    signing, _ = await changed(team, keep=4)
    most = int(team.live.now() + handover.LASTS_S_MAX)
    for ends, told in (
        (2**64 - 1, "that there cannot be"),
        (most + 60, "that there cannot be"),
        (most - 60, ""),
    ):
        ledger = TokenLedger([Spend(token_id=bytes(16), node=bytes(16), expires_at=ends)])
        team.seats[0].handover.spending.ledger = ledger
        answer = await asked(team.seats[0], signing[-1], 1)
        assert told in answer
        assert bool(answer) is bool(told)


async def test_new_tokens_work_again_when_the_old_signers_never_answer(team: Team) -> None:
    signing, other = await changed(team, keep=0)
    for seat in team.seats:
        await seat.stop()
    running = [asyncio.create_task(seat.handover.run()) for seat in signing]
    while not all(seat.handover._told for seat in signing):
        await asyncio.sleep(0.01)
    with pytest.raises(LaterError, match="does not know yet which tokens"):
        await other.parts.issuer.credential(team.join(team.token(by=other.person), 1))
    team.live.advance_s = 4 * 86_400  # its credential has been renewed by now
    other.person = team.live.person(other.identity, "node-60")
    admitted = await other.parts.issuer.credential(team.join(team.token(by=other.person), 1))
    assert admitted.name == "new-1"
    for task in running:
        task.cancel()


async def test_what_is_on_no_disk_is_not_promised(team: Team, caplog: Any) -> None:
    signing, _ = await changed(team, keep=4)
    newcomer = signing[-1]

    async def full(_settled: Settled) -> None:
        raise StoreError("the disk is full")

    newcomer.handover._settle = full
    running = asyncio.create_task(newcomer.handover.run())
    while "tokens_unsettled" not in caplog.text:
        await asyncio.sleep(0.01)
    running.cancel()
    assert newcomer.handover.settled.epoch < 1


async def test_a_change_wakes_it_up_from_another_thread(team: Team) -> None:
    running = [asyncio.create_task(seat.handover.run()) for seat in team.seats]
    while not all(seat.handover._loop for seat in team.seats):
        await asyncio.sleep(0)
    record, shares = team.reshared(team.signers)
    await asyncio.to_thread(team.tell, record, shares, team.seats)
    async with asyncio.timeout(20):
        while any(seat.handover.settled.epoch < 1 for seat in team.seats):
            await asyncio.sleep(0.01)
    for task in running:
        task.cancel()


@pytest.mark.parametrize(
    "state", [Settled(), Settled(epoch=3), Settled(epoch=2, waiting=4, since=1_800_000_000)]
)
def test_what_is_settled_is_stored_and_read_back(state: Settled) -> None:
    assert decode_settled(state.encode()) == state
    assert decode_settled(state.encode()[:-1]) == Settled() == decode_settled(None)
