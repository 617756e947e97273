"""Small files that outlive the database."""

from typing import Any

import pytest

from peer.io.statefile import FILE_BYTES_MAX, StateFile, StateFileError


def test_what_was_written_is_read_and_private(tmp_path: Any) -> None:
    file = StateFile(tmp_path / "x.json")
    assert file.read() is None
    file.write("größer")
    assert file.read() == "größer"
    file.write("")
    assert file.read() == ""
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Any, monkeypatch: Any) -> None:
    file = StateFile(tmp_path / "x.json")
    file.write("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StateFileError, match=r"x\.json: cannot be written: No space"):
        file.write("new")
    assert file.read() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_what_cannot_be_read_is_named(tmp_path: Any) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(StateFileError, match="bytes: is damaged"):
        StateFile(tmp_path / "bytes").read()
    with pytest.raises(StateFileError, match="cannot be read"):
        StateFile(tmp_path).read()
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(FILE_BYTES_MAX + 1)
    with pytest.raises(StateFileError, match="more than"):
        StateFile(tmp_path / "large").read()
