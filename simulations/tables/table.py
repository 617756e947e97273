"""A table: what it measures, its columns, and what is asked of one run of it.

Every figure in one comes from worlds that ran for it. Each row names the profile it is about; the profiles of one run
get the same seeds, the same victims and the same faults at the same times, so that what differs is the algorithm.

Invariant: the rows of a table are a function of its options; only the processor time is not, nor what the table says
of the machine.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from gossip.config import PROFILES

Value: TypeAlias = float | int | str | None
Row: TypeAlias = Mapping[str, Value]

PROFILES_COMPARED: Final = ("lan", "memberlist")
CPU_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`digits` behind the point; None for whole numbers and words."""

    key: str
    title: str
    digits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked of a run. Empty `nodes` and None `runs`: what the table itself takes. `large` adds the rows that
    take minutes each; `cpu_s` is what the table `healthy` may use for each profile. `cuts` and `cut_s` (seconds) have
    the table `heal` measure these cuts alone."""

    profiles: tuple[str, ...] = PROFILES_COMPARED
    nodes: tuple[int, ...] = ()
    seed: int = 1
    runs: int | None = None
    large: bool = False
    cpu_s: float = CPU_S
    cuts: tuple[str, ...] = ()
    cut_s: float | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.profiles if name not in PROFILES]
        assert not unknown, f"no such profiles: {unknown}"

    def sizes(self, small: tuple[int, ...], large: tuple[int, ...] = ()) -> tuple[int, ...]:
        """How many nodes the rows are to have."""
        return self.nodes or (small + large if self.large else small)

    def times(self, usual: int) -> int:
        """How often each thing is to be done."""
        return usual if self.runs is None else self.runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`about` says what is done, `notes` what to keep in mind when reading it."""

    name: str
    title: str
    about: str
    columns: tuple[Column, ...]
    measure: Callable[[Options], Iterator[Row]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of a table."""

    table: Table
    rows: tuple[Row, ...]
    command: str
    seed: int
    date: str
    python: str
    cpu_s: float


PROFILE: Final = Column(key="profile", title="profile")
NODES: Final = Column(key="nodes", title="nodes")
