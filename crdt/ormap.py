"""Maps of multi-value registers (an observed-remove map): one kind of records, folded by key.

A key is there for as long as one of its records is current (`crdt.register.versions`): a deletion takes away what its
author had seen, and an edit it had not seen survives it. Which records count may be for the caller to say, by what it
passes in: one that is left out is worth nothing and covers nothing.

Invariant: the outcome depends on the set of records alone, and for each key on that key's alone.
"""

from collections.abc import Iterable

from crdt import register
from crdt.record import Record


def live_versions(records: Iterable[Record]) -> dict[str, tuple[Record, ...]]:
    """Key -> its current versions (crdt.register.versions), keys sorted. Deleted keys are absent."""
    by_key: dict[str, list[Record]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
    folded = ((key, register.versions(by_key[key])) for key in sorted(by_key))
    return {key: current for key, current in folded if current}
