"""What a statement is worth, and what it changes.

Every claim about a member is weighed here, whoever carried it: in a datagram, in an introduction, over a stream.
SWIM's order of precedence (section 4.2) becomes a comparison of ranks, and a claim counts only with the signature
of who may make it:

- Alive and Left: the subject's, under a credential the mesh root signed.
- Suspect: the accuser's, a member; for exactly the rank the subject has signed, so nobody can accuse ahead of time.
- Dead: as many Suspects as this node would itself call corroborated, known here for long enough that they could
  have been refuted. Fewer, or sooner, they are just that: suspicions, which start or shorten the timer here. A node's
  own timer running out condemns too; that verdict others have to reach alike.
  One that is part of a whole view (a stream) may be from beyond a partition that has just healed: a member alive here
  becomes a suspect by it, and is told at once (`summoned`), so that the other side's dead come back and take nobody
  of this side with them. Only of a member that the stream itself has just told of it is believed as it is.

The subject of an accusation refutes it by signing a higher incarnation. A verdict OLD or AHEAD lets the engine repair
whoever is behind: the sender gets what is newer, or this node asks for it.

Invariant: a member's rank never falls; its state changes only by TRANSITIONS; `evidence` is for the present rank.
"""

from dataclasses import replace
from typing import Final, assert_never

from gossip.accusation import Accusations, Verdict
from gossip.broadcast import Broadcasts
from gossip.config import GossipConfig
from gossip.crypto import Crypto
from gossip.entry import NO_EVIDENCE, Entry, Link
from gossip.errors import ForgedError
from gossip.health import LocalHealth
from gossip.member import TRANSITIONS, Event, Member, State
from gossip.moves import Change, Moves
from gossip.presence import RANK_MAX, Presence
from gossip.roster import Roster
from gossip.statement import Alive, Dead, Left, Statement, Suspect
from gossip.suspicion import Suspicions
from trust.credential import Credential, decode_credential
from trust.errors import TrustError
from trust.identity import format_id
from trust.roots import Root

STREAMED_TOLD_MAX: Final = 64  # while more waits to be told, what streams bring spreads by streams
HEARSAY_S: Final = 5.0  # a member told of by a stream is known from nothing else for this long


