"""Who may be a signer, as this node sees it: the members of the mesh, since when, how long they have been here or
gone, and who is revoked. What follows from that is `trust/ceremony/growth.py`.

Invariant: a node that is not known by a verified credential is never a candidate.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gossip.member import Member
from trust.ceremony.events import Members
from trust.ceremony.growth import Candidate, SignerRules, held_seats, is_gone, is_ripe, wish
from trust.credential import Credential
from trust.epoch import EpochRecord
from trust.errors import RevokedError
from trust.identity import node_id
from trust.revocation import RevocationSet


@dataclass(slots=True)
class Candidates:
    """See the module's docstring. `me` is this node's id, `now` a clock (s) that never falls, `joined` says when (Unix
    s) the node of a credential became a member at the latest (`peer/seniority.py`)."""

    seen: Callable[[], Iterable[Member]]
    credentials: Mapping[bytes, Credential]
    revocations: RevocationSet
    trust_domain: str
    rules: SignerRules
    now: Callable[[], float]
    me: bytes
    joined: Callable[[Credential], int]
    _since: dict[bytes, tuple[bool, float]] = field(default_factory=dict)
    _served: dict[bytes, float] = field(default_factory=dict)  # when each was seen as a signer last

    def look(self) -> dict[bytes, Candidate]:
        """By node id."""
        now = self.now()
        found: dict[bytes, Candidate] = {}
        for member in self.seen():
            credential = self.credentials.get(member.id)
            if credential is None:
                continue
            alive, since = self._since.get(member.id, (member.live, now))
            if alive is not member.live:
                alive, since = member.live, now
            self._since[member.id] = alive, since
            found[member.id] = Candidate(
                key=credential.public_key, alive=alive, since=since, revoked=self._revoked(member.id),
                joined=self.joined(credential), served=member.id in self._served,
            )  # fmt: skip
        for gone in self._since.keys() - found.keys():
            del self._since[gone]
        return found

    def wish(self, record: EpochRecord) -> tuple[bytes, ...] | None:
        """Public keys of who should be signers after `record`; None for no change."""
        self._serve(record)
        return wish(
            record.value.keys, record.group.threshold, self._with_revoked(record, self.look()), self.rules,
            self.now(),
        )  # fmt: skip

    def members(self, record: EpochRecord | None) -> Members:
        """What an elector has to know of the members (`trust/ceremony/bearing.py`)."""
        if record is None:
            return self._members((), self.look())
        self._serve(record)
        return self._members(record.value.keys, self._with_revoked(record, self.look()))

    def _members(self, signers: tuple[bytes, ...], candidates: Mapping[bytes, Candidate]) -> Members:
        now, rules = self.now(), self.rules
        today = {node_id(key) for key in signers}
        known = {node: each for node, each in candidates.items() if not each.revoked}
        signing = {node: known[node] for node in today if node in known}
        # Who was here before this node came looks as old as its newest credential then: all of them rank alike.
        own = known[self.me].joined if self.me in known else 0
        return Members(
            known=frozenset(known),
            barred=frozenset(candidates.keys() - known.keys()),
            away=frozenset(node for node, each in signing.items() if not each.alive),
            gone=frozenset(node for node, each in signing.items() if is_gone(each, rules, now)),
            held=held_seats(signers, candidates, rules, now),
            ripe=frozenset(node for node in known.keys() - today if is_ripe(known[node], rules, now)),
            rank={node: max(each.joined, own) for node, each in known.items()},
        )

    def _serve(self, record: EpochRecord) -> None:
        """Signers of a while ago keep a seat while they are away: an epoch that goes on without one that is just being
        started again does not give its seat to another."""
        now = self.now()
        self._served.update(dict.fromkeys(record.value.ids, now))
        for node in [node for node, at in self._served.items() if now - at >= self.rules.gone_s]:
            del self._served[node]

    def _with_revoked(self, record: EpochRecord, found: dict[bytes, Candidate]) -> dict[bytes, Candidate]:
        """Signers that were revoked and have left the list of members since."""
        for key in record.value.keys:
            node = node_id(key)
            if node not in found and self._revoked(node):
                found[node] = Candidate(key=key, alive=False, since=self.now(), revoked=True)
        return found

    def _revoked(self, node: bytes) -> bool:
        try:
            self.revocations.check_signer(self.trust_domain, node)
        except RevokedError:
            return True
        return False
