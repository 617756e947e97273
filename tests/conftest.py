"""Test configuration: hypothesis profiles; in CI no test is skipped; Ctrl-C works; small disks to fill and to break.

`dev` is quick; `ci` draws the examples laws are stated with.
"""

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.loopback import reserved_port

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "dev")


def pytest_configure() -> None:
    """What runs in the background ignores SIGINT, and so do its children: tests that send it would wait for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """What a test needs, `.ci/run` installs: there a skipped test is a failed one."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped in CI: {report.longrepr}"


class Volume:
    """A file system of its own, mounted at `path`, a few MiB large."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self._kind = kind
        self._image = path.with_name(path.name + ".img")
        path.mkdir()

    def mount(self) -> None:
        if self._kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none"]
        else:
            if self._image.exists():
                # What is on the disk now, on another one: the kernel may not have let go of the first.
                before, self._image = self._image, self._image.with_suffix(".again.img")
                shutil.copyfile(before, self._image)
            else:
                with self._image.open("wb") as stream:
                    stream.truncate(8 * 1024 * 1024)
                subprocess.run(["mkfs.ext4", "-q", "-m", "0", self._image], check=True)
            command = ["mount", "-o", "loop", str(self._image)]
        subprocess.run([*command, self.path], check=True)

    def unmount(self) -> None:
        """At once, whoever still has files open there."""
        subprocess.run(["umount", "--lazy", self.path], check=True)

    def fill(self, leave: int = 0) -> None:
        """Leave no room, or `leave` bytes."""
        ballast = self.path / "ballast"
        with ballast.open("ab", buffering=0) as stream:
            for size in (65_536, 4096, 512, 1):
                try:
                    while stream.write(bytes(size)):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            if leave:
                stream.truncate(stream.tell() - leave)

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def read_only(self) -> None:
        """Nobody may have a file open for writing."""
        subprocess.run(["mount", "-o", "remount,ro", self.path], check=True)

    def break_(self) -> None:
        """What ext4 does when its disk fails: from now on it is read-only, whoever writes (until mounted again)."""
        subprocess.run(["mount", "-o", "remount,abort", self.path], check=True, capture_output=True)


def _mounted(path: Path, kind: str) -> Generator[Volume]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    volume = Volume(path, kind)
    volume.mount()
    try:
        yield volume
    finally:
        volume.unmount()


@pytest.fixture
def volume(tmp_path: Path) -> Generator[Volume]:
    """A disk in memory."""
    yield from _mounted(tmp_path / "volume", "tmpfs")


@pytest.fixture
def journalled(tmp_path: Path) -> Generator[Volume]:
    """An ext4 on a file, which can be broken."""
    yield from _mounted(tmp_path / "volume", "ext4")


@pytest.fixture
def reserve() -> Generator[Callable[[], int]]:
    """A port of 127.0.0.1 with each call, reserved until the test ends (tests/loopback.py)."""
    with ExitStack() as held:
        yield lambda: held.enter_context(reserved_port())
