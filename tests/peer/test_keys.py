"""Key files: written whole or not at all, private or refused, and a boot number that never comes twice."""

import errno
import os
import stat
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.io.keys import BOOT_MAX, KeyFile, KeyFileError, Keys, replace_secret

SEED = bytes(range(32))


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys.open(tmp_path)


def test_what_was_written_is_read_and_what_was_not_is_none(keys):
    assert keys.read(KeyFile.NODE_SEED) is None
    keys.write(KeyFile.NODE_SEED, SEED)
    keys.write(KeyFile.CREDENTIAL, b"first")
    keys.write(KeyFile.CREDENTIAL, b"second")
    assert keys.read(KeyFile.NODE_SEED) == SEED
    assert Keys.open(keys.directory.parent).read(KeyFile.CREDENTIAL) == b"second"


def test_files_and_directory_are_private_whatever_the_umask_says(tmp_path):
    before = os.umask(0)
    try:
        keys = Keys.open(tmp_path)
        for file in KeyFile:
            keys.write(file, SEED)
    finally:
        os.umask(before)
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(keys.path(file).stat().st_mode) for file in KeyFile} == {0o600}
    assert len(list(keys.directory.iterdir())) == len(KeyFile)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
@pytest.mark.parametrize("file", [KeyFile.NODE_SEED, KeyFile.AUTHORITY_SEED, KeyFile.CERTIFICATES])
def test_a_key_that_others_can_read_is_refused(keys, file, mode):
    keys.write(file, SEED)
    keys.path(file).chmod(mode)
    with pytest.raises(KeyFileError, match=f"others can read this key .*chmod 600 {keys.path(file)}"):
        keys.read(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_key_of_another_user_is_refused(keys):
    keys.write(KeyFile.NODE_SEED, SEED)
    os.chown(keys.path(KeyFile.NODE_SEED), 12345, 12345)
    with pytest.raises(KeyFileError, match="belongs to user 12345"):
        keys.read(KeyFile.NODE_SEED)


def test_a_seed_is_never_replaced(keys):
    keys.write(KeyFile.NODE_SEED, SEED)
    keys.write(KeyFile.NODE_SEED, SEED)
    with pytest.raises(KeyFileError, match="holds another key already"):
        keys.write(KeyFile.NODE_SEED, bytes(32))
    assert keys.read(KeyFile.NODE_SEED) == SEED


@pytest.mark.parametrize("content", [b"", b"short", bytes(33), bytes(100_000), bytes(5_000_000)])
def test_a_damaged_seed_is_named(keys, content):
    keys.path(KeyFile.NODE_SEED).write_bytes(content)
    keys.path(KeyFile.NODE_SEED).chmod(0o600)
    with pytest.raises(KeyFileError, match=r"node\.key: is damaged: \d+ bytes where a key has 32"):
        keys.read(KeyFile.NODE_SEED)


def test_what_a_crash_left_half_written_is_cleared(tmp_path):
    keys = Keys.open(tmp_path)
    keys.write(KeyFile.CREDENTIAL, b"whole")
    (keys.directory / "node.credential.tmp").write_bytes(b"ha")
    again = Keys.open(tmp_path)
    assert again.read(KeyFile.CREDENTIAL) == b"whole"
    assert [path.name for path in again.directory.iterdir()] == ["node.credential"]


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    """A real failing write(2), in a child: RLIMIT_FSIZE as a full disk."""
    script = """
        import resource, signal, sys
        from pathlib import Path
        from peer.io.keys import KeyFile, KeyFileError, Keys
        keys = Keys.open(Path(sys.argv[1]))
        keys.write(KeyFile.CREDENTIAL, b"old")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            keys.write(KeyFile.CREDENTIAL, bytes(5000))
        except KeyFileError as error:
            print(error)
        print(keys.read(KeyFile.CREDENTIAL), [path.name for path in keys.directory.iterdir()])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "node.credential: cannot be written: File too large" in done.stdout
    assert "b'old' ['node.credential']" in done.stdout


def test_a_boot_number_is_the_clock_or_one_more_than_the_last(keys):
    assert keys.next_boot(1_000) == 1_000
    assert keys.next_boot(5_000) == 5_000
    assert keys.next_boot(5_000) == 5_001
    assert keys.next_boot(17) == 5_002  # a clock that went back
    assert Keys.open(keys.directory.parent).next_boot(0) == 5_003


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=6))
def test_boot_numbers_rise_whatever_the_clock_does(tmp_path_factory, clock):
    keys = Keys.open(tmp_path_factory.mktemp("keys"))
    boots = [keys.next_boot(now_ms) for now_ms in clock]
    assert boots == sorted(set(boots))
    assert all(boot >= now_ms for boot, now_ms in zip(boots, clock, strict=True))


def test_the_boot_number_is_on_disk_before_it_is_used(keys):
    boot = keys.next_boot(7_000)
    assert int(keys.path(KeyFile.BOOT).read_bytes()) == boot


@pytest.mark.parametrize("content", [b"abc", b"-1", b"1 2", str(2**63).encode(), b"\xff\n"])
def test_a_damaged_boot_number_is_refused_with_what_to_do(keys, content):
    keys.path(KeyFile.BOOT).write_bytes(content)
    with pytest.raises(
        KeyFileError, match="boot: is damaged; if this host's clock is right, remove the file"
    ):
        keys.next_boot(1)


def test_boot_numbers_do_not_wrap(keys):
    keys.path(KeyFile.BOOT).write_bytes(str(BOOT_MAX).encode())
    with pytest.raises(KeyFileError, match="no boot number is left"):
        keys.next_boot(1)


def test_what_a_secret_held_before_is_overwritten_and_not_left_on_the_disk(tmp_path):
    keys = Keys.open(tmp_path)
    path, aside = keys.directory / "ceremony-1.key", tmp_path / "aside"
    replace_secret(path, b"the first")
    aside.hardlink_to(path)  # the same bytes on the disk, under a name that stays
    replace_secret(path, b"the second")
    assert path.read_bytes() == b"the second"
    assert aside.read_bytes() == bytes(9)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_overwritten_is_told_and_the_new_content_is_there(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    replace_secret(path, b"the first")

    def fails(_stream):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr("peer.io.keys._fill", fails)
    with pytest.raises(KeyFileError, match="held before cannot be erased"):
        replace_secret(path, b"the second")
    assert path.read_bytes() == b"the second"


def test_what_a_crash_left_half_written_is_overwritten_before_it_goes(tmp_path):
    keys = Keys.open(tmp_path)
    leftover, aside = keys.directory / "ceremony-1.key.tmp", tmp_path / "aside"
    leftover.write_bytes(b"half")
    aside.hardlink_to(leftover)
    Keys.open(tmp_path)
    assert not leftover.exists()
    assert aside.read_bytes() == bytes(4)
