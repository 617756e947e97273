"""Custody when the mesh goes over to another root: the share first, the old shares as long as they are asked for, and
the epochs in the journal that belong to nobody here."""

import asyncio
import os
import random
import secrets
from dataclasses import replace
from typing import Any

import pytest

import peer.unnamed
from crdt.record import Record
from peer import custody as module
from peer.cosigner import Cosigner
from peer.custody import Custody
from peer.epochs import Epochs
from peer.io.keys import KeyFile, KeyFileError, Keys
from peer.io.stream import FrameStream
from peer.records import EPOCH, epoch_key
from peer.rootvote import Votes
from peer.signing import LaterError, Signing
from tests.trust.ceremony.network import founded, outcome, reshare, shares_of
from tests.trust.test_rolling import NOW, Mesh, dealt, made, whole
from tests.trust.test_rolling import rules as rules_of
from trust.epoch import EpochRecord
from trust.errors import EpochError
from trust.groupkey import KeyShare
from trust.order import Kind, Order, Rolling, derive
from trust.rollover import Rollover
from trust.roots import Roots
from trust.sessionwire import CommitReply, CommitRequest, Reason, ShareRequest
from trust.signer import Denied


@pytest.fixture
def keys(tmp_path: Any) -> Keys:
    return Keys.open(tmp_path)


def fresh(share: KeyShare) -> KeyShare:
    return KeyShare(share.group, share.identifier, type(share.secret)(share.secret.expose()))


class Bench:
    """One signer of a mesh whose signers have made another root."""

    def __init__(self, keys: Keys) -> None:
        mesh: Mesh = made()
        request = mesh.request()
        self.mesh, self.keys = mesh, keys
        self.me = mesh.signers[0]
        self.step: Rollover
        self.after: EpochRecord
        self.step, self.after = whole(mesh, request)
        _, shares = dealt(mesh, request)
        self.share = fresh(shares[self.me.id])
        self.roots = Roots(mesh.roots.certificate(mesh.roots.first), "cluster.local")
        self.custody = Custody(keys, self.roots, self.me.id)
        self.custody.take(mesh.before, fresh(mesh.shares[self.me.id]))

    def prepare(self) -> None:
        self.custody.prepare(Rolling(before=self.mesh.before, after=self.after), self.share)

    def again(self) -> Custody:
        return Custody.load(self.keys, self.roots, identity=self.me, trust_domain="cluster.local")


def test_a_root_that_was_made_is_offered_and_nothing_else_changes(keys: Keys) -> None:
    bench = Bench(keys)
    bench.prepare()
    custody = bench.custody
    assert custody.record == bench.mesh.before
    assert custody.root == bench.mesh.before.group.public
    assert [share.group.epoch for share in custody.shares] == [0]
    assert [share.group.epoch for share in custody.offers] == [0, 1]
    custody.abandon()
    assert custody.next is None
    assert custody.offers == custody.shares


async def test_when_the_signers_change_first_their_new_shares_are_used_and_the_other_root_is_not(
    keys: Keys,
) -> None:
    """Both are of one epoch, and a signer answers with one share for each."""
    bench = Bench(keys)
    bench.prepare()
    mesh = bench.mesh
    network, _ = reshare(mesh.before, mesh.shares, mesh.signers, mesh.signers)
    assert network.run(30)
    bench.custody.take(outcome(network), fresh(shares_of(network)[bench.me.id]))
    cosigner = Cosigner(
        custody=bench.custody, rules=rules_of(mesh, bench.after), node=bench.me.id, spending=None,
        now=lambda: NOW, entropy=secrets.token_bytes, member_of=lambda _stream: None,
    )  # fmt: skip
    for _ in range(2):
        reply = await cosigner.answer(b"c" * 16, CommitRequest(session=b"s" * 16, epoch=1))
        assert isinstance(reply, CommitReply)
    assert [share.group.public for share in bench.custody.offers] == [mesh.before.group.public] * 2
    bench.custody.abandon()
    assert unnamed(keys), "from a share that nobody has wiped"


def test_it_crosses_with_its_share_and_finds_both_roots_again(keys: Keys) -> None:
    bench = Bench(keys)
    bench.prepare()
    bench.roots.add(bench.step)
    bench.custody.cross(bench.step, bench.after)
    for custody in (bench.custody, bench.again()):
        assert custody.record == bench.after
        assert custody.root == bench.after.group.public
        assert [share.group.epoch for share in custody.offers] == [0, 1], "the old root is still asked for"
        assert not custody.lacking
    bench.custody.let_go([bench.after.group.public])
    assert [share.group.epoch for share in bench.custody.offers] == [1]
    assert sorted(path.name for path in keys.directory.glob("share-*")) == ["share-0000000001.key"]
    bench.custody.let_go([bench.after.group.public])  # once is enough


