"""How often a signer signs for one applicant, and for all: what keeps one host from having the root's time to itself.

A request counts once for whoever signed it, with the first order for it that is right by the rules; so nobody uses up
another one's share but by keeping, for the minutes it is good for, a request that was made to it. Of such a request
SIGNED_MAX signatures are given: an honest coordinator takes a few of them when signers fail.

Who asks too often is told when to come again, which its coordinator reads as "not now". A certificate is renewed when
half of its time is left, which is more than any wait here.

Invariant: memory is bounded: NODES_MAX applicants, REQUESTS_MAX requests; what is forgotten is the oldest, which is
long full again, or older than a request is good for unless all together ask faster than they may.
"""

import hashlib
import math
from collections import OrderedDict
from typing import Final

from trust.identity import format_id

EACH_PER_MINUTE: Final = (
    240  # some two hundred local accounts, renewed twice an hour, with all of them at the start
)
ALL_PER_MINUTE: Final = (
    6000  # a third of what a signer can: ten thousand hosts after an outage are through in minutes
)
SIGNED_MAX: Final = 32
NODES_MAX: Final = 16_384
REQUESTS_MAX: Final = 65_536  # of ten minutes, the time a request is good for


class Bucket:
    """So many at once, and as many in a minute. Seconds of any clock that never falls."""

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, most: int, now: float) -> None:
        self._most, self._left, self._at = most, float(most), now

    def wait_s(self, now: float) -> float:
        """How long until there is one; 0.0 if there is."""
        self._left = min(self._most, self._left + (now - self._at) * self._most / 60)
        self._at = now
        return max(0.0, (1 - self._left) * 60 / self._most)

    def take(self) -> None:
        """One less."""
        self._left -= 1


class Applicants:
    """See the module's theory."""

    def __init__(self, each: int = EACH_PER_MINUTE, together: int = ALL_PER_MINUTE) -> None:
        self._each, self._together = each, together
        self._all = Bucket(together, 0.0)
        self._nodes: OrderedDict[bytes, Bucket] = OrderedDict()
        self._requests: OrderedDict[bytes, int] = OrderedDict()

    def refusal(self, node: bytes, request: bytes, now: float) -> str:
        """Why `request` of the applicant `node` (id) is not signed for at `now` (s), and when to come again; "" if it
        is, which counts."""
        digest = hashlib.sha256(request).digest()
        if signed := self._requests.get(digest):
            if signed >= SIGNED_MAX:
                return (
                    f"this request of node {format_id(node)} was signed for {signed} times: make another one"
                )
            self._requests[digest] = signed + 1
            return ""
        bucket = self._nodes.get(node)
        if bucket is None:
            bucket = self._nodes[node] = Bucket(self._each, now)
            if len(self._nodes) > NODES_MAX:
                self._nodes.popitem(last=False)
        self._nodes.move_to_end(node)
        if (wait_s := bucket.wait_s(now)) > 0:
            return (
                f"node {format_id(node)} asks for more than {self._each} signatures a minute: try again in "
                f"{math.ceil(wait_s)} s"
            )
        if (wait_s := self._all.wait_s(now)) > 0:
            return (
                f"all applicants together ask this signer for more than {self._together} signatures a minute: try "
                f"again in {math.ceil(wait_s)} s"
            )
        bucket.take()
        self._all.take()
        self._requests[digest] = 1
        if len(self._requests) > REQUESTS_MAX:
            self._requests.popitem(last=False)
        return ""

    def __repr__(self) -> str:
        return f"Applicants(nodes={len(self._nodes)}, requests={len(self._requests)})"
