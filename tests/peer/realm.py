"""Members who write what they like, and one reader who judges it: for tests of rights."""

from collections.abc import Iterable
from typing import Any

import pytest

from crdt.journal import Journal
from crdt.record import Record
from crdt.register import context_for
from peer.capabilities import Capabilities
from peer.fold import Folder
from peer.records import CLOSURE, POLICY, Registry, encode_policy
from peer.rights import Reason
from trust.identity import NodeIdentity, format_id
from trust.revocation import revoke_self

START_MS = 1_800_000_000_000
GOVERNOR, SECOND = 1, 2  # the numbers of who governs in these tests; all others are plain members
ALL = "*"


def node(number: int) -> bytes:
    return NodeIdentity.from_seed(bytes([number]) * 32).id


def document(
    name: str,
    to: Iterable[int | str],
    namespaces: Iterable[str],
    kinds: Iterable[str] = (ALL,),
    delegate: bool = False,
) -> dict[str, Any]:
    subjects = [{"node": each if isinstance(each, str) else format_id(node(each))} for each in to]
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "Capability",
        "metadata": {"name": name, "namespace": "gossamer-system"},
        "spec": {
            "subjects": subjects, "namespaces": list(namespaces), "kinds": list(kinds), "delegate": delegate,
        },
    }  # fmt: skip


class Realm:
    """Members who write what they like, and one reader who judges it."""

    def __init__(self, world: Any, members: int = 8) -> None:
        self.world = world
        self.registry: Registry = world.mesh.registry()
        self.people: dict[int, NodeIdentity] = {}
        for number in range(1, members + 1):
            identity, credential = world.mesh.member(number, govern=number in (GOVERNOR, SECOND))
            self.people[number] = identity
            assert self.registry.introduce(identity.id, credential.encode()) == ""
        self.journal = Journal(verify=self.registry.judge)
        self.capabilities = Capabilities(self.journal, self.registry)
        self.written: list[Record] = []
        self._ms = START_MS

    def write(
        self, by: int, key: str, payload: bytes, *, kind: str = POLICY, seen: Iterable[Record] | None = None
    ) -> Record:
        """Write it, entitled or not, having `seen` these records of the key (None: all)."""
        self._ms += 2_000
        identity = self.people[by]
        others = [each for each in self.journal.records(kind) if each.key == key] if seen is None else seen
        record = self.journal.draft(
            writer=identity.id, kind=kind, key=key, payload=payload, context=context_for(others, identity.id),
            now_ms=self._ms, sign=identity.sign,
        )  # fmt: skip
        assert self.journal.merge([record], self._ms).accepted
        self.written.append(record)
        return record

    def grant(
        self, by: int, name: str, to: Iterable[int | str], namespaces: Iterable[str], kinds: Iterable[str] = (ALL,),
        delegate: bool = False, *, seen: Iterable[Record] | None = None,
    ) -> Record:  # fmt: skip
        payload = encode_policy(document(name, to, namespaces, kinds, delegate))
        return self.write(by, f"Capability/gossamer-system/{name}", payload, seen=seen)

    def withdraw(self, by: int, name: str) -> Record:
        return self.write(by, f"Capability/gossamer-system/{name}", b"")

    def close(self, by: int, namespace: str) -> Record:
        return self.write(by, namespace, b"\x01", kind=CLOSURE)

    def policy(
        self, by: int, namespace: str = "shop", kind: str = "TrafficPolicy", name: str = "one"
    ) -> Record:
        spec = {"targetRefs": [{"kind": "Service", "name": "a"}], "timeouts": {"request": f"{by}s"}}
        made = {
            "apiVersion": "gossamer.dev/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }  # fmt: skip
        return self.write(by, f"{kind}/{namespace}/{name}", encode_policy(made))

    def revoke(self, number: int) -> None:
        self.registry.revocations.add(
            revoke_self(self.people[number], "cluster.local", reason="lost", now=START_MS // 1000)
        )

    def may(self, number: int, namespace: str = "shop", kind: str = "TrafficPolicy") -> bool:
        return self.capabilities.rights().may_write(node(number), namespace, kind)

    def who_may(self, namespace: str = "shop", kind: str = "TrafficPolicy") -> set[int]:
        return {number for number in self.people if self.may(number, namespace, kind)}

    def reason(self, record: Record) -> Reason | None:
        refusal = self.capabilities.rights().objection(record)
        return None if refusal is None else refusal.reason

    def shown(self, kind: str = "Capability") -> dict[str, list[str]]:
        """What `gossamer get` would list: name -> authors of its versions."""
        entries = Folder(self.journal, self.registry).policies()
        return {
            each.name: [version.writer for version in each.versions] for each in entries if each.kind == kind
        }


@pytest.fixture
def realm(world: Any) -> Realm:
    return Realm(world)


EVERYBODY = {1, 2, 3, 4, 5, 6, 7, 8}
