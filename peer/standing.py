"""Whose standing what hangs on: a record's meaning changes without it when a credential is renewed or revoked.

Invariant: `moved` names every key for which one of those behind it stands otherwise than at the last look.
"""

from typing import Final, Generic, TypeVar

from peer.records import Registry
from trust.credential import Credential

Standing = tuple[Credential | None, bool]
Key = TypeVar("Key")

_NOBODY: Final[frozenset[bytes]] = frozenset()


def standing(registry: Registry, who: bytes) -> Standing:
    """All that a registry knows of a writer and judging may ask for: (credential, whether it is revoked)."""
    credential = registry.credentials.get(who)
    return credential, credential is not None and registry.revocations.ever_covered(credential.spiffe)


class Standings(Generic[Key]):
    """Keys by those behind them, and how each of these stood."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[bytes, Standing] = {}
        self._behind: dict[Key, frozenset[bytes]] = {}
        self._keys: dict[bytes, set[Key]] = {}  # the same the other way

    def depend(self, key: Key, people: set[bytes]) -> None:
        """From now on `key` hangs on the standing of these, and of nobody else."""
        before = self._behind.pop(key, _NOBODY)
        for person in before - people:
            self._keys[person].discard(key)
            if not self._keys[person]:
                del self._keys[person], self._known[person]
        for person in people - before:
            self._keys.setdefault(person, set()).add(key)
            if person not in self._known:
                self._known[person] = standing(self._registry, person)
        if people:
            self._behind[key] = frozenset(people)

    def moved(self) -> set[Key]:
        """The keys to look at again. Costs a look at each person."""
        keys: set[Key] = set()
        for person, known in self._known.items():
            if (now := standing(self._registry, person)) != known:
                self._known[person] = now
                keys |= self._keys[person]
        return keys
