"""Signatures by three of five over real streams: whoever coordinates, and whatever two of the signers do."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from peer.signing import DeniedError, LaterError
from tests.peer.team import PATIENCE_S, Answer, Seat, Team
from tests.trust.ceremony.network import DOMAIN
from trust.coordinator import CoordinatorConfig
from trust.frost import Nonces
from trust.identity import spiffe_workload
from trust.revocation import REVOCATION_S, revoke, signer_subject
from trust.roast import SigningConfig
from trust.sessionwire import ShareReply, ShareRequest, ToCoordinator, ToSigner
from trust.svid import verify_svid


def check(team: Team, der: bytes) -> None:
    svid = verify_svid(
        der, root_public=team.live.authority.root_public, trust_domain=DOMAIN, now=team.live.now()
    )
    assert svid.spiffe == spiffe_workload(DOMAIN, "default", "shop")


async def slow(_seat: Seat, honest: Answer, coordinator: bytes, message: ToSigner) -> ToCoordinator:
    await asyncio.sleep(10 * PATIENCE_S)
    return await honest(coordinator, message)


async def lying(_seat: Seat, honest: Answer, coordinator: bytes, message: ToSigner) -> ToCoordinator:
    reply = await honest(coordinator, message)
    if isinstance(reply, ShareReply):
        return replace(reply, share=bytes([reply.share[0] ^ 1]) + reply.share[1:])
    return reply


async def silent(_seat: Seat, honest: Answer, coordinator: bytes, message: ToSigner) -> ToCoordinator:
    if isinstance(message, ShareRequest):
        await asyncio.sleep(3600)
    return await honest(coordinator, message)


async def test_any_member_has_certificates_signed(team: Team) -> None:
    other = await team.member(50)
    for coordinator in (other, team.seats[3]):
        check(team, await coordinator.parts.issuer.svid(team.svid(other)))
    statistics = other.parts.signing.statistics()
    assert (statistics.completed, statistics.failed, statistics.excluded) == (1, {}, 0)
    assert 0 < statistics.seconds == sum(statistics.recent_s)


@pytest.mark.parametrize("how", ["dead", "slow", "lying", "silent"])
async def test_with_two_of_five_bad_everything_is_signed(team: Team, how: str) -> None:
    other = await team.member(50)
    for seat in team.seats[:2]:
        if how == "dead":
            await seat.stop()
        else:
            seat.behave = {"slow": slow, "lying": lying, "silent": silent}[how]
    for der in await asyncio.gather(*(other.parts.issuer.svid(team.svid(other)) for _ in range(8))):
        check(team, der)
    assert (other.parts.signing.statistics().excluded > 0) == (how == "lying")


async def test_below_the_threshold_it_says_so_and_goes_on_when_one_returns(team: Team) -> None:
    other = await team.member(50)
    for seat in team.seats[:3]:
        await seat.stop()
    for _ in range(2):  # found out, and remembered for a moment
        with pytest.raises(LaterError, match=r"2 of 5 signers answer, 3 needed: .* cannot connect"):
            await other.parts.issuer.svid(team.svid(other))
    assert [each.answers for each in await other.parts.signing.survey()].count(True) == 2
    assert other.parts.signing.reachable == 2
    await team.seats[0].start()
    assert [each.answers for each in await other.parts.signing.survey()].count(True) == 3
    check(team, await eventually(lambda: other.parts.issuer.svid(team.svid(other))))


async def eventually(ask: Any) -> bytes:
    async with asyncio.timeout(10):
        while True:
            try:
                answer: bytes = await ask()
            except LaterError:
                await asyncio.sleep(0.05)
            else:
                return answer


async def test_what_signers_refuse_is_denied_with_their_words(team: Team) -> None:
    """The coordinator has heard nothing of a use that all signers know."""
    token, other = team.token(), await team.member(50)
    await other.parts.issuer.credential(team.join(token, 1))
    for _ in range(2):  # the answer got lost
        await other.parts.issuer.credential(team.join(token, 1))
    with pytest.raises(DeniedError, match="used by another host"):
        await other.parts.issuer.credential(team.join(token, 2))
    assert other.parts.signing.statistics().failed == {"policy": 1}


async def test_a_signer_that_is_revoked_is_not_asked(team: Team) -> None:
    other, revoked = await team.member(50), team.seats[0]
    asked: list[ToSigner] = []

    async def listening(_seat: Seat, honest: Answer, coordinator: bytes, message: ToSigner) -> ToCoordinator:
        asked.append(message)
        return await honest(coordinator, message)

    revoked.behave = listening
    now = team.live.now()
    subject = signer_subject(revoked.node)
    team.live.revoked.add(
        revoke(team.live.authority, subject, reason="stolen", now=now, expires_at=now + REVOCATION_S)
    )
    for _ in range(6):
        check(team, await other.parts.issuer.svid(team.svid(other)))
    (found,) = [each for each in await other.parts.signing.survey() if each.node == revoked.node]
    assert (found.answers, found.words) == (False, "is revoked")
    assert asked == []


async def test_no_commitment_serves_twice_also_across_restarts(team: Team) -> None:
    other = await team.member(50)
    for _ in range(4):
        for _ in range(3):  # leaves commitments for the next one at the coordinator
            check(team, await other.parts.issuer.svid(team.svid(other)))
        for seat in team.seats:
            await seat.stop()
            await seat.start()
        check(team, await eventually(lambda: other.parts.issuer.svid(team.svid(other))))
    given = [reply for seat in team.seats for reply in seat.given]
    offered = [(reply.hiding, reply.binding) for reply in given]
    assert len(given) >= 4 * 4 * 3
    assert len(set(offered)) == len(offered)
    assert len({reply.share for reply in given}) == len(given)


async def test_what_is_under_way_is_asked_for_again_when_the_group_changes(team: Team) -> None:
    other, sixth = await team.member(50), await team.member(51)
    for seat in team.seats:
        seat.behave = silent
    waiting = [asyncio.create_task(other.parts.issuer.svid(team.svid(other))) for _ in range(3)]
    while not other.parts.signing.statistics().coordinator:
        await asyncio.sleep(0)
    record, shares = team.reshared([*team.signers[2:], sixth.identity])
    for seat in team.seats:
        seat.behave = None
    team.tell(record, shares, team.all.values())
    for der in await asyncio.gather(*waiting):
        check(team, der)
    assert {reply.epoch for seat in team.all.values() for reply in seat.given} == {1}
    assert sixth.node in {each.node for each in await other.parts.signing.survey() if each.answers}


async def test_who_does_not_know_the_group_puts_off(team: Team) -> None:
    other = await team.member(50)
    other.parts.custody._chain = type(team.seats[0].parts.custody)(team.record.group.public, other.node).chain
    assert not other.parts.issuer.ready
    with pytest.raises(LaterError, match="does not know yet who signs"):
        await other.parts.issuer.svid(team.svid(other))
    assert await other.parts.signing.survey() == []


async def test_what_is_under_way_is_bounded(team: Team) -> None:
    other = await team.member(50)
    bounds = CoordinatorConfig(
        signing=SigningConfig(patience_s=PATIENCE_S, timeout_s=0.5), signings_max=2, waiting_max=3
    )
    other.parts.signing._config = bounds
    for seat in team.seats:
        seat.behave = silent
    answers = await asyncio.gather(
        *(other.parts.issuer.svid(team.svid(other)) for _ in range(8)), return_exceptions=True
    )
    assert all(isinstance(each, LaterError) for each in answers)
    assert [str(each) for each in answers].count("this peer has too many signatures under way") == 3
    assert other.parts.signing.statistics().failed["busy"] == 3


async def test_who_waits_is_told_when_the_peer_closes(team: Team) -> None:
    other = await team.member(50)
    for seat in team.seats:
        seat.behave = silent
    waiting = asyncio.create_task(other.parts.issuer.svid(team.svid(other)))
    while not other.parts.signing._wanted:
        await asyncio.sleep(0)
    await other.parts.signing.close()
    with pytest.raises(LaterError, match="closing"):
        await waiting
    with pytest.raises(LaterError):
        await other.parts.issuer.svid(team.svid(other))


async def test_a_signer_that_breaks_is_like_one_that_is_away(team: Team, caplog: Any) -> None:
    async def broken(_seat: Seat, _honest: Answer, _coordinator: bytes, _message: ToSigner) -> ToCoordinator:
        raise ZeroDivisionError

    for seat in team.seats[:2]:
        seat.behave = broken
    for coordinator in (team.seats[0], team.seats[4]):
        check(team, await coordinator.parts.issuer.svid(team.svid(coordinator)))
    assert "answer_failed" in caplog.text


async def test_no_share_or_nonce_shows_in_a_log_a_repr_or_an_error(
    team: Team, caplog: Any, monkeypatch: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [share.secret.expose() for share in team.shares.values()]
    honest = Nonces.__init__

    def spy(self: Any, identifier: Any, hiding: Any, binding: Any) -> None:
        secrets.extend((hiding.expose(), binding.expose()))
        honest(self, identifier, hiding, binding)

    monkeypatch.setattr(Nonces, "__init__", spy)
    other, token = await team.member(50), team.token()
    shown = []
    team.seats[0].behave, team.seats[1].behave = lying, silent
    await other.parts.issuer.svid(team.svid(other))
    await other.parts.issuer.credential(team.join(token, 1))
    for request in (team.join(token, 2), b"garbage"):
        with pytest.raises(Exception) as refusal:  # noqa: PT011
            await other.parts.issuer.credential(request)
        shown.append(repr(refusal.value))
    for seat in team.all.values():
        made = seat.parts
        parts: list[Any] = [made.custody, made.signing, made.cosigner._signer, made.custody.shares]
        parts += [made.signing.statistics(), made.cosigner.statistics(), vars(made.signing)]
        shown += map(repr, parts)
    shown.append("".join(repr(vars(record)) for record in caplog.records))
    text = "".join(shown)
    assert len(secrets) > 20
    for secret in secrets:
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text


async def test_a_survey_ends_in_time(team: Team) -> None:
    async def hanging(_seat: Seat, _honest: Answer, _coordinator: bytes, _message: ToSigner) -> ToCoordinator:
        await asyncio.sleep(3600)
        raise AssertionError

    team.seats[1].behave = hanging
    found = await team.seats[0].parts.signing.survey()
    assert [each.node for each in found if not each.answers] == [team.seats[1].node]
    assert {each.words for each in found} == {"", "does not answer within 2 s"}


async def test_a_survey_uses_no_commitment_of_a_signature(team: Team) -> None:
    other = await team.member(50)
    await other.parts.signing.survey()
    assert all(seat.parts.cosigner.statistics().signer.granted == 0 for seat in team.seats)
    check(team, await other.parts.issuer.svid(team.svid(other)))