class Judge:
    """Applies statements to the roster and queues what should be told on."""

    __slots__ = (
        "_broadcasts",
        "_config",
        "_crypto",
        "_health",
        "_presence",
        "_roster",
        "_trust_root",
        "accusations",
        "evicted",
        "moves",
        "suspicions",
    )

    def __init__(
        self,
        *,
        config: GossipConfig,
        presence: Presence,
        roster: Roster,
        broadcasts: Broadcasts,
        health: LocalHealth,
        trust_root: Root,
        crypto: Crypto,
    ) -> None:
        self._config = config
        self._presence = presence
        self._roster = roster
        self._broadcasts = broadcasts
        self._health = health
        self._trust_root = trust_root
        self._crypto = crypto
        self.suspicions = Suspicions(config, roster, health)
        self.evicted: dict[bytes, str] = {}
        self.moves = Moves(
            presence=presence, roster=roster, broadcasts=broadcasts, suspicions=self.suspicions
        )
        self.accusations = Accusations(
            config=config,
            presence=presence,
            roster=roster,
            broadcasts=broadcasts,
            health=health,
            crypto=crypto,
            suspicions=self.suspicions,
            moves=self.moves,
            evicted=self.evicted,
        )

    def hear(self, now: float, statement: Statement, *, streamed: bool = False) -> Verdict:
        """Weigh one statement. Raises ForgedError if it is not signed by who must sign it; then nothing changed.
        `streamed` says that it is part of a whole view, not news: perhaps one from beyond a partition."""
        match statement:
            case Alive():
                return self._alive(now, statement, streamed=streamed)
            case Suspect():
                return self.accusations.hear(now, statement, (statement,), at_once=False)
            case Dead():
                return self.accusations.hear(now, statement, statement.suspicions, at_once=not streamed)
            case Left():
                return self._left(now, statement, streamed=streamed)
        assert_never(statement)

    # ------------------------------------------------------------ the subject's own word
    def verified(self, now: float, alive: Alive) -> Credential | None:
        """The credential that makes `alive` true; None if it is slim and this node lacks it. Raises ForgedError."""
        if alive.node in self.evicted:
            raise ForgedError(f"{format_id(alive.node)} is evicted")
        entry = self._roster.get(alive.node)
        if entry is not None and entry.alive.credential_digest == alive.credential_digest:
            credential = entry.member.credential
            if now >= credential.expires_at:
                raise ForgedError(f"the credential of {credential.name} has expired")
        elif alive.credential:
            try:
                credential = decode_credential(alive.credential)
                self._crypto.verify_credential(
                    credential, self._trust_root, self._presence.credential.trust_domain, int(now)
                )
            except TrustError as error:
                raise ForgedError(str(error)) from error
            if credential.node != alive.node:
                raise ForgedError(f"{format_id(alive.node)} shows the credential of another node")
        else:
            return None
        if not self._crypto.verify(credential.public_key, alive.signing_bytes(), alive.signature):
            raise ForgedError(f"an Alive not signed by {credential.name}")
        return credential

    def _alive(self, now: float, alive: Alive, *, streamed: bool) -> Verdict:
        if alive.node == self._presence.id:
            return self._own(now, alive)
        entry = self._roster.get(alive.node)
        if entry is not None and alive.rank <= entry.member.rank:
            return Verdict.KNOWN
        credential = self.verified(now, alive)
        if credential is None:
            return Verdict.AHEAD
        if entry is None:
            return Verdict.NEWS if self.admit(now, alive, credential, streamed=streamed) else Verdict.KNOWN
        if not alive.credential:
            alive = replace(alive, credential=entry.alive.credential)
        news = credential is not entry.member.credential or alive.boot > entry.member.boot
        member = self._member(now, alive, credential, entry.member)
        entry.alive, entry.encoded, entry.left = alive, alive.encode(), None
        entry.evidence = NO_EVIDENCE
        self.suspicions.drop(alive.node)
        if alive.boot > entry.link.boot:
            entry.link.enter(alive.boot)
        self.moves.move(entry, member)
        if not streamed or len(self._broadcasts.updates) < STREAMED_TOLD_MAX:
            self._broadcasts.tell(alive.node, "alive", entry.encoded if news else alive.slim().encode())
        return Verdict.NEWS

    def admit(
        self, now: float, alive: Alive, credential: Credential, *, streamed: bool = False
    ) -> Entry | None:
        """Take in a member never heard of, whose Alive was verified. None if there is no room. One that a stream
        told of is not told on: the others know it, or find out that their lists differ."""
        if streamed and self._roster.full:
            return None  # room is made for who shows itself; two full lists would push out each other's dead for ever
        member = self._member(now, alive, credential, None)
        link = Link(boot=alive.boot)
        entry = Entry(member=member, alive=alive, encoded=alive.encode(), link=link)
        displaced = self.moves.displaced(member)
        if not self._roster.add(entry):
            return None
        self.moves.changes.append(Change(entry, member, None, displaced))
        if streamed:
            entry.hearsay_until = now + HEARSAY_S
        else:
            self.moves.urgent = True
            self._broadcasts.tell(alive.node, "alive", entry.encoded)
        return entry

    def _member(self, now: float, alive: Alive, credential: Credential, before: Member | None) -> Member:
        state = State.ALIVE if before is None else TRANSITIONS[before.state, Event.ANNOUNCED]
        return Member(
            id=alive.node,
            name=credential.name,
            address=alive.address,
            state=state,
            incarnation=alive.incarnation,
            boot=alive.boot,
            zone=alive.zone,
            meta=dict(alive.meta),
            credential=credential,
            since=before.since if before is not None and before.state is state else now,
        )

    def _left(self, now: float, left: Left, *, streamed: bool) -> Verdict:
        if left.subject == self._presence.id:
            return self._own(now, left)
        entry = self._roster.get(left.subject)
        if entry is None:
            return Verdict.KNOWN  # who left before this node ever heard of it need not be known
        if left.rank < entry.member.rank:
            return Verdict.OLD
        if left.subject in self.evicted or (entry.left is not None and left.rank == entry.left.rank):
            return Verdict.KNOWN
        if not self._crypto.verify(entry.member.credential.public_key, left.signing_bytes(), left.signature):
            raise ForgedError(f"a Left not signed by {entry.member.name}")
        entry.left = left
        entry.evidence = NO_EVIDENCE
        boot, incarnation = left.rank
        self.moves.transit(now, entry, Event.DEPARTED, boot=boot, incarnation=incarnation)
        if not streamed or len(self._broadcasts.updates) < STREAMED_TOLD_MAX:
            self._broadcasts.tell(left.subject, "left", left.encode())
        return Verdict.NEWS

    def _own(self, now: float, statement: Alive | Left) -> Verdict:
        """This node's own word comes back. Above its rank it must be of an earlier life: rise above that."""
        presence = self._presence
        if statement.rank < presence.rank:
            return Verdict.OLD
        if statement.rank == presence.rank and (isinstance(statement, Alive) or presence.left is not None):
            return Verdict.KNOWN
        if not self._crypto.verify(
            presence.identity.public_key, statement.signing_bytes(), statement.signature
        ):
            raise ForgedError("a statement in this node's name that it never signed")
        if statement.rank >= RANK_MAX:
            return Verdict.KNOWN  # there is nothing above it
        if presence.left is None:
            presence.announce(above=statement.rank)
            self.moves.tell_own(whole=True)
        return Verdict.NEWS

    # ------------------------------------------------------------ time, revocation
    def condemn_due(self, now: float) -> None:
        """Turn the suspicions that ran out into verdicts."""
        for entry in self.suspicions.due(now):
            self.accusations.condemn(now, entry)

    def delay(self, lag_s: float) -> None:
        """This node was not running for `lag_s`: refutations may be waiting to be read."""
        self.suspicions.delay(lag_s)

    def evict(self, now: float, node: bytes, reason: str) -> None:
        """`node` was revoked. The oldest eviction is forgotten beyond the bound; the node tells it again if asked."""
        if node == self._presence.id or node in self.evicted:
            return
        self.evicted[node] = reason
        if len(self.evicted) > self._config.evicted_max:
            del self.evicted[next(iter(self.evicted))]
        entry = self._roster.get(node)
        if entry is not None:
            entry.evidence = NO_EVIDENCE
            self.moves.transit(now, entry, Event.EVICTED)
            self._roster.mourn_no_more(node)
        self._broadcasts.forget(node)
        for suspect in [entry for entry in self.suspicions.entries() if node in entry.evidence]:
            self._withdraw(now, suspect, node)

    def _withdraw(self, now: float, entry: Entry, accuser: bytes) -> None:
        """An accusation counts no more: its accuser was revoked."""
        entry.evidence = {who: s for who, s in entry.evidence.items() if who != accuser}
        if entry.evidence:
            self.suspicions.note(entry, now)
        else:
            self.moves.transit(now, entry, Event.ACQUITTED)

    def reap(self, now: float) -> None:
        """Members whose credential expired are dead, and after a grace gone."""
        expired, gone = self._roster.expiring(now, self._config.reap_grace_s)
        for entry in expired:
            self.moves.transit(now, entry, Event.EXPIRED)
            self._roster.withdraw(entry)
        for entry in gone:
            self._roster.remove(entry.member.id)

    def truth(self, subject: bytes) -> list[bytes]:
        """What to tell someone whose news about `subject` is old."""
        entry = self._roster.get(subject)
        if entry is None or subject in self.evicted:
            return []
        return [entry.alive.slim().encode(), *entry.proofs()]
