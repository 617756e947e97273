"""Renewal: at half-life, with back-off while no signer answers, and never at the cost of what is held."""

import asyncio
import random
from typing import Any

import pytest

from peer.certify import CREDENTIAL, LOOK_S_MAX, RETRY_S_MAX, Certifier
from peer.io.store import StoreError
from peer.signing import LaterError
from trust.identity import spiffe_node, spiffe_workload

DOMAIN = "cluster.local"


class Desk:
    """A certifier with a clock of its own. `signers` is where it asks; none at first."""

    def __init__(self, live: Any, number: int = 2, *, signer: bool = False, **rights: Any) -> None:
        self.live = live
        self.person = live.member(number, **rights)
        self.node = spiffe_node(DOMAIN, self.person.identity.id)
        self.shop = spiffe_workload(DOMAIN, "default", "shop")
        self.signers: list[Any] = []
        self.changes = 0
        self.renewed: list[Any] = []
        self.issuer = live.issuer(number, knows=signer)
        self.certifier = Certifier(
            member=self.person.membership,
            identity=self.person.identity,
            issuer=self.issuer,
            signers=lambda: self.signers,
            now=live.now,
            changed=self._changed,
            renewed=self.renewed.append,
            rng=random.Random(5),
        )
        self.running = asyncio.create_task(self.certifier.run())

    def _changed(self) -> None:
        self.changes += 1

    def look(self) -> None:
        """The clock may have moved: look again."""
        self.certifier._wake.set()

    async def pass_s(self, seconds: float) -> None:
        self.live.advance_s += seconds
        self.look()
        await asyncio.sleep(0)


@pytest.fixture
async def desk(live: Any) -> Any:
    made: list[Desk] = []

    def make(**options: Any) -> Desk:
        made.append(Desk(live, **options))
        return made[-1]

    yield make
    for each in made:
        each.running.cancel()
        await asyncio.gather(each.running, return_exceptions=True)


async def test_what_is_wanted_is_obtained_and_what_is_not_is_dropped(desk: Any, until: Any) -> None:
    one = desk(signer=True)
    one.certifier.want([one.node, one.shop])
    await until(lambda: set(one.certifier.held) == {one.node, one.shop})
    one.certifier.want([one.node])
    assert set(one.certifier.held) == {one.node}


async def test_a_certificate_is_renewed_at_half_life_and_not_before(desk: Any, until: Any) -> None:
    one = desk(signer=True)
    one.certifier.want([one.node])
    await until(lambda: one.node in one.certifier.held)
    first = one.certifier.held[one.node]
    await one.pass_s(1000)
    assert one.certifier.held[one.node] is first
    await one.pass_s(1200)
    await until(lambda: one.certifier.held[one.node] is not first)
    renewed = one.certifier.held[one.node]
    assert renewed.not_after > first.not_after
    assert renewed.key_pem != first.key_pem


async def test_a_short_lived_certificate_is_renewed_many_times_by_itself(
    live: Any, desk: Any, until: Any
) -> None:
    one = desk(signer=True)
    one.issuer.svid_ttl_s = 2
    one.certifier.want([one.node])
    await until(lambda: one.node in one.certifier.held)
    for _ in range(5):
        held = one.certifier.held[one.node]
        live.advance_s += 1.9
        one.look()
        await until(lambda held=held: one.certifier.held[one.node] is not held)
        assert one.certifier.held[one.node].not_after > live.now()


async def test_while_no_signer_answers_it_backs_off_and_keeps_what_it_has(
    live: Any, desk: Any, post: Any, until: Any
) -> None:
    signer = await post(live.member(1), signer=True)
    one = desk()
    one.signers = [signer.address]
    one.certifier.want([one.node])
    await until(lambda: one.node in one.certifier.held)
    held = one.certifier.held[one.node]
    one.signers = [("127.0.0.1", 1)]
    await one.pass_s(2500)
    waits = []
    for attempt in range(1, 12):
        await until(lambda attempt=attempt: attempts(one) == attempt)
        waits.append(one.certifier._due[one.node] - live.now())
        assert one.certifier.held[one.node] is held
        await one.pass_s(waits[-1] + 0.01)
    assert waits[0] <= 1.0
    assert all(wait <= RETRY_S_MAX for wait in waits)
    assert waits[9] > 20
    one.signers = [signer.address]
    live.advance_s = 2600  # the issuers' clock is the test's
    one.certifier._due[one.node] = 0.0
    one.look()
    await until(lambda: one.certifier.held[one.node] is not held)
    assert one.certifier.failures == {}


