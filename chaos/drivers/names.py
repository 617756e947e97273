"""Names in namespaces: what resolves on each node, and what does not.

`ip netns exec NAME` puts the files of /etc/netns/NAME over those in /etc (ip-netns(8)). So each namespace of the run
gets a table of its own with all nodes in it, and a resolver at which nobody listens. When names are to fail the table
is emptied in place: processes that run already read it anew at each question.

Invariant: nothing is written but below /etc/netns, under names of the run; `commands_down` takes it away.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path("/etc/netns")
DOMAIN: Final = "chaos.internal"
_LOCAL: Final = "127.0.0.1 localhost\n"
_NOBODY: Final = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"


def name_of(index: int) -> str:
    """The name under which the others find a node."""
    return f"n{index}.{DOMAIN}"


class Names:
    """The tables of these namespaces, in the order of the nodes: name of the namespace -> address of the node."""

    def __init__(self, addresses: Mapping[str, str], root: Path = ROOT) -> None:
        self._spaces = tuple(addresses)
        self._root = root
        self._made = not root.exists()
        named = (f"{host} {name_of(index)}\n" for index, host in enumerate(addresses.values()))
        self._table = _LOCAL + "".join(named)

    def up(self) -> None:
        """Write them; before anything is started there. Raises OSError."""
        for index, space in enumerate(self._spaces):
            (self._root / space).mkdir(parents=True)
            (self._root / space / "resolv.conf").write_text(_NOBODY)
            self.resolve(index, works=True)

    def resolve(self, index: int, *, works: bool) -> None:
        """Whether names resolve on that node from now on."""
        (self._root / self._spaces[index] / "hosts").write_text(self._table if works else _LOCAL)

    def commands_down(self) -> list[list[str]]:
        """What the dead man runs."""
        down = [["rm", "-rf", str(self._root / space)] for space in self._spaces]
        return [*down, ["rmdir", "--ignore-fail-on-non-empty", str(self._root)]] if self._made else down
