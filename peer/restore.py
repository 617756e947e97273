"""What a peer knows when it starts: its journal and what follows from it, from the store.

Invariant: what is restored was verified when it was stored; what does not add up is left out, reported, and fetched
again.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crdt.codec import CrdtError
from crdt.delta import Equivocation
from crdt.journal import Journal
from crdt.record import Record, decode_record
from peer.enroll import Membership
from peer.io.store import Loaded
from peer.node_distrust import EVICTED_KINDS
from peer.records import REVOCATION, Registry
from trust.admission import Spend, TokenLedger
from trust.errors import TrustError
from trust.identity import format_id
from trust.revocation import RevocationSet, decode_revocation

log = logging.getLogger("gossamer.store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The state of the last run."""

    registry: Registry
    journal: Journal
    ledger: TokenLedger


def restore(
    loaded: Loaded, membership: Membership, *, clock_drift_max_s: float, spent: Iterable[Spend] = ()
) -> Restored:
    """Rebuild journal, credentials, revocations and the ledger of tokens; `spent` are uses known from elsewhere."""
    root = membership.roots
    registry = Registry(
        root=root,
        trust_domain=membership.trust_domain,
        drift_ms=int(clock_drift_max_s * 1000),
        revocations=RevocationSet(root),
    )
    introductions: dict[bytes, bytes] = {}
    for writer, blob in loaded.introductions.items():
        reason = registry.introduce(writer, blob)
        if reason:
            fields = {"node": format_id(writer), "reason": reason}
            log.error("credential_refused", extra={"fields": fields})
        else:
            introductions[writer] = blob
    journal = Journal(verify=registry.judge)
    damage = journal.restore(
        _decoded(loaded.records),
        heads=loaded.heads,
        introductions=introductions,
        equivocations=_proofs(loaded.forks),
    )
    for each in damage:
        fields = {"writer": format_id(each.writer), "reason": each.reason}
        log.error("journal_damaged", extra={"fields": fields})
    for record in journal.records(REVOCATION):
        if record.payload and not registry.objection(record):
            try:
                registry.revocations.add(decode_revocation(record.payload))
            except TrustError as error:
                log.error("revocation_ignored", extra={"fields": {"reason": str(error)}})
    for writer in journal.forks:
        journal.evict(writer, EVICTED_KINDS)
    spends = [Spend(token_id=token, node=node, expires_at=at) for token, node, at in loaded.spent]
    return Restored(registry=registry, journal=journal, ledger=TokenLedger([*spends, *spent]))


def _proofs(rows: Mapping[bytes, tuple[bytes, bytes]]) -> list[Equivocation]:
    """Proofs of equivocation; one that cannot be read comes back from the peers."""
    pairs = [_decoded(proof) for proof in rows.values()]
    return [Equivocation(first=pair[0], second=pair[1]) for pair in pairs if len(pair) == 2]


def _decoded(rows: tuple[bytes, ...]) -> list[Record]:
    records = []
    for row in rows:
        try:
            records.append(decode_record(row))
        except CrdtError as error:
            # Its writer's journal then does not reach its head, which `Journal.restore` reports.
            log.error("record_unread", extra={"fields": {"reason": str(error)}})
    return records
