"""Whole peers in one process go over to another root: under what they see, and what is on their disks."""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

import peer.custody
import peer.establish
import peer.rootline
import peer.upkeep
import trust.rollover
from peer.api import ApiError
from peer.custody import Custody
from peer.establish import EstablishError
from peer.io.keys import KeyFile, KeyFileError, Keys
from peer.messages import Draft
from peer.post import FRAME, ORDER, REFUSAL, REPAIR, REQUEST, STEP, WISH
from peer.records import ROLLOVER, rollover_key
from peer.rollover import memory_path
from peer.rootfile import told_roots
from peer.rootvote import Votes
from tests.loopback import network
from tests.peer.test_daemon import ROUTE, Host, service
from tests.trust.rolled import authority, rollover
from trust.authority import root_certificate
from trust.credential import verify_credential
from trust.errors import RolloverError
from trust.held import HeldAuthority
from trust.rolling import request_rollover
from trust.rollover import Rollover, complete, name_of
from trust.roots import refusal

OVERLAP_S = 6
SHORT_S = 4  # half of it is what a ceremony on a busy machine has


@pytest.fixture
async def hosts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(trust.rollover, "OVERLAP_S_MIN", 1)
    monkeypatch.setattr(peer.rootline, "CHASE_S", 1.0)
    monkeypatch.setattr(peer.establish, "JOIN_TRIES_S", 0.2)
    monkeypatch.setattr(peer.upkeep, "TELEMETRY_S", 0.1)
    monkeypatch.setattr(peer.rootline, "RENEWAL_S_MIN", 0.2)
    async with AsyncExitStack() as stack:

        def make(number: int) -> Host:
            host = Host(tmp_path, number)
            host.address = f"{network(1)}.{number}"
            stack.push_async_callback(host.stop)
            return host

        yield make


async def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


async def mesh(hosts: Any, count: int) -> list[Host]:
    """A founder that signs alone, and peers that joined it."""
    made = [hosts(number + 1) for number in range(count)]
    await made[0].ready(bootstrap=True)
    for each in made[1:]:
        await each.ready(token=await made[0].token(), seeds=(f"{made[0].address}:7946",))
    return made


async def begin(host: Host, overlap_s: float = OVERLAP_S, **how: Any) -> Any:
    assert host.operations is not None
    return await host.operations.ca_rollover(overlap_s, how.get("compromised", False), 20.0)


async def phase(host: Host) -> str:
    found = (await host.operations.ca_status())["rollover"]
    return "" if found is None else found["phase"]


def roots_of(host: Host) -> Any:
    return host.daemon.membership.roots


def over(host: Host) -> bool:
    """Whether all that this host shows is signed by the newest root."""
    daemon, roots = host.daemon, roots_of(host)
    credential = daemon.certifier.member.credential
    if len(roots) == 1 or refusal(roots.newest, credential.signing_bytes(), credential.signature, None):
        return False
    return not any(daemon.rootline._is_older(each) for each in daemon.certifier.held.values())


# ------------------------------------------------------------------ the whole way


async def test_a_mesh_goes_over_and_lets_the_old_root_go(hosts: Any) -> None:
    one, two = made = await mesh(hosts, 2)
    await two.operations.register([service()], "f.yaml")
    old = one.daemon.custody.root
    told = await begin(one)
    new = roots_of(one).newest
    assert (told["old"], told["new"]) == (name_of(old), name_of(new))
    await until(lambda: all(map(over, made)))
    for host in made:
        daemon = host.daemon
        assert daemon.custody.root == new
        assert daemon.outlook.anchors() == tuple(roots_of(host).certificate(each) for each in (old, new))
        assert host.plane.snapshots[-1].trust_bundle_pem.count(b"BEGIN CERTIFICATE") == 2
        assert await phase(host) == "overlap"
        status, words = await host.checked("root")
        assert (status, "counts for another" in words) == ("ok", True)
        assert "gossamer_ca_roots 2.0" in host.operations.metrics().decode()
    await until(lambda: all(len(each.daemon.outlook.anchors()) == 1 for each in made))
    await until(lambda: all(b"\n-----BEGIN" not in e.plane.snapshots[-1].trust_bundle_pem for e in made))
    for host in made:
        assert await phase(host) == ""
        await host.operations.apply([ROUTE], "f.yaml", wait_percent=100)
    assert "gossamer_ca_roots 1.0" in one.operations.metrics().decode()


