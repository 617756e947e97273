"""How long an answer may take before it is missed: the estimator of RFC 6298 over the acks of each zone.

A probe timeout made for the worst network wastes most of the detection time on a good one. Each direct ack gives a
sample; srtt and rttvar are kept for each zone rather than for each member, because in a large mesh one member is
probed once in hours while its zone is probed every few seconds, and members of one zone are about equally far away.

    timeout = clamp(srtt + 4 * rttvar, probe_timeout_s_min, probe_timeout_s)

The floor is not for the network but for the process at the other end, which may be busy. A late ack counts too (it is
measured from the first ping, so it can only be over-estimated): a zone that gets slow is given more time.

Invariant: at most `ZONES_MAX` zones, of which the one measured longest ago makes room; the timeout of a zone never
heard of is `probe_timeout_s`.
"""

from dataclasses import dataclass
from typing import Final

from gossip.config import GossipConfig

ZONES_MAX: Final = 64
_ALPHA: Final = 1 / 8
_BETA: Final = 1 / 4
_K: Final = 4


@dataclass(slots=True)
class _Estimate:
    srtt_s: float
    rttvar_s: float


class RoundTrips:
    """The estimates of one engine."""

    __slots__ = ("_config", "_zones")

    def __init__(self, config: GossipConfig) -> None:
        self._config = config
        self._zones: dict[str, _Estimate] = {}

    def measured(self, zone: str, rtt_s: float) -> None:
        """A member of `zone` answered a ping after `rtt_s`."""
        estimate = self._zones.pop(zone, None)
        if estimate is not None:
            self._zones[zone] = estimate
            estimate.rttvar_s += _BETA * (abs(estimate.srtt_s - rtt_s) - estimate.rttvar_s)
            estimate.srtt_s += _ALPHA * (rtt_s - estimate.srtt_s)
            return
        if len(self._zones) >= ZONES_MAX:
            del self._zones[next(iter(self._zones))]
        self._zones[zone] = _Estimate(rtt_s, rtt_s / 2)

    def timeout_s(self, zone: str) -> float:
        """How long to wait for the ack of a member of `zone`."""
        config = self._config
        estimate = self._zones.get(zone)
        if estimate is None:
            return config.probe_timeout_s
        expected_s = estimate.srtt_s + _K * estimate.rttvar_s
        return min(config.probe_timeout_s, max(config.probe_timeout_s_min, expected_s))

    def srtt_s(self, zone: str) -> float | None:
        """The smoothed round-trip time to `zone`, if any was measured."""
        estimate = self._zones.get(zone)
        return None if estimate is None else estimate.srtt_s
