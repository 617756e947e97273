"""Shares at rest: durable before they are used, private, erased when their time is over, and the epochs beside them."""

import hashlib
import stat

import pytest

from peer.custody import RECORDS_KEPT, Custody
from peer.io import keys as key_files
from peer.io.keys import KeyFile, KeyFileError, Keys
from tests.trust.ceremony.network import DOMAIN, founded, outcome, people, reshare, shares_of
from trust.authority import SoleAuthority
from trust.ceremony.alone import founded_alone
from trust.ceremony.electorate import founding
from trust.ceremony.resharing import scalar_of_seed
from trust.epoch import EpochRecord, check_epoch, decode_epoch
from trust.errors import EpochError
from trust.groupkey import KeyShare
from trust.identity import NodeIdentity
from trust.signer import SHARES_MAX

SEED = bytes(range(32))


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys.open(tmp_path)


def load(keys: Keys, root: bytes, identity: NodeIdentity) -> Custody:
    return Custody.load(keys, root, identity=identity, trust_domain=DOMAIN)


def fresh(share: KeyShare) -> KeyShare:
    """The same share as an object of its own: tests share what `founded` made, and custody wipes what it drops."""
    return KeyShare(share.group, share.identifier, type(share.secret)(share.secret.expose()))


def epochs(count: int) -> tuple[list[EpochRecord], list[dict[bytes, KeyShare]], list[NodeIdentity]]:
    """A group of three that is refreshed again and again."""
    record, shares, signers = founded(3)
    records, held = [record], [shares]
    for at in range(1, count):
        network, _ = reshare(records[-1], held[-1], signers, signers, seed=at)
        assert network.run(30)
        records.append(outcome(network))
        held.append(shares_of(network))
    return records, held, signers


def share_files(keys: Keys) -> list[str]:
    return sorted(path.name for path in keys.directory.glob("share-*"))


# ---------------------------------------------------------------------- the group of one


def test_a_root_held_whole_becomes_epoch_zero_and_its_seed_file_goes(keys):
    (founder,) = people(1)
    root = SoleAuthority.from_seed(SEED, holder=founder.id).root_public
    keys.write(KeyFile.AUTHORITY_SEED, SEED)
    custody = load(keys, root, founder)
    assert custody.record is not None
    check_epoch(custody.record, founding(DOMAIN, [founder.public_key]))
    assert custody.signers == (founder.public_key,)
    (share,) = custody.shares
    assert share.secret.expose() == scalar_of_seed(hashlib.sha512(SEED).digest())
    assert not keys.path(KeyFile.AUTHORITY_SEED).exists()
    again = load(keys, root, founder)
    assert again.record is not None
    assert again.record.encode() == custody.record.encode()
    assert [each.group for each in again.shares] == [share.group]


def test_the_record_of_a_group_of_one_is_the_same_after_a_crash_anywhere(keys, monkeypatch):
    (founder,) = people(1)
    root = SoleAuthority.from_seed(SEED, holder=founder.id).root_public
    keys.write(KeyFile.AUTHORITY_SEED, SEED)

    def crash(*_: object) -> None:
        raise KeyFileError("crashed")

    with monkeypatch.context() as patch:
        patch.setattr("peer.custody.erase_private", crash)
        with pytest.raises(KeyFileError):
            load(keys, root, founder)
    stored = keys.read(KeyFile.EPOCHS)
    assert keys.path(KeyFile.AUTHORITY_SEED).exists()
    custody = load(keys, root, founder)
    assert keys.read(KeyFile.EPOCHS) == stored
    assert len(custody.shares) == 1
    assert not keys.path(KeyFile.AUTHORITY_SEED).exists()


