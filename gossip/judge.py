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

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, assert_never

from gossip.broadcast import Broadcasts
from gossip.config import GossipConfig
from gossip.crypto import Crypto
from gossip.errors import ForgedError
from gossip.health import LocalHealth
from gossip.member import TRANSITIONS, Event, Member, State
from gossip.presence import RANK_MAX, Presence
from gossip.roster import NO_EVIDENCE, Entry, Link, Roster
from gossip.statement import Alive, Dead, Left, Statement, Suspect, sign_suspect
from gossip.suspicion import Suspicions, accusers_needed
from trust.credential import Credential, decode_credential
from trust.errors import TrustError
from trust.identity import format_id

STREAMED_TOLD_MAX: Final = 64  # while more waits to be told, what streams bring spreads by streams
HEARSAY_S: Final = 5.0  # a member told of by a stream is known from nothing else for this long


class Verdict(Enum):
    NEWS = "news"  # something changed
    KNOWN = "known"  # nothing new
    OLD = "old"  # the claim is about a rank that is over: who made it is behind
    AHEAD = "ahead"  # it is about something not known here: this node is behind


@dataclass(frozen=True, slots=True)
class Change:
    """`entry` became `member` coming from state `previous` (None: it is new). `displaced` lived at its address."""

    entry: Entry
    member: Member
    previous: State | None
    displaced: Member | None = None