async def test_who_reaches_too_few_signers_asks_two_others_and_no_more(
    live: Any, desk: Any, post: Any, until: Any, monkeypatch: Any
) -> None:
    one = desk(signer=True)
    signer = await post(live.member(1), signer=True)
    monkeypatch.setattr(type(one.issuer), "_issue", later(one.issuer))
    one.signers = [("127.0.0.1", 1), signer.address]
    one.certifier.want([one.node])
    await until(lambda: one.node in one.certifier.held)
    one.signers = [("127.0.0.1", 1), ("127.0.0.1", 2), signer.address]
    live.advance_s = 2500
    one.look()
    await until(lambda: attempts(one) >= 1)
    reason = one.certifier.failures[one.node].reason
    assert reason.startswith("0 of 1 signers answer")
    assert "127.0.0.1:2: cannot connect" in reason
    assert str(signer.address[1]) not in reason


def later(cut_off: Any) -> Any:
    """That issuer reaches nobody; others do."""
    honest = type(cut_off)._issue

    async def issue(self: Any, kind: Any, request: bytes, ttl_s: int) -> bytes:
        if self is cut_off:
            raise LaterError("0 of 1 signers answer, 1 needed")
        signed: bytes = await honest(self, kind, request, ttl_s)
        return signed

    return issue


def attempts(desk: Desk) -> int:
    failure = desk.certifier.failures.get(desk.node)
    return failure.attempts if failure else 0


async def test_a_signer_away_for_days_does_not_end_it(desk: Any, until: Any) -> None:
    """Doubling for ever would leave the range of numbers."""
    one = desk()
    for _ in range(2000):
        one.certifier._note_failure(one.node, "away")
    failure = one.certifier.failures[one.node]
    assert failure.attempts == 2000
    one.certifier.want([one.node])
    await until(lambda: attempts(one) > 2000)
    assert not one.running.done()


async def test_failures_tell_since_when_and_why(live: Any, desk: Any, until: Any) -> None:
    one = desk()
    began = live.now()
    one.certifier.want([one.node])
    await until(lambda: attempts(one) == 1)
    failure = one.certifier.failures[one.node]
    assert "no seed and no member is known" in failure.reason
    assert began <= failure.since <= live.now()
    since = failure.since
    await one.pass_s(10)
    await until(lambda: attempts(one) == 2)
    assert one.certifier.failures[one.node].since == since


async def test_one_identity_that_is_refused_keeps_no_other_from_its_certificate(
    live: Any, desk: Any, post: Any, until: Any
) -> None:
    signer = await post(live.member(1), signer=True)
    one = desk(services=("default/shop",))
    one.signers = [signer.address]
    bank = spiffe_workload(DOMAIN, "default", "bank")
    one.certifier.want([one.node, one.shop, bank])
    await until(lambda: set(one.certifier.held) == {one.node, one.shop} and bank in one.certifier.failures)
    assert "may not act as default/bank" in one.certifier.failures[bank].reason


async def test_the_credential_is_renewed_at_half_life_and_handed_on(live: Any, desk: Any, until: Any) -> None:
    one = desk(signer=True)
    old = one.certifier.member.credential
    await one.pass_s((old.expires_at - old.issued_at) * 0.8)
    await until(lambda: one.renewed != [])
    assert one.certifier.member.credential == one.renewed[0]
    assert one.renewed[0].expires_at > old.expires_at
    assert one.renewed[0].services == old.services


async def test_a_disk_that_fails_in_a_renewal_is_a_failure_like_any_other(
    live: Any, desk: Any, until: Any, monkeypatch: Any
) -> None:
    one = desk(signer=True)
    one.certifier.want([one.node])
    await until(lambda: one.node in one.certifier.held)

    async def full(_self: Any, _body: bytes) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(type(one.issuer), "credential", full)
    old = one.certifier.member.credential
    await one.pass_s((old.expires_at - old.issued_at) * 0.8)
    await until(lambda: "credential" in one.certifier.failures)
    assert one.certifier.failures["credential"].reason == "the disk is full"
    assert one.certifier.member.credential == old
    assert not one.running.done()


