"""A share of a processor for a process and its children, by the kernel's cgroups (version 2, or the controller `cpu` of
version 1): in each PERIOD_S it runs for its share and then not at all, as a container at its limit does.

Who is let go returns to the group it came from, and the group made for it goes.

Invariant: only groups with the run's mark are made; `commands_down` removes them once their processes have ended.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from chaos.drivers.driver import DriverError

ROOT: Final = Path("/sys/fs/cgroup")
PERIOD_S: Final = 0.1


class Quotas:
    """Of the nodes of one run."""

    def __init__(self, mark: str, root: Path = ROOT) -> None:
        self._mark = mark
        self._unified = "cpu" in _words(root / "cgroup.controllers")
        self._root = root if self._unified else root / "cpu"
        self._came_from: dict[str, Path] = {}  # by node: the group its processes were in

    def check(self) -> None:
        """Raises DriverError where there are none to be had."""
        if not self._unified and not (self._root / "cpu.cfs_quota_us").exists():
            raise DriverError(
                f"{self._root}: there is no cgroup controller for processors: give blocked and running"
            )

    def limit(self, node: str, pids: Iterable[int], share: float) -> None:
        """Let these processes, and what they start, have that share of one processor. Raises DriverError."""
        group, pids = self._group(node), list(pids)
        if pids and not group.exists():
            self._came_from[node] = self._root / self._place(pids[0])
        try:
            if self._unified and "cpu" not in _words(self._root / "cgroup.subtree_control"):
                (self._root / "cgroup.subtree_control").write_text("+cpu")
            group.mkdir(exist_ok=True)
            self._set(group, share)
            for pid in pids:
                self._move(pid, group)
        except OSError as error:
            raise DriverError(f"{group}: {error.strerror or error}: give blocked and running") from error

    def lift(self, node: str) -> None:
        """Let them have all they want, where they were before. Raises DriverError."""
        group = self._group(node)
        if not group.exists():
            return
        try:
            self._set(group, None)
            for pid in _words(group / "cgroup.procs"):
                self._move(int(pid), self._came_from.get(node, self._root))
            group.rmdir()
        except OSError as error:
            raise DriverError(f"{group}: {error.strerror or error}") from error

    def _place(self, pid: int) -> str:
        """The path of that process's group below the root; of one that ended the root's own."""
        for line in _words(Path(f"/proc/{pid}/cgroup")):
            _, controllers, path = line.split(":", 2)
            if controllers == "" if self._unified else "cpu" in controllers.split(","):
                return path.lstrip("/")
        return ""

    def commands_down(self, nodes: Iterable[str]) -> list[list[str]]:
        """What the dead man runs."""
        return [["rmdir", str(self._group(node))] for node in nodes]

    def _group(self, node: str) -> Path:
        return self._root / f"{self._mark}-{node}"

    def _set(self, group: Path, share: float | None) -> None:
        period_us = round(PERIOD_S * 1e6)
        quota_us = None if share is None else max(1000, round(share * period_us))
        if self._unified:
            (group / "cpu.max").write_text(f"{'max' if quota_us is None else quota_us} {period_us}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period_us))
            (group / "cpu.cfs_quota_us").write_text(str(-1 if quota_us is None else quota_us))

    def _move(self, pid: int, group: Path) -> None:
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:
            return  # it ended while we looked


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
