"""Who may be a signer, as this node sees it: the members of the mesh, how long they have been here or gone, and who is
revoked. What follows from that is `trust/ceremony/growth.py`.

Invariant: a node that is not known by a verified credential is never a candidate.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gossip.member import Member
from trust.ceremony.events import Members
from trust.ceremony.growth import Candidate, SignerRules, wish
from trust.credential import Credential
from trust.epoch import EpochRecord
from trust.errors import RevokedError
from trust.identity import node_id
from trust.revocation import RevocationSet


@dataclass(slots=True)
class Candidates:
    """See the module's docstring. `now` is a clock (s) that never falls."""

    seen: Callable[[], Iterable[Member]]
    credentials: Mapping[bytes, Credential]
    revocations: RevocationSet
    trust_domain: str
    rules: SignerRules
    now: Callable[[], float]
    _since: dict[bytes, tuple[bool, float]] = field(default_factory=dict)

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
                key=credential.public_key, alive=alive, since=since, revoked=self._revoked(member.id)
            )
        for gone in self._since.keys() - found.keys():
            del self._since[gone]
        return found

    def wish(self, record: EpochRecord) -> tuple[bytes, ...] | None:
        """Public keys of who should be signers after `record`; None for no change."""
        return wish(
            record.group.public, record.value.keys, record.group.threshold,
            self._with_revoked(record, self.look()), self.rules, self.now(),
        )  # fmt: skip

    def members(self, record: EpochRecord | None) -> Members:
        """Who may become a signer, and who must not be one any more."""
        candidates = self.look()
        if record is not None:
            candidates = self._with_revoked(record, candidates)
        return Members(
            known=frozenset(node for node, each in candidates.items() if not each.revoked),
            barred=frozenset(node for node, each in candidates.items() if each.revoked),
        )

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
