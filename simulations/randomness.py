"""Streams of random numbers, each grown from the seed and a label of its own.

What one stream is asked for never changes what another gives: a fault more, or a node that draws once more, leaves the
network's dice as they were, so that two runs that should differ in one thing do.

Invariant: a stream is a function of (seed, labels) alone.
"""

import hashlib
import random


def stream(seed: int, *labels: str | int) -> random.Random:
    """The stream of that seed and label."""
    return random.Random(digest(seed, *labels))


def digest(seed: int, *labels: str | int) -> bytes:
    """32 bytes that stand for seed and label: a stream's seed, a node's key."""
    return hashlib.sha256("/".join(map(str, (seed, *labels))).encode()).digest()
