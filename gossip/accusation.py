"""Accusations: who may say that a member is gone, when that is believed, and how it is refuted.

A Suspect counts with the accuser's signature, for exactly the rank that the subject has signed. A Dead is as many of
them; it is believed once they are enough and the subject had its time to refute them (SWIM 4.2, Lifeguard 3.2). The
theory is told in `gossip/judge.py`.

Invariant: `evidence` holds verified suspicions of the member's present rank only.
"""

from enum import Enum

from gossip.broadcast import Broadcasts
from gossip.config import GossipConfig
from gossip.crypto import Crypto
from gossip.entry import Entry
from gossip.errors import ForgedError
from gossip.health import LocalHealth
from gossip.member import Event, State
from gossip.moves import Moves
from gossip.presence import Presence
from gossip.roster import Roster
from gossip.statement import Dead, Suspect, sign_suspect
from gossip.suspicion import Suspicions, accusers_needed
from trust.identity import format_id


class Verdict(Enum):
    NEWS = "news"  # something changed
    KNOWN = "known"  # nothing new
    OLD = "old"  # the claim is about a rank that is over: who made it is behind
    AHEAD = "ahead"  # it is about something not known here: this node is behind


class Accusations:
    """Weighs accusations. The engine drains `summoned`: members to be asked before they are believed dead."""

    __slots__ = (
        "_broadcasts",
        "_config",
        "_crypto",
        "_evicted",
        "_health",
        "_moves",
        "_presence",
        "_roster",
        "_suspicions",
        "refutations",
        "summoned",
    )

    def __init__(
        self,
        *,
        config: GossipConfig,
        presence: Presence,
        roster: Roster,
        broadcasts: Broadcasts,
        health: LocalHealth,
        crypto: Crypto,
        suspicions: Suspicions,
        moves: Moves,
        evicted: dict[bytes, str],
    ) -> None:
        self.summoned: list[Entry] = []
        self.refutations = 0
        self._config = config
        self._presence = presence
        self._roster = roster
        self._broadcasts = broadcasts
        self._health = health
        self._crypto = crypto
        self._suspicions = suspicions
        self._moves = moves
        self._evicted = evicted

    def hear(
        self, now: float, claim: Suspect | Dead, suspicions: tuple[Suspect, ...], *, at_once: bool
    ) -> Verdict:
        if claim.subject == self._presence.id:
            return self._refute(claim.rank)
        if claim.subject in self._evicted:
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
            self.condemn(now, entry, spread=at_once)
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
            if suspicion.accuser in self._evicted and len(suspicions) > 1:
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
        if accuser in self._evicted:
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
        self._moves.tell_own(whole=False)
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
            self._moves.transit(now, entry, Event.SUSPECTED)
        self._suspicions.note(entry, now)
        if spread:
            subject = entry.member.id
            self._broadcasts.tell(subject, "suspect", suspicion.encode(), accuser=suspicion.accuser)
        return True

    def condemn(self, now: float, entry: Entry, *, spread: bool = True) -> None:
        self._moves.transit(now, entry, Event.CONDEMNED)
        (proof,) = entry.proofs()  # a member condemned was accused
        if spread:
            self._broadcasts.tell(entry.member.id, "dead", proof)
