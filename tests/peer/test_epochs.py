"""Epochs in the journal: learnt in any order, from whoever carries them, and published by one signer at a time."""

from dataclasses import dataclass, field, replace

import pytest

from crdt.record import Record
from peer.api import ApiError
from peer.custody import Custody
from peer.epochs import PUBLISH_AFTER_S, RETRY_S, Epochs
from peer.io.keys import Keys
from peer.records import EPOCH, epoch_key
from tests.trust.ceremony.network import DOMAIN, founded, outcome, people, reshare, shares_of
from trust.epoch import EpochRecord


@dataclass
class Book:
    """A journal that everybody reads."""

    now: float = 0.0
    held: list[Record] = field(default_factory=list)
    fails: bool = False

    def add(self, epoch: EpochRecord, writer: bytes = b"w" * 16, payload: bytes | None = None) -> None:
        record = Record(
            writer=writer, seq=len(self.held) + 1, kind=EPOCH, key=epoch_key(epoch),
            payload=epoch.encode() if payload is None else payload, context=(), hlc=0, signature=bytes(64),
            floor=0, rest=bytes(32),
        )  # fmt: skip
        self.held.append(record)


@pytest.fixture(scope="module")
def history():
    record, shares, signers = founded(3)
    records = [record]
    for seed in (1, 2):
        network, _ = reshare(records[-1], shares, signers, signers, seed=seed)
        assert network.run(30)
        shares = shares_of(network)
        records.append(outcome(network))
    return records, signers


def reader(tmp_path, book: Book, identity, root: bytes) -> Epochs:
    custody = Custody.load(
        Keys.open(tmp_path / identity.id.hex()), root, identity=identity, trust_domain=DOMAIN
    )

    async def publish(epoch: EpochRecord) -> None:
        if book.fails:
            raise ApiError("the disk is full")
        book.add(epoch, identity.id)

    return Epochs(
        custody=custody, node=identity.id, records=lambda: book.held, publish=publish, now=lambda: book.now
    )


def test_epochs_are_learnt_whatever_the_order(tmp_path, history):
    records, _ = history
    book = Book()
    outsider = people(1, 77)[0]
    epochs = reader(tmp_path, book, outsider, records[0].group.public)
    book.add(records[2])
    assert not epochs.take_in()
    book.add(records[1])
    assert not epochs.take_in()
    book.add(records[0])
    assert epochs.take_in()
    assert epochs.custody.record == records[2]
    assert not epochs.take_in()


def test_what_is_no_epoch_is_told_once_and_does_no_harm(tmp_path, history, caplog):
    records, _ = history
    book = Book()
    epochs = reader(tmp_path, book, people(1, 77)[0], records[0].group.public)
    book.add(records[0], payload=b"junk")
    book.add(records[0])
    assert epochs.take_in()
    epochs.take_in()
    assert caplog.text.count("epoch_unreadable") == 1


async def test_one_signer_publishes_and_the_others_see_it(tmp_path, history):
    records, signers = history
    book = Book()
    all_epochs = [reader(tmp_path, book, each, records[0].group.public) for each in signers]
    for each in all_epochs:
        for record in records:
            each.custody.learn(record)
    turns = [await each.tell() for each in all_epochs]
    ranks = sorted(range(3), key=lambda at: signers[at].id)
    assert [turns[at] for at in ranks] == [PUBLISH_AFTER_S * (1 + rank) for rank in range(3)]
    book.now = PUBLISH_AFTER_S
    assert await all_epochs[ranks[0]].tell() is None
    assert len(book.held) == 3
    book.now = 100
    for each in all_epochs:
        each.take_in()
        assert await each.tell() is None
    assert len(book.held) == 3


async def test_a_forged_copy_keeps_nobody_from_publishing(tmp_path, history):
    records, signers = history
    book = Book()
    epochs = reader(tmp_path, book, signers[0], records[0].group.public)
    for record in records[:2]:
        epochs.custody.learn(record)
    book.add(records[0])
    forged = EpochRecord(value=records[1].value, attempt=records[1].attempt, votes=records[1].votes[:1])
    book.add(records[1], payload=forged.encode())
    epochs.take_in()
    assert [each.epoch for each in epochs.missing()] == [1]


def test_a_forged_copy_is_looked_at_once_and_replaced_ones_are_forgotten(tmp_path, history, monkeypatch):
    records, _ = history
    book = Book()
    epochs = reader(tmp_path, book, people(1, 77)[0], records[0].group.public)
    book.add(records[2])  # waits for the one before
    forged = replace(records[1], votes=records[1].votes[:1])
    looked = []
    learn = epochs.custody.learn
    monkeypatch.setattr(Custody, "learn", lambda self, record: (looked.append(record), learn(record))[1])
    book.add(records[0])
    book.add(forged)
    for _ in range(3):
        epochs.take_in()
    assert looked.count(forged) == 1
    assert looked.count(records[2]) == 3
    book.add(records[1])
    assert epochs.take_in()
    assert epochs.custody.record == records[2]
    assert (len(epochs._taken), len(epochs._useless)) == (3, 1)
    book.held = book.held[1:2]
    epochs.take_in()
    assert (len(epochs._taken), len(epochs._useless)) == (1, 0)


async def test_what_cannot_be_published_is_tried_again(tmp_path, history):
    records, signers = history
    book = Book(fails=True)
    epochs = reader(tmp_path, book, signers[0], records[0].group.public)
    epochs.custody.learn(records[0])
    await epochs.tell()
    book.now = 10
    assert await epochs.tell() == 10 + RETRY_S
    book.fails = False
    assert await epochs.tell() is None
    assert len(book.held) == 1


async def test_who_is_no_signer_publishes_nothing(tmp_path, history):
    records, _ = history
    book = Book(now=1000)
    epochs = reader(tmp_path, book, people(1, 77)[0], records[0].group.public)
    assert await epochs.tell() is None
    epochs.custody.learn(records[0])
    assert await epochs.tell() is None
    assert book.held == []
