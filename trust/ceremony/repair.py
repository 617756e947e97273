"""Giving a signer its lost share back, without a new epoch: a pure machine at each signer (mathematics in `repair`).

The signer that lost its share names t others and a session; each of them cuts its contribution into pieces for these
t, and sends it the sum of the pieces it got. The share is checked against the group key. When it is wrong, or
somebody is silent, another set of helpers is tried under another session, all sets in turn; nothing tells who lied,
so with one liar it takes t honest helpers besides the loser and the liar.

A helper serves only the owner of a share, as the stream authenticates it, and only the group of this epoch. It keeps
the pieces of a session in memory, so that a request that comes twice is answered with the same ones; after a crash it
knows nothing of the session, and the loser goes on to the next. Refresh (`resharing`) restores lost shares too, and
changes all others: repair is for when the group should stay as it is.

Invariant: pieces and sums go to those they are for; a machine never sends its share or its whole contribution.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final, TypeAlias, assert_never

from trust.ceremony.bodies import cut as pieces_of
from trust.ceremony.electorate import SIGNERS_MAX
from trust.ceremony.events import Received, Rejected, Send, Tick
from trust.codec import Reader, pack
from trust.errors import AuthorityError, CeremonyError, DealingError, GroupError
from trust.group import SCALAR_BYTES, Scalar, decode_scalar
from trust.groupkey import GroupKey, KeyShare, identifier_of, node_of
from trust.identity import ID_BYTES
from trust.repair import cut, gather, restore

SESSION_BYTES: Final = 16
REPAIR_BYTES_MAX: Final = 1024
SESSIONS_MAX: Final = 8  # that a helper remembers; the oldest goes
TRY_S: Final = 3.0

_NAME: Final = b"gossamer/repair/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """This node's share is back, and right. Store it."""

    share: KeyShare


Input: TypeAlias = Received | Tick
Output: TypeAlias = Send | Rejected | Restored


@dataclass(slots=True)
class _Session:
    """What a helper holds of one request."""

    loser: bytes
    helpers: tuple[bytes, ...]
    own: dict[bytes, Scalar] = field(repr=False)  # pieces this helper cut, by who is to get them
    got: dict[bytes, Scalar] = field(repr=False)  # pieces cut for this helper, by who cut them