async def test_after_a_restart_everybody_knows_the_line_and_what_it_signed(hosts: Any) -> None:
    one, two = made = await mesh(hosts, 2)
    await begin(one)
    await until(lambda: all(map(over, made)))
    new = roots_of(one).newest
    for host in made:
        await host.stop()
    for host in made:
        await host.ready(seeds=(f"{one.address}:7946",) if host is two else ())
        assert roots_of(host).newest == host.daemon.custody.root == new
        assert not host.daemon.custody.lacking
    three = hosts(3)
    await three.ready(token=await one.token(), seeds=(f"{two.address}:7946",))
    assert roots_of(three).line == roots_of(one).line
    credential = three.daemon.certifier.member.credential
    verify_credential(credential, new, credential.trust_domain, None)


async def test_one_that_does_not_say_that_it_has_heard_is_waited_for_and_named(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await mesh(hosts, 2)
    monkeypatch.setattr(two.daemon.rootline, "_announce", lambda: None)
    old = one.daemon.custody.root
    told = await begin(one, 12.0)
    assert told["switchAt"] * 2 < told["switchAt"] + told["endsAt"]
    await until(lambda: one.daemon.rootline.announced != "")
    status, words = await one.checked("root")
    assert (status, "not heard of at: host-2" in words) == ("warn", True)
    assert (await one.operations.ca_status())["rollover"]["waiting"] == ["host-2"]
    assert "gossamer_ca_rollover_waiting 1.0" in one.operations.metrics().decode()
    assert one.daemon.clock.now() > told["switchAt"] or one.daemon.custody.root == old
    await until(lambda: one.daemon.custody.root != old)
    assert one.daemon.clock.now() >= told["switchAt"]


async def test_one_that_was_away_follows_from_root_to_root(hosts: Any) -> None:
    made = await mesh(hosts, 3)
    one, two, three = made
    await three.stop()
    await begin(one, SHORT_S)
    await until(lambda: over(one) and over(two))
    await until(lambda: len(one.daemon.outlook.anchors()) == 1)
    await begin(one, SHORT_S)
    await until(lambda: len(roots_of(two)) == 3 and over(one) and over(two))
    await until(lambda: len(one.daemon.outlook.anchors()) == 1)
    await three.start(seeds=(f"{one.address}:7946",))
    await until(lambda: over(three))
    assert roots_of(three).line == roots_of(one).line
    await until(three.daemon.ready.is_set)
    await one.operations.apply([ROUTE], "f.yaml", wait_percent=100, timeout_s=20.0)


async def test_a_token_of_the_old_root_admits_while_that_counts(hosts: Any) -> None:
    one, two = made = await mesh(hosts, 2)
    token = await one.token(ttl_s=600)
    await begin(one, 20.0)
    await until(lambda: all(map(over, made)))
    three = hosts(3)
    await three.ready(token=token, seeds=(f"{two.address}:7946",))
    assert roots_of(three).line == roots_of(one).line
    leaf = next(iter(three.daemon.certifier.held.values()))
    assert not three.daemon.rootline._is_older(leaf)


async def test_one_that_governs_and_signs_nothing_asks_the_signers(hosts: Any) -> None:
    one, two = hosts(1), hosts(2)
    await one.ready(bootstrap=True)
    await two.ready(token=await one.token(govern=True), seeds=(f"{one.address}:7946",))
    await until(lambda: two.daemon.custody.record is not None)
    told = await begin(two, 60.0)
    assert told["new"] == name_of(roots_of(two).newest)
    assert one.daemon.custody.record is not None
    await until(lambda: over(one) and over(two))


async def test_each_letter_goes_to_the_ceremony_it_is_of(hosts: Any) -> None:
    (one,) = await mesh(hosts, 1)
    succession, rollover = one.daemon.succession, one.daemon.rollover
    for sort in (FRAME, WISH, ORDER, REFUSAL, REPAIR):
        succession._receive(b"n" * 16, sort + b"content")
    assert (len(succession.ceremonies._post), len(rollover._post)) == (5, 0)
    for sort in (REQUEST, STEP):
        succession._receive(b"n" * 16, sort + b"content")
    assert (len(succession.ceremonies._post), len(rollover._post)) == (5, 2)


# ------------------------------------------------------------------ what is refused


async def test_only_who_governs_begins_one_and_not_two_at_a_time(hosts: Any) -> None:
    one, two = await mesh(hosts, 2)
    with pytest.raises(ApiError, match="host-2 may not ask for a new root: only nodes that govern may"):
        await begin(two)
    with pytest.raises(ApiError, match="an overlap lasts from"):
        await begin(one, 0.5)
    with pytest.raises(ApiError, match="an overlap of a compromised root"):
        await begin(one, 3600.0, compromised=True)
    await begin(one, 60.0)
    with pytest.raises(ApiError, match=r"on its way to a new root already|followed by another"):
        await begin(one, 60.0)


async def test_two_requests_at_once_are_told_and_fresh_shares_end_both(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signers that heard the one first do not sit down to the other, and both wait for half of the overlap."""
    one, two = hosts(1), hosts(2)
    await one.ready(bootstrap=True)
    await two.ready(token=await one.token(govern=True), seeds=(f"{one.address}:7946",))
    daemon, rollover = one.daemon, one.daemon.rollover

    async def never(*_: Any) -> None:
        return

    monkeypatch.setattr(rollover, "_step", never)  # too few sit down
    with pytest.raises(ApiError, match="it goes on"):
        await one.operations.ca_rollover(60.0, False, 0.5)
    heard: list[str] = []
    monkeypatch.setattr(rollover._post, "reject", lambda _node, why: heard.append(why))
    plain = request_rollover(
        two.daemon.identity,
        one.daemon.certifier.member.credential,
        daemon.custody.record,
        time.time(),
        overlap_s=50,
    )
    rollover.receive(two.daemon.identity.id, REQUEST + plain.encode())
    await until(lambda: bool(heard))
    assert (await one.operations.ca_status())["rollover"]["problem"] == "", "nobody who may asked for it"
    credential = two.daemon.certifier.member.credential
    asked = request_rollover(
        two.daemon.identity, credential, daemon.custody.record, time.time(), overlap_s=50
    )
    for _ in range(2):
        rollover.receive(two.daemon.identity.id, REQUEST + asked.encode())
    await until(lambda: rollover.rival != "")
    row = next(row for row in await one.operations.check() if row["check"] == "root")
    assert "host-2 asks for another one at the same time" in row["detail"]
    with pytest.raises(ApiError, match=r"already: .* end it with gossamer ca reshare"):
        await one.operations.ca_rollover(60.0, False, 0.5)
    await one.operations.ca_reshare((), 10.0)
    await until(lambda: rollover.request is None)
    assert rollover.rival == ""
    assert await phase(one) == ""


async def test_who_was_away_when_a_root_was_given_up_stays_out(hosts: Any) -> None:
    one, two, three = await mesh(hosts, 3)
    await three.stop()
    void = await one.token()
    told = await begin(one, SHORT_S, compromised=True)
    assert told["compromised"]
    status, words = await one.checked("root")
    assert (status, "compromised" in words) == ("warn", True)
    await until(lambda: over(one) and over(two))
    known = two.daemon.certifier.member.credential
    assert one.daemon.rootline.carries(known)
    assert not one.daemon.rootline.carries(replace(known, public_key=b"k" * 32))
    assert not one.daemon.rootline.carries(replace(known, govern=True)), "with the rights that it had"
    await until(lambda: len(one.daemon.outlook.anchors()) == 1)
    daemon = await three.start(seeds=(f"{one.address}:7946",))
    await until(lambda: "given up as compromised" in daemon.rootline.problem)
    assert len(roots_of(three)) == 1
    status, words = await three.checked("root")
    assert (status, "join again" in words) == ("fail", True)
    four = hosts(4)
    with pytest.raises(Exception, match="given up as compromised"):
        await four.ready(token=void, seeds=(f"{one.address}:7946",))


async def test_two_successors_of_one_root_are_shown_and_the_first_stays(hosts: Any) -> None:
    one, two = made = await mesh(hosts, 2)
    held = HeldAuthority(one.daemon.custody.shares, secrets.token_bytes)
    old = one.daemon.custody.root
    await begin(one, 60.0)
    step, liar = roots_of(one).step_from(old), authority(9)
    terms = replace(step.terms, new=liar.root_public)
    other = complete(
        Rollover(terms=terms),
        by_old=held.sign(terms.old_bytes()),
        by_new=liar.sign(terms.new_bytes()),
        certificate=root_certificate(liar, terms.trust_domain, terms.issued_at),
    )
    await one.daemon.write([Draft(kind=ROLLOVER, key=rollover_key(other), payload=other.encode())])
    await until(lambda: all(roots_of(each).conflicts for each in made))
    for host in made:
        assert roots_of(host).newest == step.terms.new
        status, words = await host.checked("root")
        assert (status, "named two successors" in words) == ("fail", True)
        assert "gossamer_ca_root_conflicts 1.0" in host.operations.metrics().decode()
    await two.stop()
    await two.ready(seeds=(f"{one.address}:7946",))
    assert roots_of(two).newest == step.terms.new
    assert roots_of(two).conflicts


async def test_rollovers_between_made_up_roots_change_nothing_and_are_read_once(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await mesh(hosts, 1)
    made_up = [rollover(number, number + 1) for number in range(3)]
    drafts = [Draft(kind=ROLLOVER, key=rollover_key(each), payload=each.encode()) for each in made_up]
    await one.daemon.write(drafts)
    await until(lambda: len(one.daemon.rootline._taken) == 3)
    read: list[bytes] = []
    monkeypatch.setattr(peer.rootline, "decode_rollover", read.append)
    one.daemon.rootline.take_in()
    assert not read
    assert len(roots_of(one)) == 1
    assert await phase(one) == ""


async def test_nobody_goes_over_before_the_line_is_on_its_disk(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await mesh(hosts, 1)
    old = one.daemon.custody.root
    monkeypatch.setattr(peer.rootline, "told_roots", lambda *_: False)
    await begin(one, 60.0)
    await asyncio.sleep(0)
    for _ in range(3):
        one.daemon.rootline.tick()
    assert one.daemon.custody.root == old
    assert await phase(one) == "announced"
    monkeypatch.setattr(peer.rootline, "told_roots", told_roots)
    await until(lambda: over(one))
    assert one.daemon.keys.read(KeyFile.ROOTS) is not None


async def test_a_signer_that_has_nothing_to_do_before_all_have_heard_does_nothing(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await mesh(hosts, 1)
    monkeypatch.setattr(one.daemon.rootline, "_go_over", lambda: None)
    await begin(one, 60.0)
    assert await phase(one) == "announced"
    rollover = one.daemon.rollover
    monkeypatch.setattr(rollover, "_clock", lambda: asyncio.get_running_loop().time() + 600)
    assert rollover._wait_s() > 1


async def test_a_disk_that_fails_puts_off_going_over_and_ends_nothing(
    hosts: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    (one,) = await mesh(hosts, 1)
    old = one.daemon.custody.root

    def full(*_: Any) -> None:
        raise KeyFileError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(peer.custody, "write_private", full)
        await begin(one, 60.0)
        await until(lambda: "root_not_used" in caplog.text)
        assert one.daemon.custody.root == old
        assert not one.daemon.failed
    await until(lambda: over(one))


async def test_a_signer_that_has_named_another_successor_signs_none(hosts: Any) -> None:
    (one,) = await mesh(hosts, 1)
    await one.daemon.votes.cast(one.daemon.custody.root, authority(9).root_public)
    with pytest.raises(ApiError, match=r"no new root within 1 s; it goes on: .* and no other"):
        await one.operations.ca_rollover(60.0, False, 1.0)
    assert len(roots_of(one)) == 1


async def test_a_signer_that_lost_its_vote_names_no_successor(hosts: Any) -> None:
    (one,) = await mesh(hosts, 1)
    one.daemon.keys.write(KeyFile.ROLLOVER_VOTE, b"junk")
    await one.stop()
    await one.ready()
    with pytest.raises(ApiError, match="this signer names no successor"):
        await one.operations.ca_rollover(60.0, False, 1.0)
    assert len(roots_of(one)) == 1
    row = next(row for row in await one.operations.check() if row["check"] == "signer")
    assert (row["status"], "rollover-vote, cannot be read" in row["detail"]) == ("warn", True)


# ------------------------------------------------------------------ what is on the disk


async def test_a_rollover_cut_short_after_the_root_was_made_goes_on(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await mesh(hosts, 1)
    unsigned = asyncio.Event()

    async def never(*_: Any) -> bytes:
        unsigned.set()
        raise RolloverError("not now")

    monkeypatch.setattr(one.daemon.rollover._naming, "_signed", never)
    with pytest.raises(ApiError, match="there is no new root within 1 s; it goes on: not now"):
        await one.operations.ca_rollover(60.0, False, 1.0)
    assert unsigned.is_set()
    assert await phase(one) == "signing"
    made = one.daemon.custody.next.after.group.public
    old = one.daemon.custody.root
    assert one.daemon.issuer.ready
    await one.stop()
    await one.ready()
    assert one.daemon.custody.root in {old, made}
    await until(lambda: over(one))
    assert roots_of(one).newest == made, "the root that was made before, not another one"
    await until(lambda: not memory_path(one.daemon.keys).exists())
    assert one.daemon.keys.read(KeyFile.ROLLOVER_REQUEST) is None


async def test_a_signer_whose_memory_of_the_ceremony_is_damaged_takes_no_part(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await mesh(hosts, 1)

    async def never(*_: Any) -> bytes:
        raise RolloverError("not now")

    monkeypatch.setattr(one.daemon.rollover._naming, "_signed", never)
    with pytest.raises(ApiError):
        await one.operations.ca_rollover(60.0, False, 0.5)
    path = memory_path(one.daemon.keys)
    await one.stop()
    path.write_bytes(b"junk")
    await one.ready()
    await until(lambda: one.daemon.rollover.barred)
    assert path.read_bytes() == b"junk", "for whoever looks into it"
    row = next(row for row in await one.operations.check() if row["check"] == "signer")
    assert (row["status"], "rollover.key, cannot be read" in row["detail"]) == ("warn", True)
    assert one.daemon.custody.next is None
    assert len(roots_of(one)) == 1


async def test_a_request_whose_signers_changed_ends_and_the_old_root_stays(
    hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await mesh(hosts, 1)
    old = one.daemon.custody.root

    async def never(*_: Any) -> bytes:
        raise RolloverError("not now")

    monkeypatch.setattr(one.daemon.rollover._naming, "_signed", never)
    with pytest.raises(ApiError):
        await one.operations.ca_rollover(4.0, False, 0.5)
    await until(lambda: one.daemon.rollover.request is None)  # half of the overlap is over
    assert one.daemon.custody.next is None
    assert one.daemon.custody.root == old
    assert not memory_path(one.daemon.keys).exists()
    assert await phase(one) == ""


@pytest.mark.parametrize("how", ["too late", "too late, and started again", "other signers"])
async def test_a_root_that_was_named_unheard_has_its_shares_when_it_is_heard_of(
    hosts: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whoever announced it was cut off from here, and the request ended."""
    (one,) = await mesh(hosts, 1)
    cut_off: list[Draft] = []
    write = one.daemon.write

    async def unheard(drafts: list[Draft]) -> None:
        if any(each.kind == ROLLOVER for each in drafts):
            cut_off[:] = drafts
            raise ApiError("cut off")
        await write(drafts)

    monkeypatch.setattr(one.daemon, "write", unheard)
    with pytest.raises(ApiError, match="cut off"):
        await one.operations.ca_rollover(60.0 if how == "other signers" else SHORT_S, False, 1.0)
    made = one.daemon.custody.next.after
    void_at = one.daemon.rollover.request.void_at
    if how == "other signers":  # by a ceremony that was under way
        monkeypatch.setattr(one.daemon.succession.ceremonies, "_may_follow", lambda _record: True)
        await one.operations.ca_reshare((), 10.0)
    elif how != "too late":
        await one.stop()
        await until(lambda: time.time() >= void_at)
        await one.ready()
    await until(lambda: one.daemon.rollover.recalled and one.daemon.rollover.request is None)
    assert one.daemon.custody.next is None
    assert not memory_path(one.daemon.keys).exists()
    monkeypatch.setattr(one.daemon, "write", type(one.daemon).write.__get__(one.daemon))
    await one.daemon.write(cut_off)
    await until(lambda: one.daemon.custody.record.digest == made.digest)
    assert not one.daemon.custody.lacking
    await until(lambda: over(one))  # it signs
    assert not list(one.daemon.keys.directory.glob("unnamed-*"))


@pytest.mark.parametrize("content", [None, b"junk"])
async def test_a_lost_line_of_roots_is_asked_for_again(hosts: Any, content: bytes | None) -> None:
    one, two = made = await mesh(hosts, 2)
    await begin(one, 60.0)
    await until(lambda: all(map(over, made)))
    path = two.daemon.keys.path(KeyFile.ROOTS)
    await two.stop()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    await two.ready(seeds=(f"{one.address}:7946",))
    assert roots_of(two).line == roots_of(one).line
    await two.stop()
    path.unlink()
    await one.stop()
    with pytest.raises(EstablishError, match=r"node\.credential"):
        await two.start(seeds=(f"{one.address}:7946",))


async def test_a_signer_names_one_successor_of_a_root_whatever_happens(tmp_path: Any) -> None:
    keys = Keys.open(tmp_path)
    first, second, other = (authority(number).root_public for number in (1, 2, 3))
    votes = Votes(keys)
    await votes.cast(first, second)
    for each in (votes, Votes(keys)):
        await each.cast(first, second)
        with pytest.raises(RolloverError, match="and no other"):
            await each.cast(first, other)
    await votes.cast(second, other)  # of the next root it names another
    keys.write(KeyFile.ROLLOVER_VOTE, b"junk")
    with pytest.raises(RolloverError):
        Votes(keys)


async def test_custody_crosses_with_the_share_on_disk_first(hosts: Any) -> None:
    (one,) = await mesh(hosts, 1)
    await begin(one)
    await until(lambda: over(one))
    daemon = one.daemon
    again = Custody.load(
        daemon.keys, roots_of(one), identity=daemon.identity, trust_domain=daemon.membership.trust_domain
    )
    assert again.record == daemon.custody.record
    assert [share.group.public for share in again.shares][-1] == roots_of(one).newest
