"""The signers' log: what is read of it, what is written, and when."""

import random
import ssl
from dataclasses import replace

import pytest

from crdt.journal import Accept, Journal
from peer import awaiting, issuelog, recording
from peer.awaiting import Awaiting
from peer.issuelog import (
    ENTRIES_MAX,
    ISSUANCE,
    PAGE_BYTES_MAX,
    Entry,
    IssueLog,
    PageError,
    decode_page,
    encode_page,
    page_fault,
    place_of,
)
from peer.recording import Recording, spare
from tests.trust.conftest import Mesh
from trust.issued import Issued, certificate_of, issued_of, leaf_of
from trust.order import Draft, Kind, Order
from trust.svid import Svid, read_svid

ME, SIGNER, LIAR = b"m" * 16, b"s" * 16, b"l" * 16
MS = 1000


class World:
    """A journal, and a root that signs."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.now = float(self.mesh.now)
        self.journal = Journal(verify=lambda _record, _now_ms: Accept())
        self.roots = (self.mesh.root_der,)
        self.me = self.mesh.founder.identity.id
        self.log = IssueLog(self.journal, lambda: self.roots, self.mesh.trust_domain, self.me)

    def certificate(self, account: str = "cart", by: bytes = b"") -> tuple[Svid, bytes, Issued]:
        svid = self.mesh.workload_svid(account)
        der = ssl.PEM_cert_to_DER_cert(svid.chain_pem.decode())
        read = read_svid(der, root_public=self.mesh.root_public, trust_domain=self.mesh.trust_domain)
        return read, der, issued_of(read, der, self.mesh.root_der, self.mesh.trust_domain, by)

    def write(self, writer: bytes, place: int | str, *entries: Issued, payload: bytes | None = None) -> None:
        page = payload if payload is not None else encode_page(3, entries)
        now_ms = int(self.now * MS)
        record = self.journal.draft(
            writer=writer,
            kind=ISSUANCE,
            key=str(place),
            payload=page,
            now_ms=now_ms,
            sign=lambda _: b"s" * 64,
        )
        self.journal.merge([record], now_ms)
        self.log.catch_up()


@pytest.fixture
def world() -> World:
    return World()


# ------------------------------------------------------------------ pages


def test_a_page_reads_back_as_it_was_written(world: World) -> None:
    entries = tuple(world.certificate(account)[2] for account in ("a", "b"))
    assert decode_page(encode_page(7, entries)) == (7, entries)


def test_the_largest_page_fits(world: World) -> None:
    entry = replace(world.certificate("a" * 63)[2], workload="n" * 63 + "/" + "a" * 63, by=b"b" * 16)
    page = encode_page(2**31, (entry,) * ENTRIES_MAX)
    assert len(page) <= PAGE_BYTES_MAX
    assert len(decode_page(page)[1]) == ENTRIES_MAX
    with pytest.raises(PageError, match="1 to 64 entries"):
        decode_page(encode_page(1, (world.certificate("a")[2],) * (ENTRIES_MAX + 1)))


@pytest.mark.parametrize("payload", [b"", b"junk", encode_page(1, ()), b"\x92\x01\x91\x01", b"\x92\xff\x90"])
def test_what_is_no_page_is_refused(payload: bytes) -> None:
    with pytest.raises(PageError):
        decode_page(payload)


@pytest.mark.parametrize("key", ["", "x", "-1", "01", "4096", "99999", "1.5", "٣"])
def test_a_place_is_a_small_number(world: World, key: str) -> None:
    assert place_of(key) is None
    world.write(SIGNER, 0, world.certificate()[2])
    (record,) = world.journal.records(ISSUANCE)
    assert page_fault(record) == ""
    assert "the key is no number" in page_fault(replace(record, key=key or "x"))
    assert "not a page" in page_fault(replace(record, payload=b"\x01"))


# ------------------------------------------------------------------ reading


def test_an_entry_is_found_by_its_leaf_and_gone_with_its_page(world: World) -> None:
    svid, der, issued = world.certificate()
    assert world.log.find(leaf_of(svid)) is None
    world.write(SIGNER, 0, issued)
    assert world.log.find(leaf_of(svid)) == Entry(SIGNER, 3, issued, der)
    world.write(SIGNER, 0, world.certificate()[2])  # the place is used again
    assert world.log.find(leaf_of(svid)) is None
    world.write(SIGNER, 0, issued)
    world.write(SIGNER, 0, payload=b"")
    assert (world.log.find(leaf_of(svid)), len(world.log)) == (None, 0)


def test_what_is_in_this_nodes_name_is_given_out_once(world: World) -> None:
    member = world.mesh.join("beta")
    other = world.mesh.workload_svid("cart", member=member)
    der = ssl.PEM_cert_to_DER_cert(other.chain_pem.decode())
    read = read_svid(der, root_public=world.mesh.root_public, trust_domain=world.mesh.trust_domain)
    theirs = issued_of(read, der, world.mesh.root_der, world.mesh.trust_domain)
    mine = [world.certificate(account)[2] for account in "abc"]
    world.write(SIGNER, 0, *mine, theirs)
    world.write(SIGNER, 1, mine[0])
    assert world.log.take_mine(0) == []
    assert [entry.issued for entry in world.log.take_mine(2)] == mine  # a page is looked at as a whole
    assert [entry.issued for entry in world.log.take_mine(2)] == mine[:1]
    assert world.log.take_mine(9) == []


def test_what_the_root_did_not_sign_costs_one_signature_and_voids_the_page_for_everybody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = 0

    def counted(issued: Issued, root_der: bytes, trust_domain: str) -> bytes:
        nonlocal verified
        verified += 1
        return certificate_of(issued, root_der, trust_domain)

    monkeypatch.setattr(issuelog, "certificate_of", counted)
    svid, _, issued = world.certificate()
    false = [replace(issued, serial=number.to_bytes(16, "big")) for number in range(1, 50)]
    world.write(LIAR, 0, *false, issued)
    # Nothing true can hide there, where its node might not get to it and others would take it for recorded.
    assert world.log.find(leaf_of(svid)) is None
    assert world.log.take_mine(999) == []
    assert [each for each in world.log.entries(0.0) if each] == []
    assert (verified, world.log.liars) == (1, {LIAR})
    world.write(SIGNER, 0, issued)
    assert world.log.find(leaf_of(svid)) is not None
    assert [entry.writer for entry in world.log.take_mine(999)] == [SIGNER]
    world.write(LIAR, 0, payload=b"")
    assert world.log.liars == set()


def test_the_pages_of_a_liar_delay_others_by_one_signature_each(world: World) -> None:
    issued = world.certificate()[2]
    for place in range(10):
        world.write(LIAR, place, replace(issued, signature=b"f" * 64))
    world.write(SIGNER, 0, issued)
    assert world.log.take_mine(10) == []
    assert [entry.issued for entry in world.log.take_mine(1)] == [issued]


def test_what_did_not_hold_is_looked_at_again_under_another_root(world: World) -> None:
    world.roots = (Mesh(seed=9).root_der,)
    svid, _, issued = world.certificate()
    world.write(SIGNER, 0, issued)
    assert world.log.find(leaf_of(svid)) is None
    world.roots = (*world.roots, world.mesh.root_der)
    world.log.catch_up()
    assert world.log.find(leaf_of(svid)) is not None
    assert not world.log.liars
    assert [entry.issued for entry in world.log.take_mine(9)] == [issued]


def test_the_list_is_of_valid_ones_newest_first(world: World) -> None:
    entries = []
    for _ in range(3):
        world.mesh.now += 100
        entries.append(world.certificate()[2])
    world.write(SIGNER, 0, *entries)
    end = entries[0].not_after
    assert [e and e.issued for e in world.log.entries(end)] == entries[::-1]
    assert [e and e.issued for e in world.log.entries(end + 1)] == entries[:0:-1]
    assert world.log.places(SIGNER) == {0: entries[2].not_after}
    assert world.log.places(LIAR) == {}


# ------------------------------------------------------------------ writing


def test_what_came_is_written_when_the_minute_is_over(world: World) -> None:
    pages = Recording()
    now = 1_800_000_000.0  # a whole minute
    first, second = world.certificate("a")[2], world.certificate("b")[2]
    pages.add(first, now + 1)
    pages.add(first, now + 2)
    pages.add(second, now + 59)
    assert (len(pages), first.leaf in pages) == (2, True)
    assert pages.pages(now + 59.9, 3, {}) == {}
    written = pages.pages(now + 60, 3, {})
    ((key, (draft, leafs)),) = written.items()
    assert (key, decode_page(draft.payload)) == ("0", (3, (first, second)))
    assert pages.pages(now + 61, 3, {}) == written  # until it is told that they are in the journal
    pages.written(leafs)
    assert pages.pages(now + 120, 3, {}) == {}


def test_a_crowd_is_written_at_once_and_no_page_in_use_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ENTRIES_MAX", 2)
    pages, now = Recording(), 1_800_000_000.0
    entries = [world.certificate(f"a{number}")[2] for number in range(5)]
    for entry in entries:
        pages.add(entry, now)
    ended = now - recording.ALLOWANCE_S
    written = pages.pages(now, 3, {0: now + 1, 1: ended - 1, 2: ended + 1})
    assert list(written) == ["1", "3", "4"]
    monkeypatch.setattr(recording, "PAGES_AT_ONCE", 1)
    assert list(pages.pages(now, 3, {})) == ["0"]


def test_what_is_full_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "WAITING_MAX", 1)
    monkeypatch.setattr(recording, "PLACES_MAX", 1)
    pages, now = Recording(), 1_800_000_000.0
    for account in "ab":
        pages.add(world.certificate(account)[2], now)
    assert (len(pages), pages.refused) == (1, 1)
    assert pages.pages(now + 60, 3, {0: now + 3600}) == {}
    assert (len(pages), pages.refused) == (0, 2)


def test_places_that_nobody_needs_are_given_up_after_long() -> None:
    now = 1_800_000_000.0
    over = now - recording.ALLOWANCE_S - recording.SPARE_S
    assert [(d.key, d.payload) for d in spare({5: over - 1, 2: over - 2, 7: over + 1}, now)] == [
        ("2", b""),
        ("5", b""),
    ]


# ------------------------------------------------------------------ what ought to be there


def found(issued: Issued) -> Entry:
    return Entry(SIGNER, 3, issued, b"der")


def test_what_this_peer_had_signed_is_shown_until_it_is_recorded(world: World) -> None:
    wanted, (svid, der, issued) = Awaiting(ME, random.Random(1)), world.certificate()
    now = world.now
    wanted.coordinated(svid, der, now)
    wanted.met(svid, der, now)  # its holder meets it as well: it is awaited once
    (each,) = wanted.to_show(lambda _: None, now)
    assert (each.der, each.tries) == (der, 1)
    assert wanted.to_show(lambda _: None, now + awaiting.SHOWN_AGAIN_S - 1) == []
    (again,) = wanted.to_show(lambda _: None, now + awaiting.SHOWN_AGAIN_S + awaiting.CROWD_S)
    assert again.tries == 2
    assert wanted.unrecorded(lambda _: None, now + awaiting.UNRECORDED_S) == []
    late = now + awaiting.UNRECORDED_S + 1
    assert [each.der for each in wanted.unrecorded(lambda _: None, late)] == [der]
    assert wanted.unrecorded(lambda _: found(issued), late) == []
    assert wanted.to_show(lambda _: found(issued), late + 600) == []
    assert "0 certificates" in repr(wanted)


def test_what_was_met_is_shown_late_and_told_of_where_nobody_else_did(world: World) -> None:
    wanted, (svid, der, issued) = Awaiting(ME, random.Random(1)), world.certificate()
    now = world.now
    wanted.met(svid, der, now)
    assert wanted.to_show(lambda _: None, now + awaiting.MET_S - 1) == []
    shown = now + awaiting.MET_S + awaiting.CROWD_S
    assert len(wanted.to_show(lambda _: None, shown)) == 1
    mine = replace(issued, by=ME)
    recorded = shown + awaiting.SHOWN_AGAIN_S + awaiting.CROWD_S
    assert wanted.to_show(lambda _: found(mine), recorded) == []
    assert [each.der for each in wanted.unrecorded(lambda _: found(mine), recorded)] == [der]
    over = float(svid.not_after + 1)
    assert wanted.unrecorded(lambda _: found(mine), over) == []
    assert wanted.to_show(lambda _: None, over) == []
    assert "0 certificates" in repr(wanted)


def test_what_was_met_and_is_recorded_is_forgotten(world: World) -> None:
    wanted, (svid, der, issued) = Awaiting(ME, random.Random(1)), world.certificate()
    wanted.met(svid, der, world.now)
    assert wanted.to_show(lambda _: found(issued), world.now + 200) == []
    assert "0 certificates" in repr(wanted)


def order(now: float) -> tuple[Order, Draft]:
    made = Order(kind=Kind.SVID, request=b"r", issued_at=int(now), entropy=b"e" * 16, ttl_s=60)
    return made, Draft(message=b"m", root_public=b"p", finish=lambda signature: signature)


def test_a_share_that_nobody_shows_is_signed_again_and_given_up_by_the_caller(world: World) -> None:
    wanted, now = Awaiting(ME, random.Random(1)), world.now
    wanted.shared(b"leaf", SIGNER, *order(now), LIAR, now)
    wanted.shared(b"leaf", SIGNER, *order(now), ME, now + 60)  # signed again elsewhere: the first one counts
    assert wanted.to_sign(lambda _: None, now + awaiting.SIGNED_AGAIN_S - 1) == []
    due = now + awaiting.SIGNED_AGAIN_S + awaiting.CROWD_S
    ((leaf, share),) = wanted.to_sign(lambda _: None, due)
    assert (leaf, share.coordinator) == (b"leaf", LIAR)
    assert wanted.to_sign(lambda _: None, due + awaiting.RETRY_S - 1) == []
    assert len(wanted.to_sign(lambda _: None, due + awaiting.RETRY_S)) == 1
    assert due + awaiting.RETRY_S < now + awaiting.FRESH_S, "there is time for a second attempt"
    wanted.give_up(b"leaf")
    assert wanted.to_sign(lambda _: None, due + 1000) == []


def test_a_share_of_what_is_recorded_is_forgotten(world: World) -> None:
    wanted, now = Awaiting(ME, random.Random(1)), world.now
    issued = world.certificate()[2]
    wanted.shared(issued.leaf, SIGNER, *order(now), LIAR, now)
    assert wanted.to_sign(lambda _: found(issued), now + 200) == []
    assert "0 shares" in repr(wanted)


def test_what_is_awaited_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaiting, "CERTIFICATES_MAX", 1)
    monkeypatch.setattr(awaiting, "SHARES_MAX", 3)
    monkeypatch.setattr(awaiting, "SHARES_OF_NODE_MAX", 2)
    wanted, now = Awaiting(ME, random.Random(1)), world.now
    for account in "ab":
        wanted.coordinated(*world.certificate(account)[:2], now)
    assert wanted.forgotten == 1
    for number, node in enumerate([SIGNER, SIGNER, SIGNER, LIAR, ME]):
        wanted.shared(bytes([number]), node, *order(now), LIAR, now)
    # Of one node's the oldest went, and then the oldest of all.
    assert [leaf for leaf, _ in wanted.to_sign(lambda _: None, now + 200)] == [b"\2", b"\3", b"\4"]
    assert wanted.forgotten == 2
