"""The fold of the `policy` kind, kept up to date: a change costs the keys it touches, not all policies.

Nothing that a key is worth hangs on the records of another, but through the rights (`peer/capabilities.py`). So a key
is folded anew, all its records through `Rights.live`, when one of its records changes, and when the standing of
somebody behind one of them does: another credential, a revocation, or that an author's key turns out to be a
node's. When the rights change, all Capabilities are, and the keys of those pairs of namespace and kind that others may
write now than before.

Invariant: equal to `Rights.live` of the policy records of the journal that are obeyed now.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from sortedcontainers import SortedDict, SortedSet

from crdt.clock import Dot
from crdt.record import Context, Record
from crdt.register import context_for
from peer.authored import is_authored
from peer.capabilities import Capabilities
from peer.catalog import PolicyEntry, PolicyVersion
from peer.records import POLICY, PayloadError, Registry, decode_policy
from peer.rights import Reason, Refusal, Rights
from peer.standing import Standings
from proxy.resources.capability import CAPABILITY
from trust.identity import format_id

Carried = Mapping[Dot, tuple[tuple[str, int], ...]]  # version -> the records it stands in


class PolicyFold:
    """All policies, by key `<Kind>/<namespace>/<name>`. Of what was not obeyed at the last fold `ignored` counts the
    records by reason; `refused` says whose they are and why: (writer, reason) -> (how many, the words of one);
    `refused_keys` gives the words for one of each key, deletions aside."""

    def __init__(self, capabilities: Capabilities, registry: Registry) -> None:
        self.ignored: Counter[str] = Counter()
        self.refused: dict[tuple[bytes, Reason], tuple[int, str]] = {}
        self.refused_keys: dict[str, str] = {}
        self._capabilities = capabilities
        self._index = capabilities.index
        self._changed = self._index.follow()
        self._rights = capabilities.rights()
        self._due: SortedSet[str] = SortedSet()  # to be folded anew
        self._refusals: dict[str, dict[bytes, Refusal]] = {}  # key -> writer
        self._words: dict[tuple[bytes, Reason], dict[str, str]] = {}  # by key
        self._standings: Standings[str] = Standings(registry)  # of writers and authors
        self._versions: dict[str, tuple[Record, ...]] = {}
        self._carried: dict[str, Carried] = {}  # of what persons signed
        self._conflicts: set[str] = set()
        self._entries: SortedDict[str, PolicyEntry] = SortedDict()
        self._all: tuple[PolicyEntry, ...] | None = None

    def all(self) -> tuple[PolicyEntry, ...]:
        """In order of key; the same tuple until something changes."""
        self._catch_up()
        if self._all is None:
            self._all = tuple(self._entries.values())
        return self._all

    def read_ahead(self, most: int) -> bool:
        """Fold this many of the keys that have changed, and say whether that was all: whoever asks next waits for the
        rest only."""
        self._catch_up(most)
        return not self._due

    def get(self, keys: Iterable[str]) -> dict[str, PolicyEntry]:
        """Those of these policies that there are, by key."""
        self._catch_up()
        return {key: self._entries[key] for key in keys if key in self._entries}

    def conflicts(self) -> tuple[str, ...]:
        """The keys with concurrent versions, sorted."""
        self._catch_up()
        return tuple(sorted(self._conflicts))

    def records(self, key: str) -> tuple[tuple[Record, str], ...]:
        """Each writer's newest record of `key`, tombstones included, with why it is not obeyed ("": it is)."""
        self._catch_up()
        refusals = self._refusals.get(key, {})
        return tuple(
            (each, refusals[each.writer].words if each.writer in refusals else "")
            for each in self._index.of(POLICY, key)
        )

    def reach(self, key: str) -> dict[bytes, int]:
        """How far journals go with all live versions of `key` (writer -> seq). An author has no journal: whoever
        published the document first stands for her."""
        self._catch_up()
        found: dict[bytes, int] = {}
        refusals = self._refusals.get(key, {})
        obeyed = [each for each in self._index.of(POLICY, key) if each.writer not in refusals]
        for version in self._versions.get(key, ()):
            first = min(self._carriers(version, obeyed), key=lambda each: (each.hlc, each.writer))
            found[first.writer] = first.seq
        return found

    def contexts(self, keys: Iterable[str], editor: bytes) -> dict[str, Context]:
        """The causal context that an edit or deletion of each key by `editor` carries now."""
        return {key: context_for(self._capabilities.seen(key), editor) for key in keys}

    # ------------------------------------------------------------------ inside

    def _catch_up(self, most: int | None = None) -> None:
        rights = self._capabilities.rights()  # has the index catch up
        self._due.update(key for kind, key in self._changed if kind == POLICY)
        self._changed.clear()
        if rights is not self._rights:
            before, self._rights = self._rights, rights
            self._due.update(_affected(self._index.keys(POLICY), before, rights))
        self._due.update(self._standings.moved())
        for key in tuple(islice(self._due, most)):
            self._fold(key)
            self._due.remove(key)

    def _fold(self, key: str) -> None:
        """Read all records of one key anew."""
        records = self._index.of(POLICY, key)
        authors = self._capabilities.authors
        self._standings.depend(
            key, {each.writer for each in records} | {authors.claimant(each) for each in records}
        )
        refusals = {each.writer: self._rights.objection(each) for each in records}
        self._refuse(key, {writer: refusal for writer, refusal in refusals.items() if refusal is not None})
        words = [
            refusal.words
            for each in records
            if each.payload and (refusal := refusals[each.writer]) is not None
        ]
        if words:
            self.refused_keys[key] = min(words)
        else:
            self.refused_keys.pop(key, None)
        obeyed = [each for each in records if refusals[each.writer] is None]
        live = self._rights.live(obeyed).get(key, ())
        carried = {
            each.dot: tuple((format_id(dot.writer), dot.seq) for dot in sorted(found))
            for each in live
            if is_authored(each)
            and (found := {carrier.dot for carrier in self._carriers(each, obeyed)} - {each.dot})
        }
        self._renew(key, live, carried)

    def _carriers(self, version: Record, records: Iterable[Record]) -> list[Record]:
        """Those of the records that a version stands in: itself, or all that hold what its author signed."""
        return [each for each in records if self._capabilities.authors.read(each).dot == version.dot]

    def _refuse(self, key: str, refusals: dict[bytes, Refusal]) -> None:
        """Note which records of this key are not obeyed."""
        for writer, refusal in self._refusals.pop(key, {}).items():
            self.ignored[refusal.words] -= 1
            if not self.ignored[refusal.words]:
                del self.ignored[refusal.words]
            del self._words[writer, refusal.reason][key]
            self._count(writer, refusal.reason)
        for writer, refusal in refusals.items():
            self.ignored[refusal.words] += 1
            self._words.setdefault((writer, refusal.reason), {})[key] = refusal.words
            self._count(writer, refusal.reason)
        if refusals:
            self._refusals[key] = refusals

    def _count(self, writer: bytes, reason: Reason) -> None:
        words = self._words[writer, reason]
        if words:
            self.refused[writer, reason] = (len(words), next(iter(words.values())))
        else:
            del self._words[writer, reason]
            self.refused.pop((writer, reason), None)

    def _renew(self, key: str, versions: tuple[Record, ...], carried: Carried) -> None:
        """Make the entry of this key anew, if it is worth something else now."""
        if versions == self._versions.get(key, ()) and carried == self._carried.get(key, {}):
            return
        self._all = None
        entry = _entry(key, versions, carried)
        if carried:
            self._carried[key] = carried
        else:
            self._carried.pop(key, None)
        if entry is None:
            self._versions.pop(key, None)
            self._entries.pop(key, None)
        else:
            self._versions[key] = versions
            self._entries[key] = entry
        if len(versions) > 1:
            self._conflicts.add(key)
        else:
            self._conflicts.discard(key)


def _affected(keys: Iterable[str], before: Rights, now: Rights) -> Iterator[str]:
    """The keys whose records may be judged otherwise now."""
    known: dict[tuple[str, str], bool] = {}
    for key in keys:
        match key.split("/"):
            case [kind, _, _] if kind == CAPABILITY:
                yield key
            case [kind, namespace, _]:
                pair = namespace, kind
                if pair not in known:
                    known[pair] = before.writers(*pair) != now.writers(*pair)
                if known[pair]:
                    yield key
            case _:
                pass  # never obeyed


def _entry(key: str, versions: Iterable[Record], carried: Carried) -> PolicyEntry | None:
    decoded = []
    for record in versions:
        try:
            document = decode_policy(record.payload)
        except PayloadError:
            continue  # `objection` has said why
        decoded.append(
            PolicyVersion(
                resource=document,
                writer=format_id(record.writer),
                seq=record.seq,
                hlc=record.hlc,
                carried=carried.get(record.dot, ()),
            )
        )
    if not decoded:
        return None
    kind, namespace, name = key.split("/")
    return PolicyEntry(kind=kind, namespace=namespace, name=name, versions=tuple(decoded))
