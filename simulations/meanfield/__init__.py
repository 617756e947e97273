"""Membership of 100,000 to 1,000,000 nodes: the protocol of `gossip`, as arrays instead of engines.

The exact tier (the real node on a virtual clock) costs a Python object per node and a few microseconds per datagram;
beyond some ten thousand nodes that is hours. Here a node is a row in a few numpy arrays and a datagram is an element
of one, so a million of them hear of an update in seconds. What is computed, and after whom:

- Spread (gossip/broadcast.py; SWIM, section 4.1). Each member that hears an update tells it `retransmits(n)` times to
  members drawn at random. Bailey (1975) gives the curve of such a push epidemic; with one telling per round and none
  lost, all know after log2 n + ln n + O(1) rounds where they are in step (Pittel, 1987) and after 2 ln n + O(1) where
  they are not, as here (Janson, 1999); and after a limited number k of tellings each a share x = exp(-k (1 - loss)
  (1 - x)) never hears (Karp, Schindelhauer, Shenker and Voecking, 2000, section 2): that is why fingerprints on pings
  repair. `meanfield.spread`.
- Detection (SWIM, sections 3 and 4.3; Lifeguard, sections 3.1 and 3.2): who probes whom when, suspicions that gather
  accusers and are then verdicts, witnesses. `meanfield.detection`.
- Healing of a partition: who knocks where, and how the word gets round. `meanfield.healing`.
- Mistakes: how often healthy members accuse each other because packets are lost (`meanfield.probing`), and what it
  takes for a verdict to follow (`meanfield.mistakes`).

**The mean-field assumption.** Members are exchangeable and meet at random: what a member's datagram says depends on
its own state, whom it reaches on chance, and any two members are independent but for the epidemics simulated. With it
go: views that differ in who is a member; queues in which several subjects compete for the room of a datagram;
introductions and keys; relays' and streams' own datagrams as carriers of news; zones; what handling costs, but for a
fixed time for news. What is kept per member: what it has heard, how often it told each thing, its phases, its timers;
up to 4,096 members also whom it told. Time is cut into slices no longer than the least latency, so no datagram is
answered in the slice it was sent in, and cause and effect keep their order; the only blur is the order within one
slice (half a millisecond on a LAN).

simulations/validation.py holds this tier against the exact one where both can run.

Invariant: every result is a function of its arguments and the seed; memory grows with the number of members (times
the number of meshes run side by side), never with its square beyond 4,096 members.
"""

try:
    import numpy as _numpy
except ImportError as error:  # the mesh itself needs no numpy, so it is an extra
    raise ImportError(
        "large simulations need numpy and matplotlib: pip install 'gossamer-mesh[sim]'"
    ) from error

assert _numpy.lib.NumpyVersion(_numpy.__version__) >= "1.25.0", "numpy 1.25 or later"
