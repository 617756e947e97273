"""A node knows the keys it had certified, across crashes and damage, and says nothing of what it cannot know."""

from pathlib import Path

import pytest

from peer import asked
from peer.asked import FILE_NAME, KEPT_S, AskedKeys
from trust.identity import NodeSpiffe
from trust.svid import SVID_TTL_S_MAX, Svid

NOW = 1_800_000_000.0


def svid(key: bytes, begins: float = NOW, life_s: int = 3600) -> Svid:
    return Svid(
        id=NodeSpiffe("cluster.local", bytes(16)),
        spiffe="",
        node=bytes(16),
        serial=bytes(16),
        not_before=int(begins),
        not_after=int(begins + life_s),
        public_der=key,
    )


def keys(directory: Path, now: float = NOW, *, first_start: bool = True) -> AskedKeys:
    return AskedKeys.of(directory, now, first_start=first_start)


def test_a_key_that_was_asked_for_is_known_also_after_a_crash(tmp_path: Path) -> None:
    keys(tmp_path).add(b"key", NOW)
    again = keys(tmp_path, NOW + 5, first_start=False)
    assert again.includes(svid(b"key"))
    assert not again.includes(svid(b"another"))


def test_a_backdated_certificate_is_strange_all_the_same(tmp_path: Path) -> None:
    """It says of itself when it began, and whoever signs in secret has it say what suits."""
    assert not keys(tmp_path).includes(svid(b"another", begins=NOW - 86_000, life_s=86_400))


def test_of_what_began_before_it_kept_count_it_says_nothing(tmp_path: Path) -> None:
    upgraded = keys(tmp_path, first_start=False)
    assert upgraded.includes(svid(b"older", begins=NOW - 1000))
    assert not upgraded.includes(svid(b"newer", begins=NOW))
    assert not upgraded.includes(svid(b"x", begins=NOW - 1000, life_s=2 * SVID_TTL_S_MAX))


@pytest.mark.parametrize(
    "damage", ["", "[", "{}", "[]", '{"since": 1, "keys": {"zz": 1}}', '{"since": "x", "keys": {}}']
)
def test_a_damaged_file_is_reported_and_makes_nothing_strange(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_text(damage)
    damaged = keys(tmp_path, first_start=False)
    assert "asked_unread" in caplog.text
    assert damaged.includes(svid(b"older", begins=NOW - 1000))
    assert not damaged.includes(svid(b"newer", begins=NOW + 1000))


def test_keys_are_forgotten_when_no_certificate_of_them_can_be_valid_and_there_is_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = keys(tmp_path)
    known.add(b"one", NOW)
    known.add(b"two", NOW + KEPT_S + 1)
    assert len(known) == 1
    monkeypatch.setattr(asked, "KEYS_MAX", 2)
    for each in (b"three", b"four"):
        known.add(each, NOW + KEPT_S + 2)
    assert len(known) == 2
    # of what it had to forget it says nothing
    assert known.includes(svid(b"two", begins=NOW + KEPT_S - 600))


def test_a_disk_that_fails_is_reported_and_the_key_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = keys(tmp_path / "missing")
    known.add(b"key", NOW)
    assert "asked_unsaved" in caplog.text
    assert known.includes(svid(b"key"))
