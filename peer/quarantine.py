"""Policies this node does not obey because of what they did to its data plane, and which state is known to be good.

A policy in quarantine is left out of what is compiled. Where the data plane took an earlier version of it, that one
stays in force. Quarantine is of a version: an edit of the policy is tried anew, so is everything after a restart of
the peer (but for what ended workers, see `Quarantine.restore`).

One that restricts access and has no version before it keeps out whomever it may have been meant for (peer/unread.py).
So that nobody can shut what is not theirs by a policy that ends workers, those that restrict are spared at first
(`spared`): the policies that shut a namespace were written by who may write there.

A snapshot on which a worker ends soon after it took it was taken all the same: so what is served is on probation
until it has run PROVEN_AFTER_S without a worker's end, not counting the time in which the next one starts. Snapshots
follow one another faster than that in a large mesh, so the ends are counted against all that came since the last state
that is proven. A peer that has just started has proven nothing: after ENDS_UNPROVEN_MAX ends all its policies go, the
restricting ones last, so that a mesh in which there is a poisonous policy can be joined. That is a suspicion and no
more: the next start begins anew.

Invariant: nothing here reads a clock; equal calls give equal answers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from peer.catalog import PolicyEntry
from peer.policies import MESSAGE_CHARS_MAX, Condition, Status
from peer.unread import RESTRICTING_KINDS, strictest
from proxy.resources.resource import ROOT_NAMESPACE

REJECTED: Final = "RejectedByDataPlane"
DEADLY: Final = "EndedDataPlaneWorkers"
SUSPECTED: Final = "SuspectedOfEndingWorkers"  # as is everything, where no state is proven yet

PROVEN_AFTER_S: Final = 30.0
RESTART_S: Final = 25.0  # until another worker serves, at most (proxy/embedded/supervisor.py)
ENDS_MAX: Final = 2
ENDS_UNPROVEN_MAX: Final = 4  # before all there is comes under suspicion

Version = tuple[tuple[str, int], ...]  # (writer, seq) of each live edit


def key_of(entry: PolicyEntry) -> str:
    return f"{entry.kind}/{entry.namespace}/{entry.name}"


def version_of(entry: PolicyEntry) -> Version:
    return tuple((version.writer, version.seq) for version in entry.versions)


def by_weight(entry: PolicyEntry) -> tuple[bool, bool, str]:
    """The order in which suspects are tried: first those that would shut most when they could not be tried."""
    return entry.kind not in RESTRICTING_KINDS, entry.namespace != ROOT_NAMESPACE, key_of(entry)


def spared(suspects: Mapping[str, PolicyEntry]) -> Iterator[frozenset[str]]:
    """Workers end on these policies, by key, and each try costs some more: which of them to leave in force this time,
    fewer every time, at last none."""
    restricting = {key: entry for key, entry in suspects.items() if entry.kind in RESTRICTING_KINDS}
    root = {key for key, entry in restricting.items() if entry.namespace == ROOT_NAMESPACE}
    left = len(suspects)
    for part in (frozenset(restricting), frozenset(root), frozenset[str]()):
        if len(part) < left:
            left = len(part)
            yield part


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One policy in quarantine. `instead` is the version that stays in force, if any does."""

    version: Version
    reason: str
    message: str
    instead: PolicyEntry | None = None


class Quarantine:
    """What is in quarantine now, by key."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self.absent: tuple[
            PolicyEntry, ...
        ] = ()  # of the last `admit`: those of which no version is in force

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held(self) -> Mapping[str, Held]:
        return self._held

    def hold(self, entry: PolicyEntry, reason: str, message: str, *, instead: PolicyEntry | None) -> None:
        if instead is not None and version_of(instead) == version_of(entry):
            instead = None
        self._held[key_of(entry)] = Held(
            version=version_of(entry),
            reason=reason,
            message=message[:MESSAGE_CHARS_MAX],
            instead=instead,
        )

    def restore(self, key: str, version: Version, message: str) -> None:
        """It ended workers in an earlier life of this peer: it must not do so at every start."""
        self._held.setdefault(key, Held(version=version, reason=DEADLY, message=message[:MESSAGE_CHARS_MAX]))

    def release(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._held.pop(key, None)

    def admit(self, entries: Iterable[PolicyEntry]) -> tuple[PolicyEntry, ...]:
        """`entries` without what is in quarantine. What was edited or deleted since is in quarantine no more."""
        admitted, absent = [], []
        kept: dict[str, Held] = {}
        for entry in entries:
            key = key_of(entry)
            held = self._held.get(key)
            if held is None or held.version != version_of(entry):
                admitted.append(entry)
                continue
            kept[key] = held
            if held.instead is not None:
                admitted.append(held.instead)
            else:
                absent.append(entry)
        self._held = kept
        self.absent = tuple(absent)
        return tuple(admitted)

    def overlay(self, statuses: Mapping[str, Status]) -> dict[str, Status]:
        """The statuses, with what is in quarantine said of those that are."""
        words = {key_of(entry): strictest(entry, entry.versions).words for entry in self.absent}
        held = {key: _status(each, words.get(key, "")) for key, each in self._held.items()}
        return dict(sorted({**statuses, **held}.items()))


def _status(held: Held, meanwhile: str) -> Status:
    message = held.message
    if meanwhile and not message.startswith(meanwhile):
        message = f"{meanwhile}: {message}"
    if held.instead is not None:
        writer, seq = version_of(held.instead)[0]
        message += f"; version {writer}:{seq} stays in force"
    return Status(
        conditions=(Condition(type="Accepted", status="False", reason=held.reason, message=message),)
    )


S = TypeVar("S")


@dataclass(slots=True)
class Probation(Generic[S]):
    """Which of the states that were served is known to be good. Times are of one monotonic clock, in seconds."""

    proven_after_s: float = PROVEN_AFTER_S
    proven: S | None = None
    _trial: tuple[S, float] | None = None  # the oldest state that is not proven, and since when nothing ended
    _latest: tuple[S, float] | None = None
    _ends: int = field(default=0)

    @property
    def ends_max(self) -> int:
        return ENDS_UNPROVEN_MAX if self.proven is None else ENDS_MAX

    def serve(self, now_s: float, state: S) -> None:
        self._ripen(now_s)
        self._latest = (state, now_s)
        if self._trial is None:
            self._trial = self._latest

    def end(self, now_s: float) -> bool:
        """A worker ended by itself. True: too often since the last proven state; go back to that."""
        self._ripen(now_s)
        if self._trial is None:
            return False  # it has run long enough: whatever it was, it was not what was served
        since_s = now_s + RESTART_S
        self._trial = (self._trial[0], since_s)
        if self._latest is not None:
            self._latest = (self._latest[0], since_s)
        self._ends += 1
        if self._ends < self.ends_max:
            return False
        self._trial = self._latest = None
        self._ends = 0
        return True

    def _ripen(self, now_s: float) -> None:
        while self._trial is not None and now_s - self._trial[1] >= self.proven_after_s:
            self.proven = self._trial[0]
            self._ends = 0
            later = self._latest
            self._trial = later if later is not None and later[0] is not self.proven else None