async def test_certificates_of_an_earlier_run_serve_and_are_renewed_in_their_time(
    live: Any, desk: Any, until: Any
) -> None:
    one = desk(signer=True)
    young = live.svid(one.person, one.node)
    live.advance_s = 3000
    one.certifier.restore([young])
    one.certifier.want([one.node])
    assert one.certifier.held[one.node] is young
    await until(lambda: one.certifier.held[one.node] is not young)  # it was past half its life


async def test_an_expired_certificate_is_not_taken_up(live: Any, desk: Any) -> None:
    one = desk()
    old = live.svid(one.person, one.node, ttl_s=100)
    live.advance_s = 200
    one.certifier.restore([old])
    assert one.certifier.held == {}


async def test_an_identity_given_up_while_it_is_being_certified_is_not_kept(
    live: Any, desk: Any, post: Any, until: Any
) -> None:
    signer = await post(live.member(1), signer=True)
    one = desk()
    one.signers = [signer.address]
    one.certifier.want([one.node])
    await asyncio.sleep(0)
    one.certifier.want([])
    one.certifier.want([one.shop])
    await until(lambda: one.shop in one.certifier.held)
    assert one.node not in one.certifier.held


async def test_it_looks_at_the_clock_now_and_then_for_it_may_have_jumped(desk: Any, monkeypatch: Any) -> None:
    waited: list[float] = []
    timeout = asyncio.timeout

    def recorded(delay: float) -> Any:
        waited.append(delay)
        return timeout(delay)

    monkeypatch.setattr("peer.certify.asyncio.timeout", recorded)
    desk(signer=True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert waited
    assert max(waited) <= LOOK_S_MAX


async def test_a_renewal_that_keeps_failing_is_a_warning_and_then_a_failure_with_half_an_hour_left(
    live: Any, desk: Any, post: Any, until: Any, caplog: Any
) -> None:
    """A day of a host whose signer is gone, on a virtual clock: what is said, when, and that it ends."""
    signer = await post(live.member(1), signer=True)
    one = desk()
    one.signers = [signer.address]
    one.certifier.want([one.node])
    await until(lambda: one.node in one.certifier.held)
    held = one.certifier.held[one.node]
    assert one.certifier.standing(one.node).level == "ok"
    one.signers = [("127.0.0.1", 1)]
    told: dict[str, float] = {}
    while one.certifier.standing(one.node).level != "fail":
        tried = attempts(one)
        await one.pass_s(max(one.certifier._due[one.node] - live.now(), 0.0) + 0.01)
        await until(lambda tried=tried: attempts(one) == tried + 1)
        told.setdefault(one.certifier.standing(one.node).level, live.now())
    life_s = held.not_after - held.not_before
    assert told["warn"] - held.not_before < 0.61 * life_s
    assert held.not_after - told["fail"] > 0.25 * life_s
    failed = [r for r in caplog.records if r.message == "renewal_failed"]
    assert [r.levelname for r in failed[:3]] == ["WARNING"] * 3
    assert failed[-1].levelname == "ERROR"
    one.signers = [signer.address]
    one.certifier._due[one.node] = 0.0
    one.look()
    await until(lambda: one.certifier.standing(one.node).level == "ok")
    assert one.certifier.failures == {}


async def test_the_credential_has_a_standing_as_well(live: Any, desk: Any, until: Any) -> None:
    one = desk()
    assert one.certifier.standing(CREDENTIAL).level == "ok"
    old = one.certifier.member.credential
    await one.pass_s((old.expires_at - old.issued_at) * 0.62)
    await until(lambda: CREDENTIAL in one.certifier.failures)
    assert one.certifier.standing(CREDENTIAL).level == "warn"
    live.advance_s += (old.expires_at - old.issued_at) * 0.13
    assert one.certifier.standing(CREDENTIAL).level == "fail"


@pytest.mark.parametrize("left_s", [2, 30, 400])
async def test_what_ends_with_a_credential_that_is_not_renewed_is_not_renewed_all_the_time(
    live: Any, desk: Any, until: Any, left_s: int
) -> None:
    """A certificate lives no longer than the credential: near its end each one is short, and none is due at once."""
    one = desk(signer=True)
    one.certifier._due[CREDENTIAL] = float("inf")
    live.advance_s = one.certifier.member.credential.expires_at - left_s - live.now()
    before = one.certifier.renewed_total
    one.certifier.want([one.node])
    await until(lambda: one.node in one.certifier.held)
    for _ in range(20):
        await asyncio.sleep(0)
    assert one.certifier.renewed_total == before + 1
    assert one.certifier._due[one.node] - live.now() > 0.5
