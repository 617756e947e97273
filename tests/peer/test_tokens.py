"""The used tokens beside the database."""

from pathlib import Path

import pytest

from peer.io.statefile import StateFileError
from peer.tokens import FILE_NAME, SpentTokens
from trust.admission import Spend

NOW = 1_000


def spend(number: int, expires_at: int = 2_000) -> Spend:
    return Spend(token_id=bytes([number]) * 16, node=bytes([number]) * 16, expires_at=expires_at)


def test_uses_outlive_the_process_and_expire(tmp_path: Path) -> None:
    tokens = SpentTokens.of(tmp_path)
    assert tokens.load(NOW) == ()
    tokens.add([spend(1)], NOW)
    tokens.add([spend(2, expires_at=1_500)], NOW)
    again = SpentTokens.of(tmp_path)
    assert set(again.load(NOW)) == {spend(1), spend(2, expires_at=1_500)}
    assert SpentTokens.of(tmp_path).load(1_600) == (spend(1),)


def test_a_damaged_file_is_reported_and_means_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("{", "[[1]]", '[["zz", "aa", 5]]', '"x"', "\0"):
        (tmp_path / FILE_NAME).write_text(text)
        assert SpentTokens.of(tmp_path).load(NOW) == ()
    assert "tokens_unread" in caplog.text


def test_a_use_that_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    tokens = SpentTokens.of(tmp_path / "missing")
    with pytest.raises(StateFileError):
        tokens.add([spend(1)], NOW)
    (tmp_path / "missing").mkdir()
    tokens.add([spend(2)], NOW)
    assert SpentTokens.of(tmp_path / "missing").load(NOW) == (spend(2),)
