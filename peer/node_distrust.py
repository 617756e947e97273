"""Whom this node keeps at a distance, and for how long.

A writer that equivocated is expelled for good: what it published leaves the view (`EVICTED_KINDS`) and its node the
mesh. Every replica that holds the proof does so, and the proof spreads, so all agree again, whichever of the two
contents each had seen. Its restrictions go too: replicas hold different parts of a forked journal, and were these
obeyed, nodes would decide differently for ever. Nobody gains access by being expelled, for whoever can sign two
contents under one number can sign the deletion of all that this writer published as well. But one whose disk was
cloned loses its rules, so which policies went is told. A revocation proves itself and stays in force, whoever carried
it; what the writer closed stays closed, as with one that is revoked.

A node whose exchanges break the protocol, or bring what no honest node hands on, is answered ever more rarely: the
first offence costs nothing, each further one doubles the wait. So it is where an exchange brought what had to be
refused, but the wait stays short, for honest nodes too can differ in versions and limits. Exchanges that end well but
bring only what is known or has to wait, or, many times in a row, nothing at all, are merely no longer *begun* from here
as often: the cause may be a third one. Who asks for the whole journal again and again offends as well.

Invariant: bounded in nodes remembered and in seconds waited; time heals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from peer.node_sessions import Exchange
from peer.records import POLICY, QUARANTINE, SERVICE

EVICTED_KINDS: Final = (SERVICE, POLICY, QUARANTINE)

OFFENCE_WAIT_S: Final = 2.0  # after the second; doubled by each further one
OFFENCE_WAIT_S_MAX: Final = 300.0
REFUSED_WAIT_S_MAX: Final = 60.0
FRUITLESS_MAX: Final = 10  # added up since records last came, until exchanges with that node are spaced
KNOWN_COST: Final = 3  # of one that brought records, none of them news
NOTHING_COST: Final = 1  # of one begun here that moved nothing
FRUITLESS_WAIT_S: Final = 5.0
FRUITLESS_WAIT_S_MAX: Final = 60.0
SMALL_BYTES: Final = 64 * 1024  # an exchange that sent less is not worth counting
FORGET_S: Final = 600.0  # after the last offence
NODES_MAX: Final = 1024
SERVED_S: Final = 600.0
SERVED_COPIES_MAX: Final = 4  # of the whole journal, to one node, within SERVED_S
SERVED_BYTES_MIN: Final = 64 * 2**20  # what is small anyway and changes all the time may be asked for often
_DOUBLINGS_MAX: Final = 16


@dataclass(slots=True)
class _Standing:
    offences: int = 0
    shunned_until: float = 0.0
    fruitless: int = 0
    spacings: int = 0
    served: float = 0.0  # bytes, as of `served_at`; they fade within SERVED_S
    served_at: float = 0.0
    spaced_until: float = 0.0
    forget_at: float = 0.0


class Distrust:
    """What is held against other nodes."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, _Standing] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def shuns(self, now: float, node: bytes | None) -> bool:
        """Whether there are no exchanges with it now, whoever asks."""
        standing = self._known(now, node)
        return standing is not None and now < standing.shunned_until

    def spaces(self, now: float, node: bytes | None) -> bool:
        """Whether this node begins none with it now because its journal differs."""
        standing = self._known(now, node)
        return standing is not None and now < max(standing.shunned_until, standing.spaced_until)

    def offended(self, now: float, node: bytes | None, wait_s_max: float = OFFENCE_WAIT_S_MAX) -> None:
        """It did what no honest node does, or (up to REFUSED_WAIT_S_MAX) what hardly one does."""
        if node is None:
            return
        standing = self._of(now, node)
        standing.offences += 1
        standing.forget_at = now + FORGET_S
        if standing.offences > 1:
            wait_s = OFFENCE_WAIT_S * 2 ** min(standing.offences - 2, _DOUBLINGS_MAX)
            standing.shunned_until = max(standing.shunned_until, now + min(wait_s, wait_s_max))

    def weigh(self, now: float, exchange: Exchange, *, ended_well: bool, whole: Callable[[], int]) -> None:
        """Keep in mind what an exchange that is over cost and brought. `whole`: the bytes of the journal."""
        node, session = exchange.node, exchange.session
        if session is not None and session.bytes_sent > SMALL_BYTES:
            self.served(now, node, session.bytes_sent, whole())
        if exchange.refused:
            self.offended(now, node, REFUSED_WAIT_S_MAX)
        elif not ended_well or session is None:
            return
        elif exchange.taken:
            self.fruitful(node)
        elif session.records_heard:
            self.fruitless(now, node, KNOWN_COST)
        elif exchange.address is not None and not (exchange.with_members or session.records_served):
            self.fruitless(now, node, NOTHING_COST)

    def served(self, now: float, node: bytes | None, sent: int, whole: int) -> None:
        """It was sent so many bytes of a journal of `whole` bytes. Who asks for all of it again and again offends."""
        if node is None:
            return
        standing = self._of(now, node)
        standing.forget_at = max(standing.forget_at, now + SERVED_S)
        faded = max(0.0, 1.0 - (now - standing.served_at) / SERVED_S)
        standing.served = standing.served * faded + sent
        standing.served_at = now
        if standing.served > SERVED_COPIES_MAX * max(whole, SERVED_BYTES_MIN / SERVED_COPIES_MAX):
            self.offended(now, node, REFUSED_WAIT_S_MAX)

    def fruitful(self, node: bytes | None) -> None:
        """An exchange with it brought news."""
        standing = None if node is None else self._nodes.get(node)
        if standing is not None:
            standing.fruitless = standing.spacings = 0
            standing.spaced_until = 0.0

    def fruitless(self, now: float, node: bytes | None, cost: int) -> None:
        """An exchange with it came to its end and brought none."""
        if node is None:
            return
        standing = self._of(now, node)
        standing.fruitless += cost
        standing.forget_at = max(standing.forget_at, now + FRUITLESS_WAIT_S_MAX * 2)
        if standing.fruitless >= FRUITLESS_MAX:
            wait_s = FRUITLESS_WAIT_S * 2 ** min(standing.spacings, _DOUBLINGS_MAX)
            standing.spacings += 1
            standing.spaced_until = now + min(wait_s, FRUITLESS_WAIT_S_MAX)

    def _known(self, now: float, node: bytes | None) -> _Standing | None:
        standing = None if node is None else self._nodes.get(node)
        return standing if standing is not None and now < standing.forget_at else None

    def _of(self, now: float, node: bytes) -> _Standing:
        standing = self._known(now, node)
        if standing is None:
            self._nodes.pop(node, None)
            if len(self._nodes) >= NODES_MAX:
                del self._nodes[min(self._nodes, key=lambda each: self._nodes[each].forget_at)]
            standing = self._nodes[node] = _Standing()
        return standing
