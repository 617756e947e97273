"""Maps of multi-value registers: one kind of records, folded by key.

`live_versions` is the fold in one go. `ObservedMap` keeps it up to date from what a journal reports, so that a change
costs as much as its keys and not as the whole map.

Which records count may be for the caller to say (`counts`): who was entitled to write is not the journal's business.
One that does not count is worth nothing and covers nothing, but an edit still names it in its context, so that it stays
settled should it come to count.

Invariant: an ObservedMap told of every `Merged`, of every eviction, and of every key whose records came to count or no
longer do (`refold`) equals `live_versions` of the journal's records that count.
"""

from collections.abc import Callable, Iterable, Iterator

from crdt import register
from crdt.delta import Merged
from crdt.record import Context, Record
from crdt.replica import Replica


def live_versions(records: Iterable[Record]) -> dict[str, tuple[Record, ...]]:
    """Key -> its current versions (crdt.register.versions), keys sorted. Deleted keys are absent."""
    by_key: dict[str, list[Record]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
    folded = ((key, register.versions(by_key[key])) for key in sorted(by_key))
    return {key: current for key, current in folded if current}


class ObservedMap:
    """The map of one kind, over a journal."""

    __slots__ = ("_by_key", "_counts", "_replica", "_versions", "kind")

    def __init__(
        self, kind: str, replica: Replica, counts: Callable[[Record], bool] = lambda _record: True
    ) -> None:
        self.kind = kind
        self._replica = replica
        self._counts = counts
        self._by_key: dict[str, dict[bytes, Record]] = {}
        self._versions: dict[str, tuple[Record, ...]] = {}
        self.observe(Merged(accepted=tuple(replica.records(kind))))

    def observe(self, merged: Merged) -> tuple[str, ...]:
        """Take in what the journal reports. Returns the keys whose versions changed, sorted."""
        touched: set[str] = set()
        for record in merged.accepted:
            if record.kind == self.kind and not self._replica.hidden(record.writer, self.kind):
                self._by_key.setdefault(record.key, {})[record.writer] = record
                touched.add(record.key)
        touched.update(self._drop(merged.superseded))
        return self.refold(touched)

    def withdraw(self, records: Iterable[Record]) -> tuple[str, ...]:
        """Forget what `Journal.evict` returned. Returns the keys whose versions changed, sorted."""
        return self.refold(self._drop(records))

    def refold(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Ask again which records of these keys count. Returns the keys whose versions changed, sorted."""
        changed = []
        for key in sorted(keys):
            held = self._by_key.get(key, {}).values()
            current = register.versions(record for record in held if self._counts(record))
            if current == self._versions.get(key, ()):
                continue
            changed.append(key)
            if current:
                self._versions[key] = current
            else:
                del self._versions[key]
        return tuple(changed)

    def versions(self, key: str) -> tuple[Record, ...]:
        """The current versions of a key, latest first; empty if it is absent."""
        return self._versions.get(key, ())

    def records(self, key: str) -> tuple[Record, ...]:
        """All of a key's records, each writer's newest: also tombstones, replaced ones, and those that do not count."""
        return tuple(self._by_key.get(key, {}).values())

    def context_for(self, key: str, editor: bytes | None = None) -> Context:
        """The context an edit or deletion of that key needs now."""
        return register.context_for(self._by_key.get(key, {}).values(), editor)

    def conflicts(self) -> Iterator[str]:
        """Keys with concurrent versions."""
        return (key for key, current in self._versions.items() if len(current) > 1)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._versions))

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, key: str) -> bool:
        return key in self._versions

    def __repr__(self) -> str:
        return f"ObservedMap({self.kind}, {len(self)} keys)"

    def _drop(self, records: Iterable[Record]) -> set[str]:
        """Forget records, unless a newer one of the writer took the place already. Returns their keys."""
        keys: set[str] = set()
        for record in records:
            writers = self._by_key.get(record.key, {}) if record.kind == self.kind else {}
            held = writers.get(record.writer)
            if held is None or held.seq != record.seq:
                continue
            del writers[record.writer]
            keys.add(record.key)
            if not writers:
                del self._by_key[record.key]
        return keys