def test_without_a_share_it_crosses_all_the_same_and_lacks_one(keys: Keys) -> None:
    bench = Bench(keys)
    bench.roots.add(bench.step)
    bench.custody.cross(bench.step, bench.after)
    assert bench.custody.record == bench.after
    assert bench.custody.lacking, "the other signers restore it"


def unnamed(keys: Keys) -> list[str]:
    return sorted(path.name for path in keys.directory.glob("unnamed-*"))


def test_a_share_of_a_root_that_was_given_up_counts_if_that_was_named_all_the_same(keys: Keys) -> None:
    bench = Bench(keys)
    bench.prepare()
    bench.custody.abandon()
    path = keys.directory / unnamed(keys)[0]
    assert path.stat().st_mode & 0o777 == 0o600
    custody = bench.again()
    assert custody.offers == custody.shares, "nobody is given a signature of it"
    bench.roots.add(bench.step)
    again = bench.again()
    again.cross(bench.step, bench.after)
    assert not again.lacking
    assert unnamed(keys) == []
    assert not bench.again().lacking


def test_a_share_of_a_root_that_was_given_up_goes_when_another_one_is_named(keys: Keys) -> None:
    bench = Bench(keys)
    _, shares = dealt(bench.mesh, other := bench.mesh.request(now=NOW + 1))
    step, after = whole(bench.mesh, other)
    bench.prepare()
    bench.custody.abandon()
    left = keys.directory / unnamed(keys)[0]
    content = left.read_bytes()
    bench.custody.prepare(Rolling(before=bench.mesh.before, after=after), fresh(shares[bench.me.id]))
    bench.roots.add(step)
    bench.custody.cross(step, after)
    assert unnamed(keys) == []
    left.write_bytes(content)  # a crash came before it was erased
    left.chmod(0o600)
    bench.again()
    assert unnamed(keys) == []


def test_only_so_many_shares_of_roots_that_were_given_up_are_kept(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer.unnamed, "KEPT_MAX", 1)
    bench = Bench(keys)
    bench.prepare()
    bench.custody.abandon()
    (first,) = unnamed(keys)
    os.utime(keys.directory / first, (0, 0))
    after, shares = dealt(bench.mesh, bench.mesh.request(now=NOW + 1))
    bench.custody.prepare(Rolling(before=bench.mesh.before, after=after), fresh(shares[bench.me.id]))
    bench.custody.abandon()
    assert len(unnamed(keys)) == 1
    assert first not in unnamed(keys)