class Judge:
    """Applies statements to the roster and queues what should be told on. The engine drains `changes`, `urgent`."""

    def __init__(
        self,
        *,
        config: GossipConfig,
        presence: Presence,
        roster: Roster,
        broadcasts: Broadcasts,
        health: LocalHealth,
        trust_root: bytes,
        crypto: Crypto,
    ) -> None:
        self._config = config
        self._presence = presence
        self._roster = roster
        self._broadcasts = broadcasts
        self._health = health
        self._trust_root = trust_root
        self._crypto = crypto
        self._suspicions = Suspicions(config, roster, health)
        self.summoned: list[Entry] = []
        self.evicted: dict[bytes, str] = {}
        self.changes: list[Change] = []
        self.urgent = False
        self.refutations = 0

    def hear(self, now: float, statement: Statement, *, streamed: bool = False) -> Verdict:
        """Weigh one statement. Raises ForgedError if it is not signed by who must sign it; then nothing changed.
        `streamed` says that it is part of a whole view, not news: perhaps one from beyond a partition."""
        match statement:
            case Alive():
                return self._alive(now, statement, streamed=streamed)
            case Suspect():
                return self._accused(now, statement, (statement,), at_once=False)
            case Dead():
                return self._accused(now, statement, statement.suspicions, at_once=not streamed)
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
        self._suspicions.drop(alive.node)
        if alive.boot > entry.link.boot:
            entry.link.enter(alive.boot)
        self._move(entry, member)
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
        displaced = self._displaced(member)
        if not self._roster.add(entry):
            return None
        self.changes.append(Change(entry, member, None, displaced))
        if streamed:
            entry.hearsay_until = now + HEARSAY_S
        else:
            self.urgent = True
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
        self._transit(now, entry, Event.DEPARTED, boot=boot, incarnation=incarnation)
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
            self._tell_own(whole=True)
        return Verdict.NEWS

    # ------------------------------------------------------------ accusations
    def _accused(
        self, now: float, claim: Suspect | Dead, suspicions: tuple[Suspect, ...], *, at_once: bool
    ) -> Verdict:
        if claim.subject == self._presence.id:
            return self._refute(claim.rank)
        if claim.subject in self.evicted:
            return Verdict.KNOWN
        entry = self._roster.get(claim.subject)
        if entry is None or claim.rank > entry.member.rank:
            return Verdict.AHEAD
        if claim.rank < entry.member.rank:
            return Verdict.OLD
        if not entry.member.live:
            return Verdict.KNOWN
        valid = self._verified_suspicions(entry, suspicions)
        verdict = Verdict.AHEAD if valid is None else Verdict.KNOWN
        was_alive = entry.member.state is State.ALIVE
        for suspicion in valid or ():
            if self._testify(now, entry, suspicion, spread=at_once or isinstance(claim, Suspect)):
                verdict = Verdict.NEWS
        if isinstance(claim, Suspect):
            return verdict
        hearsay = now < entry.hearsay_until
        needed = accusers_needed(self._config, self._could_accuse(entry))
        had_its_time = now - entry.accused_at >= self._config.refutation_s
        if ((at_once and had_its_time) or hearsay) and len(entry.evidence) >= needed:
            self._condemn(now, entry, spread=at_once)
            return Verdict.NEWS
        if not at_once and was_alive and entry.evidence:
            self.summoned.append(
                entry
            )  # alive as far as was known here: it is asked before it is believed dead
        return verdict

    def _could_accuse(self, entry: Entry) -> int:
        """Members that may have accused `entry`. Suspects count, and so do accusers that are gone since: else one
        member could suspect all others and leave, and would be all the evidence there can be."""
        known = (self._roster.member(accuser) for accuser in entry.evidence)
        gone = sum(member is not None and not member.live for member in known)
        return self._roster.size - 1 + gone

    def _verified_suspicions(self, entry: Entry, suspicions: tuple[Suspect, ...]) -> list[Suspect] | None:
        """Those not yet in evidence whose signatures hold; None if all of them are of members unknown here. Raises
        ForgedError if any signature is wrong."""
        valid, unknown = [], 0
        for suspicion in suspicions:
            if suspicion.accuser in entry.evidence or suspicion.accuser == entry.member.id:
                continue
            if suspicion.accuser in self.evicted and len(suspicions) > 1:
                continue  # one of several that make a Dead true was revoked: the others still count
            key = self._accuser_key(suspicion.accuser)
            if key is None:
                unknown += 1
            elif self._crypto.verify(key, suspicion.signing_bytes(), suspicion.signature):
                valid.append(suspicion)
            else:
                raise ForgedError(f"a Suspect not signed by {format_id(suspicion.accuser)}")
        return None if unknown and not valid else valid

    def _accuser_key(self, accuser: bytes) -> bytes | None:
        """The key an accusation must verify under. Raises ForgedError for an accuser that may not accuse."""
        if accuser == self._presence.id:
            return self._presence.identity.public_key
        if accuser in self.evicted:
            raise ForgedError(f"{format_id(accuser)} accuses, but is evicted")
        entry = self._roster.get(accuser)
        return None if entry is None else entry.member.credential.public_key

    def _refute(self, rank: tuple[int, int]) -> Verdict:
        """Answer an accusation of this node. Whether it is well signed does not matter: each rank is refuted once,
        and any member could sign one."""
        presence = self._presence
        if rank < presence.rank:
            return Verdict.OLD
        if rank > presence.rank:
            return Verdict.AHEAD
        if presence.left is not None:
            return Verdict.KNOWN
        presence.announce()
        self._health.adjust(1)
        self.refutations += 1
        self._tell_own(whole=False)
        return Verdict.NEWS

    def accuse(self, now: float, entry: Entry) -> None:
        """This node's own probe of a live member failed."""
        if entry.member.live and self._presence.id not in entry.evidence:
            suspicion = sign_suspect(self._presence.identity, subject=entry.member.id, rank=entry.member.rank)
            self._testify(now, entry, suspicion)

    def _testify(self, now: float, entry: Entry, suspicion: Suspect, *, spread: bool = True) -> bool:
        """Count one verified suspicion; False if there are enough. Only that many are told on (Lifeguard, 3.2)."""
        if len(entry.evidence) > self._config.confirmations:
            return False
        entry.evidence = {**entry.evidence, suspicion.accuser: suspicion}
        entry.accused_at = now
        if entry.member.state is not State.SUSPECT:
            entry.suspected_at = now
            self._transit(now, entry, Event.SUSPECTED)
        self._suspicions.note(entry, now)
        if spread:
            subject = entry.member.id
            self._broadcasts.tell(subject, "suspect", suspicion.encode(), accuser=suspicion.accuser)
        return True

    def _condemn(self, now: float, entry: Entry, *, spread: bool = True) -> None:
        self._transit(now, entry, Event.CONDEMNED)
        (proof,) = entry.proofs()  # a member condemned was accused
        if spread:
            self._broadcasts.tell(entry.member.id, "dead", proof)

    # ------------------------------------------------------------ time, revocation
    @property
    def deadline(self) -> float | None:
        """When the next suspicion runs out, as things stand."""
        return self._suspicions.deadline

    @property
    def suspecting(self) -> bool:
        """Whether any suspicion runs."""
        return bool(self._suspicions)

    def condemn_due(self, now: float) -> None:
        """Turn the suspicions that ran out into verdicts."""
        for entry in self._suspicions.due(now):
            self._condemn(now, entry)

    def delay(self, lag_s: float) -> None:
        """This node was not running for `lag_s`: refutations may be waiting to be read."""
        self._suspicions.delay(lag_s)

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
            self._transit(now, entry, Event.EVICTED)
        self._broadcasts.forget(node)
        for suspect in [entry for entry in self._suspicions.entries() if node in entry.evidence]:
            self._withdraw(now, suspect, node)

    def _withdraw(self, now: float, entry: Entry, accuser: bytes) -> None:
        """An accusation counts no more: its accuser was revoked."""
        entry.evidence = {who: s for who, s in entry.evidence.items() if who != accuser}
        if entry.evidence:
            self._suspicions.note(entry, now)
        else:
            self._transit(now, entry, Event.ACQUITTED)

    def reap(self, now: float) -> None:
        """Members whose credential expired are dead, and after a grace gone."""
        expired, gone = self._roster.expiring(now, self._config.reap_grace_s)
        for entry in expired:
            self._transit(now, entry, Event.EXPIRED)
            self._roster.withdraw(entry)
        for entry in gone:
            self._roster.remove(entry.member.id)

    def truth(self, subject: bytes) -> list[bytes]:
        """What to tell someone whose news about `subject` is old."""
        entry = self._roster.get(subject)
        if entry is None or subject in self.evicted:
            return []
        return [entry.alive.slim().encode(), *entry.proofs()]

    def _tell_own(self, *, whole: bool) -> None:
        encoded = self._presence.encoded if whole else self._presence.encoded_slim
        self._broadcasts.tell(self._presence.id, "alive", encoded)
        self.urgent = True

    def _transit(
        self,
        now: float,
        entry: Entry,
        event: Event,
        *,
        boot: int | None = None,
        incarnation: int | None = None,
    ) -> None:
        before = entry.member
        state = TRANSITIONS[before.state, event]
        if state is not State.SUSPECT:
            self._suspicions.drop(before.id)
        member = replace(
            before,
            state=state,
            since=before.since if state is before.state else now,
            boot=before.boot if boot is None else boot,
            incarnation=before.incarnation if incarnation is None else incarnation,
        )
        self._move(entry, member)

    def _move(self, entry: Entry, member: Member) -> None:
        before = entry.member
        displaced = self._displaced(member) if member.address != before.address else None
        self._roster.change(entry, member)
        if _visible(before) != _visible(member):
            self.urgent = True
            self.changes.append(Change(entry, member, before.state, displaced))

    def _displaced(self, member: Member) -> Member | None:
        """Who else lives at the address of `member`, as far as is known here."""
        node = self._roster.holder(member.address)
        if node is None or node == member.id or not member.live:
            return None
        return self._roster.member(node)


def _visible(member: Member) -> tuple[object, ...]:
    """What a change of is worth telling the driver; a mere refutation of what it never heard is not."""
    return (
        member.state,
        member.boot,
        member.address,
        member.zone,
        dict(member.meta),
        member.credential,
    )
