"""Every file beside the database, torn, zeroed, with bits flipped: found, harmless, or mended, and never half read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.contacts import Contacts
from peer.io.keys import KeyFile, KeyFileError, Keys
from peer.io.store import Batch, Store
from peer.tokens import SpentTokens
from trust.admission import Spend

ALICE = b"a" * 16
PAGE = 4096
ROWS = 12
Damage = Callable[[bytearray], bytes]


def zeroed(start: int, length: int) -> Damage:
    return lambda data: bytes(data[:start]) + bytes(length) + bytes(data[start + length :])


def flipped(at: int, bit: int = 0) -> Damage:
    def damage(data: bytearray) -> bytes:
        data[at % len(data)] ^= 1 << bit
        return bytes(data)

    return damage


def cut(share: float) -> Damage:
    return lambda data: bytes(data[: int(len(data) * share)])


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The directory of a peer that was killed: database, log and index as they were."""
    directory = tmp_path / "data"
    store = Store.open(directory)
    for seq in range(1, ROWS + 1):
        row = (ALICE, "service", f"k{seq}", seq, b"%d" % seq + bytes(1000))
        store.commit(Batch(put=[row], heads={ALICE: seq}))
    kept = {path.name: path.read_bytes() for path in directory.iterdir() if path.name.startswith("store.db")}
    assert set(kept) == {"store.db", "store.db-wal", "store.db-shm"}
    store.close()
    for name, data in kept.items():
        (directory / name).write_bytes(data)
    return directory


def reopened(directory: Path) -> tuple[int, Store]:
    """Up to where the store holds everything."""
    store = Store.open(directory)
    head = store.load().heads.get(ALICE, 0)
    assert [int(row.rstrip(b"\0")) for row in store.load().records] == list(range(1, head + 1))
    store.close()
    return head, store


def damage(path: Path, how: Damage) -> bytes:
    damaged = how(bytearray(path.read_bytes()))
    path.write_bytes(damaged)
    return damaged


def test_a_log_as_a_crash_leaves_it_holds_everything(crashed: Path) -> None:
    head, store = reopened(crashed)
    assert (head, store.set_aside, store.doubt) == (ROWS, None, "")


@pytest.mark.parametrize(
    "how",
    [*(flipped(at) for at in (0, 3, 8, 12, 16, 20, 24, 31)), zeroed(0, 32), zeroed(0, PAGE)],
    ids=[
        "magic",
        "order",
        "page size",
        "checkpoint",
        "salt 1",
        "salt 2",
        "sum 1",
        "sum 2",
        "zero header",
        "zero page",
    ],
)
def test_a_log_whose_header_is_damaged_is_told_and_kept(crashed: Path, how: Damage) -> None:
    damaged = damage(crashed / "store.db-wal", how)
    head, store = reopened(crashed)
    assert head < ROWS
    assert store.set_aside is not None
    assert store.set_aside.read_bytes() == damaged
    assert "its log is damaged" in store.doubt
    assert "its log is damaged" in reopened(crashed)[1].doubt


@pytest.mark.parametrize("page", range(1, 6))
def test_a_log_with_a_zeroed_page_is_told_and_kept(crashed: Path, page: int) -> None:
    damaged = damage(crashed / "store.db-wal", zeroed(page * PAGE, PAGE))
    head, store = reopened(crashed)
    assert head < ROWS
    assert store.set_aside is not None
    assert store.set_aside.read_bytes() == damaged
    assert "its log is damaged" in store.doubt


@pytest.mark.parametrize(
    "how", [cut(0), cut(0.3), cut(0.999), zeroed(0, 200), zeroed(0, 32768), flipped(17, 5)]
)
def test_the_index_of_the_log_is_made_anew_whatever_became_of_it(crashed: Path, how: Damage) -> None:
    damage(crashed / "store.db-shm", how)
    head, store = reopened(crashed)
    assert (head, store.set_aside, store.doubt) == (ROWS, None, "")


def test_an_index_that_is_lost_is_made_anew(crashed: Path) -> None:
    (crashed / "store.db-shm").unlink()
    assert reopened(crashed)[0] == ROWS


@pytest.mark.timeout(400)  # for one that hangs: half a minute of work, on a core that others use too
@given(st.floats(0, 1), st.integers(0, 7), st.floats(0, 1))
def test_one_bit_anywhere_in_database_or_log_is_found_or_harmless(
    tmp_path_factory: Any, place: float, bit: int, which: float
) -> None:
    directory = tmp_path_factory.mktemp("torn") / "data"
    store = Store.open(directory)
    for seq in range(1, ROWS + 1):
        row = (ALICE, "service", f"k{seq}", seq, b"%d" % seq + bytes(1000))
        store.commit(Batch(put=[row], heads={ALICE: seq}))
        if seq == ROWS // 2:
            store._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    kept = {name: (directory / name).read_bytes() for name in ("store.db", "store.db-wal")}
    store.close()
    for name, data in kept.items():
        (directory / name).write_bytes(data)
    name = "store.db" if which < 0.5 else "store.db-wal"
    damage(directory / name, flipped(int(place * (len(kept[name]) - 1)), bit))
    head, again = reopened(directory)
    last = len(kept["store.db-wal"]) - 3 * (PAGE + 24)  # the transaction that a crash may have cut short
    assert (
        head == ROWS or again.doubt or (name == "store.db-wal" and place * len(kept[name]) > last - 2 * PAGE)
    )


@pytest.mark.parametrize("how", [cut(0), cut(0.5), cut(0.99), zeroed(0, 20), zeroed(4, 4096), flipped(1, 7)])
def test_small_files_that_are_torn_are_told_and_stand_in_nobodys_way(
    tmp_path: Path, how: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    contacts, tokens = Contacts.of(tmp_path), SpentTokens.of(tmp_path)
    contacts.keep([("10.0.0.1", 7946), ("10.0.0.2", 7946)])
    tokens.add([Spend(token_id=b"t" * 16, node=b"n" * 16, expires_at=2**40)], 0.0)
    for name in ("contacts.json", "tokens.json"):
        damage(tmp_path / name, how)
    assert contacts.met  # that it has met others is not forgotten
    assert contacts.load() == ()
    assert SpentTokens.of(tmp_path).load(0.0) == ()
    if (tmp_path / "contacts.json").stat().st_size:
        assert [record.message for record in caplog.records] == ["contacts_unread", "tokens_unread"]
    contacts.keep([("10.0.0.3", 7946)])
    assert json.loads((tmp_path / "contacts.json").read_text()) == [["10.0.0.3", 7946]]


@pytest.mark.parametrize("file", [KeyFile.NODE_SEED, KeyFile.AUTHORITY_SEED, KeyFile.BOOT])
@pytest.mark.parametrize("how", [cut(0), cut(0.5)])
def test_torn_keys_are_named_and_stay_as_they_are(tmp_path: Path, file: KeyFile, how: Damage) -> None:
    keys = Keys.open(tmp_path)
    keys.write(file, b"x" * 32)
    damaged = damage(keys.path(file), how)
    with pytest.raises(KeyFileError, match=f"{keys.path(file)}: is damaged"):
        keys.last_boot() if file is KeyFile.BOOT else keys.read(file)
    assert keys.path(file).read_bytes() == damaged
