"""What a large world does to the memory of its process (simulations/collector.py)."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations import collector

MAPS = """\
00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon
00651000-00852000 rw-p 00051000 08:02 173521      /usr/bin/dbus-daemon
00e03000-01624000 rw-p 00000000 00:00 0           [heap]
7f0000100000-7f0000700000 rw-p 00000000 00:00 0
7f0001000000-7f0001400000 rw-s 00000000 00:00 0
7f0002000000-7f0002400000 r--p 00000000 00:00 0
7f0003100000-7f0003400000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0   [stack]
"""


@pytest.fixture
def relaxed() -> Iterator[None]:
    yield
    collector.resume()


def test_only_whole_large_pages_of_private_memory_are_moved() -> None:
    assert collector.heaps(MAPS) == [
        (0x1000000, 0x1600000),
        (0x7F0000200000, 0x7F0000600000),
        (0x7F0003200000, 0x7F0003400000),
    ]


def test_what_lies_in_moved_memory_is_what_it_was(relaxed: None) -> None:
    held = [bytes([number % 256]) * 100 for number in range(100_000)]
    assert collector.enlarge() >= 0  # 0 where the system has no such pages to give
    assert all(each == bytes([number % 256]) * 100 for number, each in enumerate(held))


def test_a_system_that_shows_no_table_of_its_memory_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(collector, "_MAPS", tmp_path / "none")
    assert collector.enlarge() == 0


def test_the_collector_is_afterwards_as_it_was_before(relaxed: None) -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    collector.relax()
    assert gc.get_threshold()[0] == collector.YOUNG_MAX
    assert gc.get_freeze_count() > frozen
    collector.resume()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
