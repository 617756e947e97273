"""From records to services and policies: who counts, what is obeyed, and that nothing in them breaks a snapshot."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.codec import pack
from gossip.member import Member, State
from peer.catalog import View
from peer.compile import compile_snapshot, listeners_for
from peer.fold import Folder, host_of
from peer.messages import Draft
from peer.notice import QUARANTINES_PER_NODE_MAX, Notice, encode_notice
from peer.records import POLICY, QUARANTINE, SERVICE, encode_policy
from proxy.snapshot import decode_snapshot, encode_snapshot


def member(world: Any, number: int, **changes: Any) -> Member:
    identity, credential = world.mesh.member(number)
    fields = {
        "id": identity.id, "name": f"node-{number}", "address": (f"10.0.0.{number}", 7946), "state": State.ALIVE,
        "incarnation": 1, "boot": 1, "zone": "", "meta": {"inbound": 15006}, "credential": credential,
        "since": world.now,
    } | changes  # fmt: skip
    return Member(**fields)


@pytest.mark.parametrize("inbound", [0, -1, 65536, 2**40, True, "15006", None])
def test_an_inbound_port_that_is_none_becomes_no_port(world: Any, inbound: Any) -> None:
    meta = {} if inbound is None else {"inbound": inbound}
    assert host_of(member(world, 1, meta=meta)).inbound_port == 0


@pytest.mark.parametrize(
    ("state", "draining", "reachable"),
    [
        (State.ALIVE, False, True),
        (State.SUSPECT, False, True),
        (State.ALIVE, True, False),
        (State.DEAD, False, False),
        (State.LEFT, False, False),
    ],
)
def test_who_can_be_reached(world: Any, state: State, draining: bool, reachable: bool) -> None:
    meta = {"inbound": 15006, "draining": draining}
    assert host_of(member(world, 1, state=state, meta=meta)).reachable is reachable


def written(world: Any, number: int, *drafts: Draft) -> Any:
    """A node that has written these, whether it may or not."""
    return written_more(world, world.nodes[world.node(number)], *drafts)


def written_more(world: Any, node: Any, *drafts: Draft) -> Any:
    for draft in drafts:
        record = node.journal.draft(
            writer=node.identity.id,
            kind=draft.kind,
            key=draft.key,
            payload=draft.payload,
            context=draft.context,
            now_ms=int(world.now * 1000),
            sign=node.identity.sign,
        )
        node.journal.merge([record], int(world.now * 1000))
    return node


def service(name: str = "shop", **fields: Any) -> Draft:
    payload = {
        "ns": "default", "name": name, "account": name, "address": "127.0.0.1", "ports": [["", 80, 8080, "http"]],
        "labels": {}, "health": "passing",
    } | fields  # fmt: skip
    return Draft(kind=SERVICE, key=f"default/{name}", payload=pack(payload))


def test_services_of_members_that_are_gone_leave_and_come_back(world: Any) -> None:
    node = written(world, 1, service())
    folder = Folder(node.journal, node.registry)
    for state, there in (
        (State.ALIVE, True), (State.DEAD, False), (State.LEFT, False), (State.SUSPECT, True), (State.ALIVE, True),
    ):  # fmt: skip
        found = folder.services([member(world, 1, state=state)], but=b"")
        assert bool(found) is there
    assert folder.services([], but=b"") == ()
    assert folder.services([member(world, 1)], but=node.identity.id) == ()


def test_a_service_is_decoded_once_while_it_does_not_change(world: Any) -> None:
    node = written(world, 1, service())
    folder = Folder(node.journal, node.registry)
    first = folder.services([member(world, 1)], but=b"")
    second = folder.services([member(world, 1)], but=b"")
    assert first[0].ports is second[0].ports


def test_policies_are_in_order_of_key_and_deleted_ones_are_gone(world: Any) -> None:
    def policy(name: str) -> Draft:
        document = {"kind": "TrafficPolicy", "metadata": {"name": name, "namespace": "default"}, "spec": {}}
        return Draft(kind=POLICY, key=f"TrafficPolicy/default/{name}", payload=encode_policy(document))

    gone = Draft(kind=POLICY, key="TrafficPolicy/default/b", payload=b"")
    node = written(world, 1, policy("c"), policy("b"), policy("a"), gone)
    names = [entry.name for entry in Folder(node.journal, node.registry).policies()]
    assert names == ["a", "c"]


def test_a_quarantine_counts_for_the_standing_version_of_a_member_that_is_there(world: Any) -> None:
    document = {"kind": "TrafficPolicy", "metadata": {"name": "a", "namespace": "default"}, "spec": {}}
    key = "TrafficPolicy/default/a"
    node = written(world, 1, Draft(kind=POLICY, key=key, payload=encode_policy(document)))

    def tell(seq: int) -> Draft:
        notice = Notice(version=((node.identity.id, seq),), reason="Invalid", message="why")
        return Draft(kind=QUARANTINE, key=key, payload=encode_notice(notice))

    node = written_more(world, node, tell(1))
    folder = Folder(node.journal, node.registry)
    [found] = folder.quarantines([member(world, 1)], but=b"")[key]
    assert (found.node_name, found.notice.message) == ("node-1", "why")
    assert folder.quarantines([member(world, 1)], but=node.identity.id) == {}
    assert folder.quarantines([member(world, 1, state=State.DEAD)], but=b"") == {}
    assert folder.quarantines([], but=b"") == {}
    written_more(world, node, tell(7))
    assert folder.quarantines([member(world, 1)], but=b"") == {}, "it is of another version"
    written_more(world, node, tell(1), Draft(kind=QUARANTINE, key=key, payload=b""))
    assert folder.quarantines([member(world, 1)], but=b"") == {}


def test_of_one_node_a_bounded_number_of_quarantines_counts(world: Any) -> None:
    payload = encode_notice(Notice(version=(), reason="Invalid"))
    drafts = [Draft(kind=QUARANTINE, key=f"A/b/{n:03}", payload=payload) for n in range(40)]
    node = written(world, 1, *drafts)
    folder = Folder(node.journal, node.registry)
    folder.quarantines([member(world, 1)], but=b"")
    assert folder.ignored[QUARANTINE] == {"too many quarantines of one node": 40 - QUARANTINES_PER_NODE_MAX}


wild = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70_000) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=16,
)


@given(
    kind=st.sampled_from(["HTTPRoute", "AuthorizationPolicy", "TrafficPolicy", "MeshConfig", "Strange"]),
    spec=wild | st.fixed_dictionaries({"rules": wild, "targetRefs": wild, "parentRefs": wild}),
    fields=st.dictionaries(
        st.sampled_from(["account", "address", "ports", "labels", "health", "ns"]), wild, max_size=3
    ),
    inbound=st.integers(-1, 70_000),
    seed=st.integers(0, 10),
)
def test_nothing_a_member_can_write_makes_a_snapshot_impossible(
    make_world: Any, kind: str, spec: Any, fields: Any, inbound: int, seed: int
) -> None:
    world = make_world()
    versions = {"HTTPRoute": "gateway.networking.k8s.io/v1", "AuthorizationPolicy": "security.istio.io/v1"}
    document = {
        "apiVersion": versions.get(kind, "gossamer.dev/v1"),
        "kind": kind,
        "metadata": {"name": "one", "namespace": "default"},
        "spec": spec,
    }
    policy = Draft(kind=POLICY, key=f"{kind}/default/one", payload=pack(document))
    drafts = [policy, service(), service("wild", **fields)]
    random.Random(seed).shuffle(drafts)
    node = written(world, 1, *drafts)
    folder = Folder(node.journal, node.registry)
    members = [member(world, 1, meta={"inbound": inbound}, zone="\n\0")]
    view = View(
        node="me",
        node_name="me",
        trust_domain="cluster.local",
        zone="",
        services=folder.services(members, but=b""),
        policies=folder.policies(),
    )
    assert "shop" in {instance.name for instance in view.services}
    snapshot = compile_snapshot(view, version=1, listeners=listeners_for(view)).snapshot
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


def test_what_one_node_may_put_into_everybodys_snapshot_is_bounded(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("peer.fold.SERVICES_PER_NODE_MAX", 3)
    monkeypatch.setattr("peer.fold.PORTS_PER_NODE_MAX", 4)
    two_ports = [["", 80, 8080, "http"], ["b", 81, 8080, "http"]]
    names = ["e", "d", "c", "b", "a"]
    node = written(world, 1, *(service(name) for name in names), service("f", ports=two_ports))
    folder = Folder(node.journal, node.registry)
    found = folder.services([member(world, 1)], but=b"")
    assert [instance.name for instance in found] == ["a", "b", "c"]  # the same ones at every node
    assert folder.ignored[SERVICE]["too many services of one node"] == 3
