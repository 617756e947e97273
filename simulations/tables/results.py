"""`RESULTS.md`: a frame of prose, and one section for each table between markers.

A section is replaced as a whole when its table is measured again; what stands between sections, and around them, is
left as it is. A table that has no section yet gets one where the order of the tables puts it.

Invariant: writing the same section twice leaves the same file as writing it once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

FRAME: Final = """\
# What the simulator measures

Every figure here comes from the real node (`peer/node.py`: the membership engine and the journal) on a virtual clock
and network, and each table was measured for all its profiles in one run, with the same seed, the same victims and the
same faults at the same times. `lan` is the default profile; `memberlist` is HashiCorp's algorithm with HashiCorp's
constants in the same engine and on the same wire format (`gossip/config.py`), so that what differs is the algorithm.
The command under a table measures it again and, with `--save simulations/RESULTS.md`, replaces it here; the same seed
gives the same figures on every machine, but for those that say what a machine can do.

The network: 0.2 to 0.5 ms one way, no loss unless a table says so. The nodes: one processor each, which an input
costs 30 µs, a signature 23 µs, its verification 52 µs, one side of a TLS handshake 1.2 ms (`simulations/crypto.py`,
measured on a two-core server); signatures and ciphers are stand-ins of the same size. All meshes but that of `joins`
begin with nodes that know one another.

- **seen dead**: the moment a node declares another one dead. **False** is every such verdict about a node that runs.
- **suspicion**: an accusation that somebody made, counted once however many heard of it.
- **n**: nodes of the mesh. **p50**, **p99**: so large a share of all cases was not slower (nearest rank).
- **–**: it did not happen within the time a table allows, or there is nothing to compare with.
"""


class FrameError(Exception):
    """A file whose markers do not pair up: it was left as it is."""


def marks(name: str) -> tuple[str, str]:
    """The lines around a section."""
    return f"<!-- table {name}: written by `gossamer sim table {name}` -->", f"<!-- end of {name} -->"


def placed(text: str, name: str, section: str, order: Sequence[str]) -> str:
    """`text` with the section of that table in it, in place of the one there was. Raises FrameError."""
    begin, end = marks(name)
    body = f"{begin}\n\n{section.strip()}\n\n{end}"
    if (begin in text) != (end in text) or text.count(begin) > 1 or text.count(end) > 1:
        raise FrameError(f"the markers of {name} do not pair up")
    if begin in text:
        before, rest = text.split(begin)
        if end not in rest:
            raise FrameError(f"the markers of {name} are the wrong way round")
        return before + body + rest.split(end)[1]
    for follower in order[order.index(name) + 1 :]:
        mark = marks(follower)[0]
        if mark in text:
            before, rest = text.split(mark)
            return f"{before.rstrip()}\n\n{body}\n\n{mark}{rest}"
    return f"{text.rstrip()}\n\n{body}\n"


def save(file: Path, name: str, section: str, order: Sequence[str]) -> None:
    """Write the section into the file, which is begun if there is none. Raises FrameError, OSError."""
    text = file.read_text(encoding="utf-8") if file.exists() else FRAME
    file.write_text(placed(text, name, section, order), encoding="utf-8")