def test_a_root_is_given_up_when_its_share_is_on_disk_and_a_damaged_one_counts_as_lost(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    bench = Bench(keys)
    bench.prepare()

    def full(*_: Any) -> None:
        raise KeyFileError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(peer.unnamed, "write_private", full)
        with pytest.raises(KeyFileError):
            bench.custody.abandon()
    assert bench.custody.next is not None
    bench.custody.abandon()
    (keys.directory / unnamed(keys)[0]).write_bytes(b"junk")
    bench.roots.add(bench.step)
    bench.custody.cross(bench.step, bench.after)
    assert bench.custody.lacking
    assert "share_unreadable" in caplog.text
    assert len(unnamed(keys)) == 1, "for whoever looks into it"


def test_what_cannot_be_stored_or_does_not_follow_changes_nothing(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(keys)
    bench.prepare()
    bench.roots.add(bench.step)

    def full(*_: Any) -> None:
        raise KeyFileError("the disk is full")

    monkeypatch.setattr(module, "write_private", full)
    with pytest.raises(KeyFileError):
        bench.custody.cross(bench.step, bench.after)
    with pytest.raises(EpochError, match="does not begin with this epoch"):
        bench.custody.cross(bench.step, bench.mesh.before)
    assert bench.custody.record == bench.mesh.before
    assert bench.custody.next is not None
    empty = Custody(keys, bench.roots, bench.me.id)
    with pytest.raises(EpochError, match="not known here yet"):
        empty.cross(bench.step, bench.after)


def carried(number: int, epoch: EpochRecord) -> Record:
    return Record(
        writer=bytes([number]) * 16, seq=1, kind=EPOCH, key=epoch_key(epoch), payload=epoch.encode(), context=(), hlc=0,
        signature=bytes(64), floor=0, rest=bytes(32),
    )  # fmt: skip


async def unheard(_epoch: EpochRecord) -> None:
    raise AssertionError("nothing is published here")


def test_epochs_of_other_roots_wait_for_a_rollover_and_are_not_read_twice(keys: Keys) -> None:
    bench = Bench(keys)
    foreign, _, _ = founded(3, seed=5)
    records = [carried(1, foreign), carried(2, bench.after), carried(3, bench.mesh.before)]
    epochs = Epochs(
        custody=bench.custody, node=bench.me.id, records=lambda: records, publish=unheard, now=lambda: 0.0
    )
    epochs.take_in()
    assert bench.custody.record == bench.mesh.before
    assert len(epochs._foreign) == 2
    epochs.take_in()
    assert len(epochs._foreign) == 2
    bench.roots.add(bench.step)
    bench.custody.cross(bench.step, bench.after)
    epochs.take_in()
    assert [key for _, key, _ in epochs._foreign] == [epoch_key(foreign)]
    assert epochs.missing() == []


async def test_a_signer_puts_off_what_it_cannot_judge_yet_and_names_nobody_without_a_vote(keys: Keys) -> None:
    bench = Bench(keys)
    bench.prepare()
    cosigner = Cosigner(
        custody=bench.custody, rules=rules_of(bench.mesh, bench.after), node=bench.me.id, spending=None,
        now=lambda: NOW, entropy=secrets.token_bytes, member_of=lambda _stream: None,
    )  # fmt: skip

    async def verdict(kind: Kind, epoch: int) -> Denied | bytes:
        order = Order(kind=kind, request=bench.mesh.request().encode(), issued_at=NOW, entropy=b"e" * 16)
        asked = ShareRequest(
            session=b"s" * 16, epoch=epoch, attempt=1, request=order.encode(), commitments=()
        )
        judged = await cosigner._judged(b"c" * 16, asked)
        return judged if isinstance(judged, Denied) else judged[1].message

    unheard = await verdict(Kind.SVID, 1)
    assert isinstance(unheard, Denied)
    assert (unheard.reason, "signs nothing before" in unheard.detail) == (Reason.LATER, True)
    accepted = await verdict(Kind.ACCEPTANCE, 1)
    assert accepted == bench.step.terms.new_bytes()
    named = await verdict(Kind.SUCCESSION, 0)
    assert isinstance(named, Denied)
    assert named.detail == "this signer names no successor"
    cosigner._vote = Votes(keys).cast
    assert await verdict(Kind.SUCCESSION, 0) == bench.step.terms.old_bytes()
    assert keys.read(KeyFile.ROLLOVER_VOTE) is not None, "before the share leaves"


async def test_what_ended_while_the_vote_went_to_the_disk_is_not_signed(keys: Keys) -> None:
    bench = Bench(keys)
    bench.prepare()
    rules = replace(rules_of(bench.mesh, bench.after), rolling=lambda: bench.custody.next)

    async def vote(_old: bytes, _successor: bytes) -> None:
        bench.custody.abandon()

    cosigner = Cosigner(
        custody=bench.custody, rules=rules, node=bench.me.id, spending=None, now=lambda: NOW,
        entropy=secrets.token_bytes, member_of=lambda _stream: None, vote=vote,
    )  # fmt: skip
    request = bench.mesh.request().encode()
    order = Order(kind=Kind.SUCCESSION, request=request, issued_at=NOW, entropy=b"e" * 16)
    asked = ShareRequest(session=b"s" * 16, epoch=0, attempt=1, request=order.encode(), commitments=())
    judged = await cosigner._judged(b"c" * 16, asked)
    assert isinstance(judged, Denied)
    assert judged.detail == "this signer knows of no new root"


async def test_who_waits_for_the_new_roots_signature_is_told_when_that_is_given_up(keys: Keys) -> None:
    bench = Bench(keys)
    bench.prepare()

    async def silent(_node: bytes) -> FrameStream:
        await asyncio.Event().wait()
        raise AssertionError("nobody answers")

    custody, rules = bench.custody, rules_of(bench.mesh, bench.after)
    cosigner = Cosigner(
        custody=custody, rules=rules, node=bench.me.id, spending=None, now=lambda: NOW, entropy=secrets.token_bytes,
        member_of=lambda _stream: None,
    )  # fmt: skip
    signing = Signing(
        custody=custody, cosigner=cosigner, node=bench.me.id, dial=silent, may_sign=lambda _node: True,
        rng=random.Random(1), entropy=secrets.token_bytes,
        group=lambda: None if custody.next is None else custody.next.after.group,
    )  # fmt: skip
    order = Order(
        kind=Kind.ACCEPTANCE, request=bench.mesh.request().encode(), issued_at=NOW, entropy=b"e" * 16
    )
    asked = asyncio.create_task(signing.sign(order, derive(order, rules.under(bench.after.group.public))))
    while not signing._wanted:
        await asyncio.sleep(0)
    custody.abandon()
    with pytest.raises(LaterError, match="goes over to another root"):
        await asked
    await signing.close()