def test_the_seed_stays_until_the_share_is_on_disk(keys, monkeypatch):
    (founder,) = people(1)
    root = SoleAuthority.from_seed(SEED, holder=founder.id).root_public
    keys.write(KeyFile.AUTHORITY_SEED, SEED)

    def full(path: object, data: bytes) -> None:
        raise KeyFileError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("peer.custody.write_private", full)
        with pytest.raises(KeyFileError, match="No space"):
            load(keys, root, founder)
    assert keys.read(KeyFile.AUTHORITY_SEED) == SEED


def test_a_crash_between_erasing_the_seed_and_removing_it_keeps_nobody_from_starting(keys):
    (founder,) = people(1)
    root = SoleAuthority.from_seed(SEED, holder=founder.id).root_public
    keys.write(KeyFile.AUTHORITY_SEED, SEED)
    load(keys, root, founder)
    keys.path(KeyFile.AUTHORITY_SEED).write_bytes(bytes(32))
    keys.path(KeyFile.AUTHORITY_SEED).chmod(0o600)
    custody = load(keys, root, founder)
    assert len(custody.shares) == 1
    assert not keys.path(KeyFile.AUTHORITY_SEED).exists()


def test_an_erased_seed_without_the_share_that_came_of_it_is_told(keys):
    (founder,) = people(1)
    root = SoleAuthority.from_seed(SEED, holder=founder.id).root_public
    keys.write(KeyFile.AUTHORITY_SEED, bytes(32))
    with pytest.raises(KeyFileError, match=r"authority\.key"):
        load(keys, root, founder)


def test_a_seed_of_another_root_is_refused_by_name(keys):
    (founder,) = people(1)
    keys.write(KeyFile.AUTHORITY_SEED, SEED)
    with pytest.raises(KeyFileError, match=r"authority\.key: is not the key of this mesh's root"):
        load(keys, founder.public_key, founder)
    assert keys.read(KeyFile.AUTHORITY_SEED) == SEED


def test_founding_alone_is_deterministic_and_depends_on_who_founds():
    one, other = people(2)
    first, second = founded_alone(one, DOMAIN, SEED)[0], founded_alone(one, DOMAIN, SEED)[0]
    assert first.encode() == second.encode()
    assert founded_alone(other, DOMAIN, SEED)[0].digest != first.digest


# ---------------------------------------------------------------------- taking and learning


def test_a_share_is_on_disk_and_private_when_take_returns(keys):
    record, shares, (one, *_) = founded(3)
    custody = load(keys, record.group.public, one)
    assert (custody.record, custody.group, custody.signers, custody.shares) == (None, None, (), ())
    told: list[int] = []
    custody.changed(lambda: told.append(len(custody.shares)))
    custody.take(record, fresh(shares[one.id]))
    assert told
    assert told[-1] == 1
    (name,) = share_files(keys)
    assert stat.S_IMODE((keys.directory / name).stat().st_mode) == 0o600
    again = load(keys, record.group.public, one)
    assert again.record == record
    assert [each.secret.expose() for each in again.shares] == [shares[one.id].secret.expose()]


def test_a_share_that_cannot_be_stored_is_not_held(keys, monkeypatch):
    record, shares, (one, *_) = founded(3)
    custody = load(keys, record.group.public, one)

    def full(path: object, data: bytes) -> None:
        raise KeyFileError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("peer.custody.write_private", full)
        with pytest.raises(KeyFileError):
            custody.take(record, fresh(shares[one.id]))
    assert custody.shares == ()
    assert custody.lacking


def test_somebody_elses_share_is_refused(keys):
    record, shares, (one, two, _) = founded(3)
    custody = load(keys, record.group.public, one)
    with pytest.raises(EpochError, match="not this node's"):
        custody.take(record, fresh(shares[two.id]))
    assert share_files(keys) == []


