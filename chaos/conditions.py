"""What stands between any two nodes at a moment: all faults of the network that stand, worked out for each direction.

Faults overlap; a network between real hosts has one setting for each way. So the settings are never changed by a fault:
they are computed anew from all that stands, whenever something begins or ends.

Invariant: `paths` is a pure function of what stands; with nothing standing every path is CLEAR.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from chaos.experiment import Topology
from chaos.fault import Bandwidth, Delay, Disorder, Loss, Partition, Shape, Swizzle, Traffic
from simulations.network import apart, bridged, majorities_ring, one_way

NetworkFault = Partition | Loss | Delay | Disorder | Bandwidth
NETWORK: Final = (Partition, Loss, Delay, Disorder, Bandwidth)
SHAPING: Final = (Delay, Disorder, Bandwidth)

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One direction between two nodes. Shares are from 0 to 1; `bytes_per_s` 0 is without limit."""

    cut: bool = False
    cut_control: bool = False
    cut_data: bool = False
    loss: float = 0.0
    burst: float = 1.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    replay: float = 0.0
    bytes_per_s: int = 0

    @property
    def shaped(self) -> bool:
        """Whether a packet filter is not enough for it."""
        return bool(
            self.delay_s or self.jitter_s or self.duplicate or self.reorder or self.corrupt or self.replay
            or self.bytes_per_s or self.burst > 1
        )  # fmt: skip

    def data(self) -> dict[str, Any]:
        """What is not as it is on a clear path."""
        return {
            name: value for name in self.__slots__ if (value := getattr(self, name)) != getattr(CLEAR, name)
        }


CLEAR: Final = Path()


def paths(
    names: Sequence[str],
    topology: Topology,
    standing: Mapping[int, NetworkFault],
    clogged: frozenset[str] = frozenset(),
) -> dict[Pair, Path]:
    """Every directed pair whose path is not clear. `clogged` nodes reach nobody and nobody reaches them."""
    found: dict[Pair, Path] = {}

    def change(source: str, target: str, to: Callable[[Path], Path]) -> None:
        found[source, target] = to(found.get((source, target), CLEAR))

    for source in names:
        for target in names:
            if source == target:
                continue
            for link in topology.links:
                zones = (topology.zone_of(int(source[1:])), topology.zone_of(int(target[1:])))
                if zones in (link.between, link.between[::-1]):
                    change(source, target, _far(link.delay, link.jitter, link.loss))
            if source in clogged or target in clogged:
                change(source, target, lambda path: replace(path, cut=True))
            for fault in standing.values():
                effect = _effect(fault, names, source, target)
                if effect is not None:
                    change(source, target, effect)
    return {pair: path for pair, path in found.items() if path != CLEAR}


def _far(delay_s: float, jitter_s: float, loss: float) -> Callable[[Path], Path]:
    return lambda path: replace(
        path,
        delay_s=path.delay_s + delay_s,
        jitter_s=path.jitter_s + jitter_s,
        loss=1 - (1 - path.loss) * (1 - loss),
    )


def _effect(
    fault: NetworkFault, names: Sequence[str], source: str, target: str
) -> Callable[[Path], Path] | None:
    if isinstance(fault, Partition):
        return _cut(fault) if walls(fault)(int(source[1:]), int(target[1:])) else None
    picked = fault.pick.nodes
    if isinstance(fault, Loss):
        everybody = len(picked) >= len(names)
        out = source in picked and fault.direction in ("out", "both") and not fault.to
        inward = target in picked and fault.direction in ("in", "both") and not fault.to and not everybody
        if not (out or inward or (source in picked and target in fault.to)):
            return None
        passes = (1 - fault.share) ** (out + inward or 1)
        return lambda path: replace(
            path, loss=1 - (1 - path.loss) * passes, burst=max(path.burst, fault.burst)
        )
    if source not in picked:
        return None
    if isinstance(fault, Delay):
        return _far(fault.delay, fault.jitter, 0.0)
    if isinstance(fault, Bandwidth):
        least = fault.bytes_per_s
        return lambda path: replace(path, bytes_per_s=min(path.bytes_per_s or least, least))
    return lambda path: replace(
        path,
        duplicate=max(path.duplicate, fault.duplicate),
        reorder=max(path.reorder, fault.reorder),
        corrupt=max(path.corrupt, fault.corrupt),
        replay=max(path.replay, fault.replay),
    )


def _cut(fault: Partition) -> Callable[[Path], Path]:
    match fault.traffic:
        case Traffic.ALL:
            return lambda path: replace(path, cut=True)
        case Traffic.CONTROL:
            return lambda path: replace(path, cut_control=True)
        case Traffic.DATA:
            return lambda path: replace(path, cut_data=True)


def walls(fault: Partition) -> Callable[[int, int], bool]:
    """Whether nothing passes from one node, by number, to another."""
    groups = tuple(tuple(int(name[1:]) for name in group) for group in fault.groups)
    match fault.shape:
        case Shape.BRIDGE:
            return bridged(*groups)
        case Shape.RING:
            return majorities_ring(groups[0])
        case Shape.ONE_WAY:
            return one_way(groups[0], groups[1])
        case Shape.DEAF:
            return one_way(groups[1], groups[0])
        case _:
            return apart(groups)


def swizzled(fault: Swizzle, lasts_s: float, back: Sequence[str]) -> list[tuple[float, str, bool]]:
    """(seconds after the beginning, node, whether it loses its network): one after the other, and in the order of
    `back` again, the last at the end."""
    names = fault.pick.nodes
    step_s = min(fault.every, lasts_s / (2 * len(names)))
    gone = [(turn * step_s, name, True) for turn, name in enumerate(names)]
    return gone + [(lasts_s - turn * step_s, name, False) for turn, name in enumerate(reversed(back))]
