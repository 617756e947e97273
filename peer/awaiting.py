"""Certificates of which a record ought to be in the log soon, and what is done about each until it is.

    coordinated   this peer had it signed: it is shown to a signer at once, to the next one if none has written it down
    met           this peer holds it, or met it in a handshake: whoever had it signed should have shown it. It is shown
                  after MET_S, and told of when nobody has recorded it for UNRECORDED_S, or only because of that
    shared        this peer gave a share of its signature: if whoever asked for that does not show it, it has the same
                  order signed again, for the log

The third is what makes the log complete: with fewer than t signers that lie there is an honest one among those who
signed, and it knows. Whoever coordinated cannot keep quiet about a certificate; he can only use it before it is known.
A partition delays records; MET_S and UNRECORDED_S are long against what writing and spreading takes (a minute and
seconds), so that nobody is told of it before it has lasted for minutes.

Invariant: bounded; nothing is awaited beyond the certificate's end, or the time in which an order can be signed.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from peer.issuelog import Entry
from trust.issued import leaf_of
from trust.order import ORDER_SKEW_S_MAX, Draft, Order
from trust.svid import Svid

SHOWN_AGAIN_S: Final = 90.0  # longer than it takes a signer to write it down, and that to get here
SHOWN_AGAIN_S_MAX: Final = 600.0
MET_S: Final = 150.0
UNRECORDED_S: Final = 300.0
SIGNED_AGAIN_S: Final = 120.0
RETRY_S: Final = 30.0
CROWD_S: Final = 30.0  # who awaits the same does not act in the same moment
CERTIFICATES_MAX: Final = 4096
SHARES_MAX: Final = 4096
SHARES_OF_NODE_MAX: Final = 16  # of more, the oldest go: one in the log is an alarm
FRESH_S: Final = ORDER_SKEW_S_MAX - RETRY_S  # as old as an order may be, with some time left to sign it

Find = Callable[[bytes], Entry | None]


@dataclass(slots=True, kw_only=True)
class Certificate:
    """One that ought to be recorded. `met`: this peer is not the one who had it signed."""

    svid: Svid
    der: bytes
    since: float
    due: float
    met: bool
    tries: int = 0


@dataclass(slots=True, kw_only=True)
class Share:
    """An order of which this node has signed its part."""

    node: bytes
    order: Order
    draft: Draft
    coordinator: bytes
    due: float


class Awaiting:
    """See the module's docstring. Times are Unix seconds."""

    def __init__(self, node: bytes, rng: Random) -> None:
        self._node, self._rng = node, rng
        self._certificates: OrderedDict[bytes, Certificate] = OrderedDict()  # by leaf, oldest first
        self._shares: OrderedDict[bytes, Share] = OrderedDict()  # by leaf, oldest first
        self._of_node: dict[
            bytes, dict[bytes, None]
        ] = {}  # the same leaves, by the node they are made out to
        self.forgotten = 0  # found no place

    def coordinated(self, svid: Svid, der: bytes, now: float) -> None:
        """This peer has had it signed."""
        self._add(Certificate(svid=svid, der=der, since=now, due=now, met=False), leaf_of(svid))

    def met(self, svid: Svid, der: bytes, now: float) -> None:
        """It is in use."""
        due = now + MET_S + self._rng.uniform(0.0, CROWD_S)
        self._add(Certificate(svid=svid, der=der, since=now, due=due, met=True), leaf_of(svid))

    def shared(
        self, leaf: bytes, node: bytes, order: Order, draft: Draft, coordinator: bytes, now: float
    ) -> None:
        """A share of its signature has left, for `coordinator`; it is made out to `node`."""
        if leaf in self._shares:
            return
        of_node = self._of_node.get(node, {})
        if len(of_node) >= SHARES_OF_NODE_MAX:
            self.give_up(next(iter(of_node)))
        elif len(self._shares) >= SHARES_MAX:
            self.give_up(next(iter(self._shares)))
            self.forgotten += 1
        due = now + SIGNED_AGAIN_S + self._rng.uniform(0.0, CROWD_S)
        self._shares[leaf] = Share(node=node, order=order, draft=draft, coordinator=coordinator, due=due)
        self._of_node.setdefault(node, {})[leaf] = None

    def to_show(self, find: Find, now: float) -> list[Certificate]:
        """What is to be shown to a signer now."""
        due: list[Certificate] = []
        for leaf, each in list(self._certificates.items()):
            if each.svid.not_after < now:
                del self._certificates[leaf]
            elif each.due <= now:
                entry = find(leaf)
                if entry is None:
                    each.tries += 1
                    wait_s = min(SHOWN_AGAIN_S * each.tries, SHOWN_AGAIN_S_MAX)
                    each.due = now + wait_s + self._rng.uniform(0.0, CROWD_S / 3)
                    due.append(each)
                elif each.met and entry.issued.by == self._node:
                    each.due = math.inf  # nobody else has shown it: told of for as long as it can be used
                else:
                    del self._certificates[leaf]
        return due

    def unrecorded(self, find: Find, now: float) -> list[Certificate]:
        """Those that have been without a record for too long, or would be but for this peer."""
        return [
            each
            for leaf, each in self._certificates.items()
            if each.svid.not_after >= now
            and (each.due == math.inf or (now - each.since > UNRECORDED_S and find(leaf) is None))
        ]

    def to_sign(self, find: Find, now: float) -> list[tuple[bytes, Share]]:
        """What is to be signed again now, by leaf."""
        due: list[tuple[bytes, Share]] = []
        for leaf, share in list(self._shares.items()):
            if share.due > now:
                continue
            if find(leaf) is not None:
                self.give_up(leaf)
            else:
                share.due = now + RETRY_S
                due.append((leaf, share))
        return due

    def give_up(self, leaf: bytes) -> None:
        """A share's order cannot be signed again, or need not be."""
        share = self._shares.pop(leaf, None)
        if share is not None:
            of_node = self._of_node[share.node]
            del of_node[leaf]
            if not of_node:
                del self._of_node[share.node]

    def _add(self, certificate: Certificate, leaf: bytes) -> None:
        if leaf in self._certificates:
            return
        if len(self._certificates) >= CERTIFICATES_MAX:
            self.forgotten += 1
        else:
            self._certificates[leaf] = certificate

    def __repr__(self) -> str:
        return f"Awaiting({len(self._certificates)} certificates, {len(self._shares)} shares)"