class Repair:
    """See the module's theory. `share` is None on the signer that lost it."""

    def __init__(
        self,
        *,
        me: bytes,
        group: GroupKey,
        share: KeyShare | None,
        entropy: Callable[[int], bytes],
        try_s: float = TRY_S,
    ) -> None:
        self._me, self._group, self._share = me, group, share
        self._entropy, self._try_s = entropy, try_s
        self._signers = tuple(sorted(node_of(identifier) for identifier in group.identifiers))
        assert me in self._signers, "only signers repair shares"
        self.name: bytes = hashlib.sha256(_NAME + group.encode()).digest()
        self._sessions: dict[tuple[bytes, bytes], _Session] = {}
        # Pieces may come before the request they belong to.
        self._early: dict[tuple[bytes, bytes, bytes], Scalar] = {}
        self._tries = -1
        self._session = b""
        self._helpers: tuple[bytes, ...] = ()
        self._sums: dict[bytes, Scalar] = {}
        self._next_try = 0.0

    @property
    def deadline(self) -> float | None:
        """When `Tick` is due; None on a signer that has its share."""
        return None if self._share is not None else self._next_try

    def step(self, now: float, given: Input) -> list[Output]:
        """What `given` leads to."""
        out: list[Output] = []
        match given:
            case Received():
                try:
                    out += self._receive(now, given.node, given.data)
                except (CeremonyError, DealingError, GroupError) as error:
                    out.append(Rejected(node=given.node, reason=str(error)))
            case Tick():
                pass
            case _:
                assert_never(given)
        if self._share is None and now >= self._next_try:
            out += self._try(now)
        return out

    def __repr__(self) -> str:
        return f"Repair(epoch={self._group.epoch}, lost={self._share is None}, tries={self._tries + 1})"

    def _try(self, now: float) -> list[Output]:
        others = [node for node in self._signers if node != self._me]
        sets = list(combinations(others, self._group.threshold))
        if not sets:
            self._next_try = float("inf")
            return []
        self._tries += 1
        self._next_try = now + self._try_s
        self._helpers = sets[self._tries % len(sets)]
        self._session, self._sums = self._entropy(SESSION_BYTES), {}
        ask = pack(["ask", self._session, b"".join(self._helpers), b""])
        return [self._send(node, ask) for node in self._helpers]

    def _receive(self, now: float, node: bytes, data: bytes) -> list[Output]:
        if data[: len(self.name)] != self.name:
            raise CeremonyError("the repair is of another group")
        if node not in self._signers or node == self._me:
            raise CeremonyError("shares are repaired among signers")
        reader = Reader(
            data[len(self.name) :], count=4, bytes_max=REPAIR_BYTES_MAX, what="a repair", error=CeremonyError
        )
        sort, session = reader.text(5), reader.raw(SESSION_BYTES)
        nodes, scalar = reader.blob(SIGNERS_MAX * ID_BYTES), reader.blob(SCALAR_BYTES)
        match sort:
            case "ask":
                return self._help(node, session, pieces_of(nodes, ID_BYTES))
            case "piece" if len(nodes) == ID_BYTES:
                return self._piece(node, session, nodes, decode_scalar(scalar, zero_ok=True))
            case "sum":
                return self._sum(now, node, session, decode_scalar(scalar, zero_ok=True))
            case _:
                raise CeremonyError("repairs know no such message")

    # -------------------------------------------------------------- a helper

    def _help(self, loser: bytes, session: bytes, helpers: tuple[bytes, ...]) -> list[Output]:
        self._check_helpers(loser, helpers)
        if self._share is None:
            raise CeremonyError("this signer has lost its share too")
        known = self._sessions.get((loser, session))
        if known is None:
            identifiers = [identifier_of(node) for node in helpers]
            pieces = cut(self._share, identifiers, identifier_of(loser), self._entropy)
            own = {node_of(identifier): piece for identifier, piece in pieces.items()}
            got = {self._me: own[self._me]}
            got |= {
                each: self._early.pop((loser, session, each))
                for each in helpers
                if (loser, session, each) in self._early
            }
            known = _Session(loser=loser, helpers=helpers, own=own, got=got)
            while len(self._sessions) >= SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[loser, session] = known
        elif known.helpers != helpers:
            raise CeremonyError("one session of a repair has one set of helpers")
        out: list[Output] = [
            self._send(node, pack(["piece", session, loser, known.own[node]]))
            for node in helpers
            if node != self._me
        ]
        return out + self._summed(session, known)

    def _check_helpers(self, loser: bytes, helpers: tuple[bytes, ...]) -> None:
        others = set(self._signers) - {loser}
        if len(helpers) != self._group.threshold or helpers != tuple(sorted(set(helpers))):
            raise CeremonyError(f"a repair takes {self._group.threshold} helpers, in order")
        if self._me not in helpers or not set(helpers) <= others:
            raise CeremonyError("the helpers of a repair are other signers, and this one among them")

    def _piece(self, node: bytes, session: bytes, loser: bytes, piece: Scalar) -> list[Output]:
        known = self._sessions.get((loser, session))
        if known is None:
            while len(self._early) >= SESSIONS_MAX * SIGNERS_MAX:
                del self._early[next(iter(self._early))]
            self._early[loser, session, node] = piece
            return []
        if node not in known.helpers:
            raise CeremonyError("a piece is of a signer that does not help")
        known.got.setdefault(node, piece)
        return self._summed(session, known)

    def _summed(self, session: bytes, known: _Session) -> list[Output]:
        if len(known.got) < len(known.helpers):
            return []
        return [self._send(known.loser, pack(["sum", session, b"", gather(known.got.values())]))]

    # -------------------------------------------------------------- the loser

    def _sum(self, now: float, node: bytes, session: bytes, total: Scalar) -> list[Output]:
        if self._share is not None or session != self._session or node not in self._helpers:
            return []
        self._sums.setdefault(node, total)
        if len(self._sums) < len(self._helpers):
            return []
        try:
            self._share = restore(self._group, identifier_of(self._me), self._sums.values())
        except AuthorityError:
            self._next_try = now  # one of these lied: on to the next set
            return []
        return [Restored(share=self._share)]

    def _send(self, node: bytes, content: bytes) -> Send:
        return Send(node=node, data=self.name + content)