def test_shares_of_two_epochs_are_held_and_older_ones_erased(keys):
    records, held, (one, *_) = epochs(SHARES_MAX + 2)
    custody = load(keys, records[0].group.public, one)
    taken = []
    for record, shares in zip(records, held, strict=True):
        taken.append(fresh(shares[one.id]))
        custody.take(record, taken[-1])
    assert [each.group.epoch for each in custody.shares] == [2, 3]
    assert [each.secret.wiped for each in taken] == [True, True, False, False]
    assert share_files(keys) == ["share-0000000002.key", "share-0000000003.key"]
    custody.retire(3)
    assert [each.group.epoch for each in custody.shares] == [3]
    assert share_files(keys) == ["share-0000000003.key"]
    assert [each.group.epoch for each in load(keys, records[0].group.public, one).shares] == [3]


def test_erased_shares_are_overwritten(keys, monkeypatch):
    record, shares, (one, *_) = founded(3)
    custody = load(keys, record.group.public, one)
    custody.take(record, fresh(shares[one.id]))
    path = keys.directory / share_files(keys)[0]
    left: list[bytes] = []
    unlink = type(path).unlink

    def watched(self: object, **options: object) -> None:
        left.append(path.read_bytes())
        unlink(path)

    monkeypatch.setattr(type(path), "unlink", watched)
    custody.retire(1)
    assert left == [bytes(len(left[0]))]
    assert custody.shares == ()
    key_files.erase_private(path)  # what is not there is erased


def test_learning_an_epoch_says_whether_it_is_news_and_survives_a_restart(keys):
    records, _, _ = epochs(3)
    outsider = people(1, 99)[0]
    root = records[0].group.public
    custody = load(keys, root, outsider)
    with pytest.raises(EpochError, match="not known here"):
        custody.learn(records[1])
    assert custody.learn(records[0])
    assert not custody.learn(records[0])
    assert custody.learn(records[1])
    assert custody.learn(records[2])
    assert not custody.learn(records[1])
    assert custody.record == records[2]
    assert not custody.lacking
    assert load(keys, root, outsider).record == records[2]


def test_a_forged_epoch_is_refused(keys):
    records, _, _ = epochs(2)
    custody = load(keys, records[0].group.public, people(1, 99)[0])
    custody.learn(records[0])
    forged = decode_epoch(records[1].encode())
    forged = EpochRecord(value=forged.value, attempt=forged.attempt, votes=forged.votes[:1])
    with pytest.raises(EpochError, match="votes"):
        custody.learn(forged)
    foreign, _, _ = founded(3, seed=5)
    with pytest.raises(EpochError, match="root of this mesh"):
        custody.learn(foreign)
    assert custody.record == records[0]


def test_only_the_newest_epochs_are_in_the_file_and_the_chain_goes_on_from_them(keys, monkeypatch):
    assert RECORDS_KEPT * (80 * 1024) < key_files.FILE_BYTES_MAX
    monkeypatch.setattr("peer.custody.RECORDS_KEPT", 2)
    records, _, _ = epochs(5)
    outsider = people(1, 99)[0]
    custody = load(keys, records[0].group.public, outsider)
    for record in records[:4]:
        custody.learn(record)
    again = load(keys, records[0].group.public, outsider)
    assert again.chain.first == 2
    assert again.record == records[3]
    assert not again.learn(records[0]), "older than what was verified before"
    assert again.learn(records[4])


def test_a_full_disk_keeps_nobody_from_knowing_the_signers(keys, monkeypatch):
    records, _, _ = epochs(2)
    custody = load(keys, records[0].group.public, people(1, 99)[0])

    def full(self: Keys, file: KeyFile, data: bytes) -> None:
        raise KeyFileError("No space left on device")

    monkeypatch.setattr(Keys, "write", full)
    assert custody.learn(records[0])
    assert custody.record == records[0]


# ---------------------------------------------------------------------- damage


def test_a_share_that_others_can_read_is_refused_by_name(keys):
    record, shares, (one, *_) = founded(3)
    load(keys, record.group.public, one).take(record, fresh(shares[one.id]))
    path = keys.directory / share_files(keys)[0]
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match=f"{path}: others can read this key"):
        load(keys, record.group.public, one)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other", "misnamed"])
