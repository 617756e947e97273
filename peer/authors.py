"""Who is behind a policy record: its writer, or the person who signed the document in it (`peer/authored.py`).

Invariant: an author is whom a signature proves; a claim that does not hold makes nobody an author.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from crdt.clock import VersionVector
from crdt.record import Record
from peer.authored import as_written, check_claim, claim_of, is_authored, without_claim
from peer.records import PayloadError, Registry
from trust.roots import first_of

AUTHORED_MAX: Final = 16_384  # records with an author's signature, remembered


class Authors:
    """Who is behind a record: each signature is verified once while it is asked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[bytes, int, bytes], Record | PayloadError] = {}

    def of(self, record: Record) -> Record:
        """The record as its author's: `as_written`. Raises PayloadError."""
        if not is_authored(record):
            return record
        place = (record.writer, record.seq, record.signature)
        found = self._known.get(place)
        if found is None:
            try:
                found = as_written(record, first_of(self._registry.root), self._registry.crypto.verify)
            except PayloadError as error:
                found = error
            if len(self._known) >= AUTHORED_MAX:
                self._known.clear()
            self._known[place] = found
        if isinstance(found, PayloadError):
            raise found
        claimed = (found.writer, found.seq) != (record.writer, record.seq)
        if claimed and found.writer in self._registry.credentials:
            raise PayloadError("the key of a node is no author's")
        return found

    def read(self, record: Record) -> Record:
        """The same, but for a claim that does not hold: then the record itself."""
        try:
            return self.of(record)
        except PayloadError:
            return record

    def signed_alike(self, document: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
        """Whether one author signed both and they say the same; of the second the signature is known to hold. Raises
        PayloadError if that of the first does not."""
        claim, other = claim_of(document), claim_of(known)
        if claim is None or other is None or claim.key != other.key:
            return False
        if without_claim(document) != without_claim(known):
            return False
        check_claim(claim, document, first_of(self._registry.root), self._registry.crypto.verify)
        return True

    def claimant(self, record: Record) -> bytes:
        """Whose standing matters besides the writer's: who signed the document, author or not. The writer itself, if
        nobody did."""
        if not is_authored(record):
            return record.writer
        self.read(record)
        found = self._known[record.writer, record.seq, record.signature]
        return record.writer if isinstance(found, PayloadError) else found.writer


def distinct(records: Iterable[Record]) -> list[Record]:
    """The newest of each author under each key; where two of them contradict each other under one number, neither. One
    that several members published has seen what any of them had seen."""
    newest: dict[tuple[bytes, str], Record] = {}
    torn: set[tuple[bytes, str, int]] = set()
    for record in records:
        place = (record.writer, record.key)
        known = newest.get(place)
        if known is None or known.seq < record.seq:
            newest[place] = record
        elif known.seq == record.seq and known.payload != record.payload:
            torn.add((*place, record.seq))
        elif known.seq == record.seq:
            context = VersionVector([*known.context, *record.context]).entries
            newest[place] = replace(known, context=context)
    return [record for place, record in newest.items() if (*place, record.seq) not in torn]
