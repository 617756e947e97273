"""One attempt at an epoch: everything that was said in it, and how far that goes.

An attempt is a set of statements, at most one for each (kind, sender, recipient), that only grows. What can be done
next follows from the set alone, so the order in which statements came, how often, and through whom does not matter.
Each stage waits for everybody in it:

    OPEN -> all DEAL -> all ECHO alike -> all SHARE -> all ACCEPT -> all PROVE -> the value
    dealers: DEAL, SHARE       receivers: ACCEPT, PROVE       both: ECHO       electors: watch all but the shares

What does not fit is left out of the stage that asks for it (and is so waited for in vain), with the statement that
shows its author what this node holds instead, so that of two statements made for different eyes one reaches the eye
it was not made for. What convicts is an accusation.

Invariant: nothing here signs, sends or stores; the same statements give the same stages.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from trust.ceremony.bodies import (
    Accepted,
    Dealt,
    Echoed,
    Opening,
    accepted_digest,
    decode_accepted,
    decode_dealt,
    decode_echoed,
    decode_proved,
    decode_shared,
)
from trust.ceremony.dkg import check_dealt, check_shared, group_of
from trust.ceremony.electorate import Electorate
from trust.ceremony.statement import Kind, Statement
from trust.epoch import Value, unproven
from trust.errors import CeremonyError, FrostError
from trust.frost import Commitment, Nonces, aggregate, new_nonces, sign_share, transcript
from trust.group import Scalar, Secret, scalar_sum
from trust.groupkey import GroupKey, KeyShare, identifier_of, node_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """Statements that convict the author of the last one."""

    parts: tuple[Statement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """`node` was told, or tells, something else than this."""

    node: bytes
    statement: Statement


class Attempt:
    """See the module's theory. `me` is this node's id."""

    def __init__(self, number: int, me: bytes, electorate: Electorate) -> None:
        self.number = number
        self.said: dict[tuple[Kind, bytes, bytes], Statement] = {}
        self.opened: Statement | None = None
        self.opening: Opening | None = None
        self.seed: bytes | None = None  # of this node's dealing
        self.findings: list[Wrong | Show] = []
        self.shown: set[tuple[bytes, bytes]] = set()  # to which node which statement, by its signature
        self.value: Value | None = None
        self.share: KeyShare | None = None
        self.nonces: Nonces | None = None
        self._me = me
        self._electorate = electorate
        self._dealt: dict[bytes, Dealt] = {}
        self._echoed: set[bytes] = set()
        self._shares: dict[bytes, Scalar] = {}
        self._accepted: dict[bytes, Accepted] = {}
        self._group: GroupKey | None = None
        self._looked: set[bytes] = set()  # signatures of statements that were judged
        self._liars: frozenset[bytes] = frozenset()  # their parts of the signature are wrong

    # -------------------------------------------------------------- who

    @property
    def deals(self) -> bool:
        """Whether this node is a dealer."""
        return self.opening is not None and self._me in self.opening.dealers

    @property
    def receives(self) -> bool:
        """Whether this node is to have a share."""
        return self.opening is not None and self._me in self.receivers

    @cached_property
    def receivers(self) -> tuple[bytes, ...]:
        """Node ids. Only of an attempt that is open."""
        assert self.opening is not None, "asked of an open attempt only"
        return self.opening.receiver_ids

    @cached_property
    def participants(self) -> frozenset[bytes]:
        """Node ids of dealers and receivers."""
        assert self.opening is not None, "asked of an open attempt only"
        return self.opening.participants

    @cached_property
    def opening_digest(self) -> bytes:
        """What dealings and shares name."""
        assert self.opened is not None, "asked of an open attempt only"
        return self.opened.digest

    def get(self, kind: Kind, node: bytes, recipient: bytes = b"") -> Statement | None:
        """What `node` said, if it did."""
        return self.said.get((kind, node, recipient))

    def put(self, statement: Statement) -> Statement | None:
        """Add a genuine statement of this attempt. A different one at the same place stays, and is returned."""
        place = (statement.kind, statement.node, statement.recipient)
        known = self.said.setdefault(place, statement)
        return known if known.body != statement.body else None

    # -------------------------------------------------------------- stages

    def dealings(self) -> Echoed | None:
        """All dealings, checked; None while one is missing or wrong."""
        if self.opening is None or not self.opening.dealers:
            return None
        for node in self.opening.dealers:
            statement = self.get(Kind.DEAL, node)
            if node not in self._dealt and statement is not None and self._news(statement):
                self._check_dealing(statement)
        if len(self._dealt) < len(self.opening.dealers):
            return None
        return Echoed(opening=self.opening_digest, dealings=tuple(
            statement.digest for node in self.opening.dealers if (statement := self.get(Kind.DEAL, node))
        ))  # fmt: skip

    def agreed(self) -> Echoed | None:
        """The dealings, once all participants have echoed the same; None before."""
        mine = self.dealings()
        if mine is None:
            return None
        for node in self.participants - self._echoed:
            statement = self.get(Kind.ECHO, node)
            if statement is not None and self._news(statement):
                self._check_echo(statement, mine)
        return mine if len(self._echoed) == len(self.participants) else None

    def received(self) -> bool:
        """Whether all shares for this node are here and right. Then `share` is its share of the new key."""
        if self.share is not None:
            return True
        assert self.opening is not None, "asked of an open attempt only"
        assert self.receives, "asked of a receiver only"
        for node in self.opening.dealers:
            statement = self.get(Kind.SHARE, node, self._me)
            if node not in self._shares and statement is not None and self._news(statement):
                self._check_share(statement)
        group = self.group()
        if len(self._shares) < len(self.opening.dealers) or group is None:
            return False
        self.share = KeyShare(group, identifier_of(self._me), Secret(scalar_sum(self._shares.values())))
        return True

    def group(self) -> GroupKey | None:
        """The key that the dealings make; None if they make none."""
        if self._group is None and self.opening is not None and self.dealings() is not None:
            try:
                self._group = group_of(self._dealt, self.receivers, self._electorate)
            except CeremonyError:
                return (
                    None  # the constants cancel out: nobody's provable fault; the next attempt draws others
                )
        return self._group

    def accept(self, entropy: Callable[[int], bytes]) -> Accepted:
        """This receiver's acceptance, with fresh nonces that live in memory only."""
        mine = self.dealings()
        assert mine is not None, "accepted after the dealings"
        assert self.share is not None, "accepted after all shares"
        self.nonces = new_nonces(self.share, entropy)
        commitment = self.nonces.commitment
        return Accepted(transcript=mine.transcript, hiding=commitment.hiding, binding=commitment.binding)

    def accepted(self) -> bytes | None:
        """The digest of all acceptances, once they are there and of one transcript; None before."""
        mine = self.dealings()
        if mine is None or self.opening is None:
            return None
        for node in self.receivers:
            statement = self.get(Kind.ACCEPT, node)
            if node not in self._accepted and statement is not None and self._news(statement):
                said = decode_accepted(statement.body)
                if said.transcript == mine.transcript:
                    self._accepted[node] = said
        if len(self._accepted) < len(self.receivers):
            return None
        return accepted_digest(self._of(Kind.ACCEPT, self.receivers))

    def prove(self) -> Scalar | None:
        """This receiver's share of the new group's signature; uses up its nonces. None if that cannot be."""
        unsigned = self._unsigned()
        if unsigned is None or self.share is None or self.nonces is None:
            return None
        nonces, self.nonces = self.nonces, None
        try:
            return sign_share(self.share, nonces, unsigned.signing_bytes(), self._commitments())
        except FrostError:
            return None

    def proven(self) -> Value | None:
        """The value, once the new group's signature is there; None before."""
        if self.value is not None:
            return self.value
        digest, unsigned = self.accepted(), self._unsigned()
        if digest is None or unsigned is None:
            return None
        shares: dict[Scalar, bytes] = {}
        for node in self.receivers:
            statement = self.get(Kind.PROVE, node)
            if statement is None:
                return None
            said = decode_proved(statement.body)
            if said.accepted == digest:
                shares[identifier_of(node)] = said.share
            elif self._news(statement):
                # One of us was shown another acceptance by somebody: show which ones are held here.
                self.findings += [
                    Show(node=node, statement=each) for each in self._of(Kind.ACCEPT, self.receivers)
                ]
        if len(shares) < len(self.receivers):
            return None
        proof = self._aggregate(unsigned, shares)
        if proof is None:
            return None
        self.value = unproven(self._electorate, unsigned.group, unsigned.keys, proof)
        return self.value

    # -------------------------------------------------------------- what is missing

    def awaited(self) -> frozenset[bytes]:
        """Whom the attempt waits for: node ids. Nobody before it is open."""
        if self.opening is None or not self.opening.dealers or self.value is not None:
            return frozenset()
        if self.dealings() is None:
            return frozenset(self.opening.dealers) - self._dealt.keys()
        if self.agreed() is None:
            return self.participants - self._echoed
        if self.receives and not self.received():
            return frozenset(self.opening.dealers) - self._shares.keys()
        if self.accepted() is None:
            return frozenset(self.receivers) - self._accepted.keys()
        return frozenset(node for node in self.receivers if self.get(Kind.PROVE, node) is None) | self._liars

    def wipe(self) -> None:
        """Forget what is secret."""
        self.seed = None
        if self.nonces is not None:
            self.nonces.wipe()

    # -------------------------------------------------------------- checks

    def _news(self, statement: Statement) -> bool:
        if statement.signature in self._looked:
            return False
        self._looked.add(statement.signature)
        return True

    def _check_dealing(self, statement: Statement) -> None:
        assert self.opening is not None, "dealings answer an opening"
        assert self.opened is not None, "an opening is a statement"
        dealt = decode_dealt(statement.body)
        if dealt.opening != self.opening_digest:
            self.findings.append(Show(node=statement.node, statement=self.opened))
            return
        try:
            check_dealt(dealt, statement.node, self.opening, self.opening_digest, self._electorate)
        except CeremonyError:
            self.findings.append(Wrong(parts=(self.opened, statement)))
            return
        self._dealt[statement.node] = dealt

    def _check_echo(self, statement: Statement, mine: Echoed) -> None:
        assert self.opening is not None, "echoes answer an opening"
        assert self.opened is not None, "an opening is a statement"
        said = decode_echoed(statement.body)
        if said == mine:
            self._echoed.add(statement.node)
        elif said.opening != mine.opening:
            self.findings.append(Show(node=statement.node, statement=self.opened))
        else:
            pairs = zip(self.opening.dealers, said.dealings, mine.dealings, strict=False)
            for dealer, theirs, ours in pairs:
                held = self.get(Kind.DEAL, dealer)
                if theirs != ours and held is not None:
                    self.findings.append(Show(node=statement.node, statement=held))

    def _check_share(self, statement: Statement) -> None:
        assert self.opened is not None, "shares follow an opening"
        node, shared = statement.node, decode_shared(statement.body)
        if node not in self._dealt or shared.opening != self.opening_digest:
            self._looked.discard(statement.signature)
            return
        try:
            self._shares[node] = check_shared(shared.share, self._dealt[node], self._me)
        except CeremonyError:
            deal = self.get(Kind.DEAL, node)
            assert deal is not None, "a share is checked against its dealing"
            self.findings.append(Wrong(parts=(self.opened, deal, statement)))

    def _of(self, kind: Kind, nodes: Iterable[bytes]) -> list[Statement]:
        return [statement for node in nodes if (statement := self.get(kind, node)) is not None]

    def _unsigned(self) -> Value | None:
        if self.opening is None or self.accepted() is None or (group := self.group()) is None:
            return None
        return unproven(self._electorate, group, self.opening.receivers)

    def _commitments(self) -> list[Commitment]:
        return [
            Commitment(identifier=identifier_of(node), hiding=said.hiding, binding=said.binding)
            for node, said in self._accepted.items()
        ]

    def _aggregate(self, unsigned: Value, shares: dict[Scalar, bytes]) -> bytes | None:
        if self._liars:
            return None
        try:
            agreed = transcript(unsigned.group, unsigned.signing_bytes(), self._commitments())
            return aggregate(agreed, shares)
        except FrostError as error:
            self._liars = frozenset(node_of(identifier) for identifier in error.culprits)
            return None