def test_a_damaged_share_is_told_left_and_counts_as_lost(keys, caplog, damage):
    record, shares, (one, two, _) = founded(3)
    load(keys, record.group.public, one).take(record, fresh(shares[one.id]))
    path = keys.directory / share_files(keys)[0]
    content = path.read_bytes()
    changed = content
    match damage:
        case "cut":
            changed = content[:-1]
        case "garbage":
            changed = bytes(100)
        case "empty":
            changed = b""
        case "other":
            changed = content.replace(shares[one.id].secret.expose(), shares[two.id].secret.expose())
        case "misnamed":
            path = path.rename(path.with_name("share-0000000009.key"))
    path.write_bytes(changed)
    custody = load(keys, record.group.public, one)
    assert custody.shares == ()
    assert custody.lacking
    assert custody.record == record
    assert "share_unreadable" in caplog.text
    assert shares[one.id].secret.expose().hex() not in caplog.text
    assert path.exists()
    custody.take(record, fresh(shares[one.id]))
    assert not custody.lacking


@pytest.mark.parametrize("content", [b"\xff", b"\x90", b"\x91\xc4\x01x"])
def test_an_unreadable_list_of_epochs_is_heard_again(keys, content):
    record, shares, (one, *_) = founded(3)
    load(keys, record.group.public, one).take(record, fresh(shares[one.id]))
    keys.write(KeyFile.EPOCHS, content)
    custody = load(keys, record.group.public, one)
    assert custody.record == record, "the share's file holds it too"
    assert len(custody.shares) == 1
    other = Keys.open(keys.directory / "other")
    other.write(KeyFile.EPOCHS, content)
    empty = load(other, record.group.public, one)
    assert empty.record is None
    assert empty.learn(record)


def test_a_share_of_a_later_epoch_vouches_for_its_record(keys):
    records, held, (one, *_) = epochs(3)
    load_into = load(keys, records[0].group.public, one)
    for record in records:
        load_into.learn(record)
    load_into.take(records[2], fresh(held[2][one.id]))
    keys.path(KeyFile.EPOCHS).unlink()
    custody = load(keys, records[0].group.public, one)
    assert custody.record == records[2]
    assert len(custody.shares) == 1


def test_of_two_records_of_one_epoch_only_the_share_of_the_followed_one_counts(keys):
    record, shares, signers = founded(3)
    one = signers[0]
    pair = []
    for seed in (1, 2):
        network, _ = reshare(record, shares, signers, signers, seed=seed)
        assert network.run(30)
        pair.append((outcome(network), shares_of(network)))
    pair.sort(key=lambda each: each[0].digest)
    (followed, right), (other, wrong) = pair
    custody = load(keys, record.group.public, one)
    custody.learn(record)
    custody.take(other, fresh(wrong[one.id]))
    assert len(custody.shares) == 1
    custody.learn(followed)
    assert custody.shares == ()
    assert custody.lacking
    custody.take(followed, fresh(right[one.id]))
    assert [each.group for each in custody.shares] == [followed.group]


def test_a_crash_between_erasing_an_old_share_and_removing_it_is_finished(keys, caplog):
    records, held, (one, *_) = epochs(2)
    custody = load(keys, records[0].group.public, one)
    for record, shares in zip(records, held, strict=True):
        custody.take(record, fresh(shares[one.id]))
    old, _ = sorted(keys.directory.glob("share-*"))
    old.write_bytes(bytes(old.stat().st_size))
    again = load(keys, records[0].group.public, one)
    assert [share.group.epoch for share in again.shares] == [1]
    assert not old.exists()
    assert "share_unreadable" not in caplog.text


def test_custody_prints_no_share(keys):
    record, shares, (one, *_) = founded(3)
    custody = load(keys, record.group.public, one)
    custody.take(record, fresh(shares[one.id]))
    assert repr(custody) == "Custody(epoch=0, shares=[0])"
