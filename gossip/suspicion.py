"""How long a suspicion lasts before it is a verdict (Lifeguard, section 3.2, "LHA-Suspicion").

    timeout = max(floor, ceiling - (ceiling - floor) * log(c + 1) / log(k + 1))

with c independent confirmations after the first accusation and k of them expected. The ceiling is what a lone
accuser must wait; each further observer that failed to reach the suspect by its own probe brings the timeout nearer
to the floor. k never exceeds the members that could confirm at all, so that two nodes (k = 0) and three (k = 1) work
by the same rule as a thousand. Ours: with k confirmed the floor is lower than when k is 0, because then witnesses
have told the suspect (gossip/judge.py) and several opinions exist instead of one.

The same count tells when a Dead heard from others is believed at once: `accusers_needed` signed suspicions.

Invariant: more confirmations never lengthen a timeout, and the timeout is finite.
"""

import math

from gossip.config import GossipConfig


def confirmations_expected(config: GossipConfig, able: int) -> int:
    """k, where `able` members (this node included, the suspect not) are alive and could accuse."""
    return max(0, min(config.confirmations, able - 1))


def accusers_needed(config: GossipConfig, able: int) -> int:
    """How many distinct signed suspicions make a Dead true for a node that has not waited itself."""
    return confirmations_expected(config, able) + 1


def timeout_s(config: GossipConfig, *, members: int, able: int, accusers: int) -> float:
    """Seconds from the first accusation to the verdict; `members` live ones, `accusers` distinct ones so far."""
    scale = max(1.0, math.log10(max(1, members))) * config.probe_interval_s
    expected = confirmations_expected(config, able)
    confirmed = max(0, accusers - 1)
    if expected == 0 and confirmed == 0:
        return config.suspicion_mult_alone * scale
    floor = config.suspicion_mult_corroborated * scale
    if confirmed >= expected:
        return floor
    ceiling = config.suspicion_max_mult * config.suspicion_mult_alone * scale
    return max(floor, ceiling - (ceiling - floor) * math.log(confirmed + 1) / math.log(expected + 1))
