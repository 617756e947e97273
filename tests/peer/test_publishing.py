"""Policies as people handle them: checked before anything is written, conflicts shown, the next edit settles them."""

from collections.abc import Sequence
from typing import Any

import pytest

from crdt.record import encode_record
from peer.api import ApiError
from peer.authored import sign
from peer.fold import Folder
from peer.messages import Draft, Write, Written
from peer.publishing import Publishing
from peer.records import POLICY, encode_policy
from proxy.resources import parse_documents
from trust.identity import NodeIdentity, format_id


def document(name: str = "one", seconds: int = 5, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": name} | metadata,
        "spec": {"targetRefs": [{"kind": "Service", "name": "cart"}], "timeouts": {"request": f"{seconds}s"}},
    }


class Desk:
    """Publishing at one node of a world."""

    def __init__(self, world: Any, address: Any) -> None:
        self.world, self.address = world, address
        self.node = world.nodes[address]
        self.statuses: dict[str, Any] = {}
        self.past: list[bytes] = []
        self.publishing = Publishing(
            node=self.node.identity.id,
            folder=Folder(self.node.journal, self.node.registry),
            write=self._write,
            names=lambda node: f"name of {node[:4]}",
            statuses=lambda: self.statuses,
            past=self._past,
        )

    async def _past(self, _key: str) -> Sequence[bytes]:
        return self.past

    async def _write(self, drafts: Sequence[Draft]) -> Written:
        self.world.answers[self.address].clear()
        self.world.feed(self.address, Write(request=1, drafts=tuple(drafts)))
        self.world.run(0.5)
        (answer,) = [each for each in self.world.answers[self.address] if isinstance(each, Written)]
        if answer.error:
            raise ApiError(answer.error, code=2 if answer.invalid else 1)
        return answer

    async def apply(self, *documents: Any) -> Any:
        return await self.publishing.apply(documents, "f.yaml")


@pytest.fixture
def desk(world: Any) -> Desk:
    return Desk(world, world.node(1))


async def test_created_configured_and_unchanged(desk: Desk) -> None:
    me, printed = desk.node.identity.id, format_id(desk.node.identity.id)
    results, records = await desk.apply(document("one"), document("two"))
    assert [(r["name"], r["action"], r["version"]) for r in results] == [
        ("one", "created", f"{printed}:1"),
        ("two", "created", f"{printed}:2"),
    ]
    assert records == {(me, 1), (me, 2)}
    results, records = await desk.apply(document("one"), document("two", seconds=6))
    assert [(r["action"], r["version"]) for r in results] == [
        ("unchanged", f"{printed}:1"),
        ("configured", f"{printed}:3"),
    ]
    assert records == {(me, 1), (me, 3)}


async def test_documents_that_change_nothing_write_nothing_and_still_can_be_waited_for(desk: Desk) -> None:
    await desk.apply(document("one"), document("two"))
    results, records = await desk.apply(document("two"))
    assert results[0]["action"] == "unchanged"
    assert records == {(desk.node.identity.id, 2)}
    assert desk.node.journal.heads == dict(records)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (document("two") | {"kind": "Teapot"}, "Teapot"),
        (document("two") | {"spec": {"timeouts": 1}}, "timeouts"),
        (document("one"), "is in the file twice"),
        (document("two", labels={"share": 0.5}), "label"),
        ({}, "kind"),
    ],
)
async def test_one_bad_document_refuses_all_of_them(desk: Desk, bad: Any, words: str) -> None:
    with pytest.raises(ApiError, match=words) as refusal:
        await desk.apply(document("one"), bad)
    assert refusal.value.code == 2
    assert desk.node.journal.heads == {}


async def test_a_value_no_record_can_hold_is_refused_with_words(desk: Desk, monkeypatch: Any) -> None:
    """Should a schema let a fraction through, it is the author who hears of it, not the log."""
    (resource,) = parse_documents([document("one")], "f.yaml")
    resource.document["spec"]["share"] = 0.5
    monkeypatch.setattr("peer.publishing.parse_documents", lambda _documents, _source: (resource,))
    with pytest.raises(ApiError, match="TrafficPolicy/default/one: cannot be stored") as refusal:
        await desk.apply(document("one"))
    assert refusal.value.code == 2


async def test_a_policy_that_is_too_large_is_refused(desk: Desk) -> None:
    with pytest.raises(ApiError):
        await desk.apply(document("one", annotations={f"k{n}": "x" * 60_000 for n in range(4)}))
    assert desk.node.journal.heads == {}


async def test_concurrent_edits_are_shown_with_their_authors_and_settled_by_the_next(world: Any) -> None:
    a, b = Desk(world, world.node(1)), Desk(world, world.node(2))
    await a.apply(document("one", seconds=1))
    await b.apply(document("one", seconds=2))
    world.join(b.address, a.address)
    world.run(2)
    for desk in (a, b):
        (shown,) = desk.publishing.get("trafficpolicy", None, "one")
        assert shown["status"]["conflict"] is True
        authors = {each["author"] for each in shown["status"]["conflicts"]}
        assert authors == {format_id(each.node.identity.id) for each in (a, b)}
        assert len(desk.publishing.describe("trafficpolicy", "default", "one")["versions"]) == 2
    effective = a.publishing.get("trafficpolicy", None, "one")[0]
    chosen = {key: value for key, value in effective.items() if key != "status"}
    results, _ = await a.apply(chosen)  # the effective one, applied again, is an edit: it settles
    assert results[0]["action"] == "configured"
    world.run(2)
    for desk in (a, b):
        (shown,) = desk.publishing.get("trafficpolicy", None, "one")
        assert shown["status"]["conflict"] is False
        assert shown["spec"] == chosen["spec"]


async def test_what_one_peer_wrote_another_can_delete_and_it_stays_deleted(world: Any) -> None:
    a, b = Desk(world, world.node(1)), Desk(world, world.node(2))
    world.join(b.address, a.address)
    world.run(2)
    await a.apply(document("one"))
    world.run(1)
    (result,), records = await b.publishing.delete([("TrafficPolicy", "default", "one")])
    assert result["action"] == "deleted"
    assert records == {(b.node.identity.id, 1)}
    world.run(1)
    for desk in (a, b):
        assert desk.publishing.get("all", None, None) == []
        with pytest.raises(ApiError, match="there is no TrafficPolicy default/one"):
            await desk.publishing.delete([("TrafficPolicy", "default", "one")])


async def test_resources_are_found_by_key_and_what_is_not_there_is_none(desk: Desk) -> None:
    await desk.apply(document("one"))
    there, absent = desk.publishing.find([("trafficpolicy", "default", name) for name in ("one", "two")])
    assert there == desk.publishing.get("TrafficPolicy", "default", "one")[0]
    assert absent is None
    with pytest.raises(ApiError, match="teapot"):
        desk.publishing.find([("teapot", "default", "one")])


async def test_several_are_deleted_in_one_write_and_what_is_not_there_is_named(
    world: Any, monkeypatch: Any
) -> None:
    desk = Desk(world, world.node(1))
    await desk.apply(document("one"), document("two"), document("three"))
    writes: list[int] = []
    feed = world.feed
    monkeypatch.setattr(
        world, "feed",
        lambda at, event: (writes.append(len(event.drafts)) if isinstance(event, Write) else None, feed(at, event)),
    )  # fmt: skip
    kinds = [("trafficpolicy", "default", name) for name in ("one", "nope", "two", "one")]
    rows, records = await desk.publishing.delete(kinds)
    assert [(row["name"], row["action"]) for row in rows] == [
        ("one", "deleted"), ("nope", "absent"), ("two", "deleted"),
    ]  # fmt: skip
    assert writes == [2]
    assert records == {(desk.node.identity.id, 4), (desk.node.identity.id, 5)}
    assert [each["metadata"]["name"] for each in desk.publishing.get("all", None, None)] == ["three"]
    with pytest.raises(ApiError, match="there is no TrafficPolicy default/one; there is no"):
        await desk.publishing.delete(kinds)


async def test_of_writes_that_wait_together_one_that_is_refused_leaves_no_trace(world: Any) -> None:
    """They are numbered as one batch: what comes after a refused one goes on where the one before it ended."""
    address = world.node(1, rights={"govern": False})
    node = world.nodes[address]
    (resource,) = parse_documents([document("one")], "f.yaml")
    good = Draft(kind=POLICY, key=resource.key, payload=encode_policy(resource.document))
    bad = Draft(kind=POLICY, key="TrafficPolicy/default/other", payload=good.payload)
    world.disk_delay_s = 0.01
    world.feed(address, Write(request=0, drafts=(good,)))  # the others wait for it
    for request, drafts in enumerate([(good,), (good, bad), (good, good)], start=1):
        world.feed(address, Write(request=request, drafts=drafts))
    world.run(0.5)
    answers = {each.request: each for each in world.answers[address] if isinstance(each, Written)}
    assert "key and metadata differ" in answers.pop(2).error
    assert {
        request: [record.seq for record in each.records] for request, each in answers.items()
    } == {0: [1], 1: [2], 3: [3, 4]}  # fmt: skip
    assert node.journal.heads == {node.identity.id: 4}


async def test_a_deletion_that_cannot_be_written_deletes_nothing(world: Any, monkeypatch: Any) -> None:
    desk = Desk(world, world.node(1))
    await desk.apply(document("one"), document("two"))
    real = type(desk.node.registry).objection
    monkeypatch.setattr(
        type(desk.node.registry), "objection",
        lambda self, r: "closed" if r.deleted and r.key.endswith("two") else real(self, r),
    )  # fmt: skip
    with pytest.raises(ApiError, match="closed"):
        await desk.publishing.delete([("TrafficPolicy", "default", n) for n in ("one", "two")])
    assert len(desk.publishing.get("all", None, None)) == 2


async def test_a_peer_without_the_right_is_told_and_nothing_is_written(world: Any) -> None:
    desk = Desk(world, world.node(1, rights={"publish": False}))
    with pytest.raises(ApiError, match="may not publish"):
        await desk.apply(document("one"))
    assert world.disk[desk.address] == {}


def capability(name: str, *nodes: Any, namespaces: Any = ("default",), **spec: Any) -> dict[str, Any]:
    subjects = [{"node": format_id(each.node.identity.id)} for each in nodes]
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "Capability",
        "metadata": {"name": name},
        "spec": {"subjects": subjects, "namespaces": list(namespaces), "kinds": ["*"]} | spec,
    }


async def test_a_namespace_that_was_closed_stays_so_when_its_last_capability_is_deleted(world: Any) -> None:
    founder, other = Desk(world, world.node(1)), Desk(world, world.node(2, rights={"govern": False}))
    world.join(other.address, founder.address)
    world.run(2)
    results, records = await founder.apply(capability("d", other))
    assert [each["action"] for each in results] == ["created"]
    # The Capability, and beside it that the namespace is closed.
    assert records == {(founder.node.identity.id, 1), (founder.node.identity.id, 2)}
    world.run(2)
    await other.apply(document("one"))
    await founder.publishing.delete([("capability", "gossamer-system", "d")])
    world.run(2)
    with pytest.raises(
        ApiError, match="node-2 may not write TrafficPolicy in namespace default, which is closed"
    ):
        await other.apply(document("two"))
    for desk in (founder, other):
        for look in (desk.publishing.describe, desk.publishing.get):
            with pytest.raises(
                ApiError, match="default/one; one is ignored: node-2 may not write TrafficPolicy"
            ):
                look("trafficpolicy", "default", "one")
        (row,) = await desk.publishing.history("trafficpolicy", "default", "one")
        assert row["state"] == "ignored"
        assert row["reason"].startswith("node-2 may not write TrafficPolicy in namespace default")
    await founder.apply(
        capability("open") | {"spec": {"subjects": [{"node": "*"}], "namespaces": ["*"], "kinds": ["*"]}}
    )
    world.run(2)
    await other.apply(document("two"))
    assert {each["metadata"]["name"] for each in other.publishing.get("trafficpolicy", None, None)} == {
        "one",
        "two",
    }


async def test_of_several_documents_one_without_the_right_refuses_all(world: Any) -> None:
    founder, other = Desk(world, world.node(1)), Desk(world, world.node(2, rights={"govern": False}))
    world.join(other.address, founder.address)
    world.run(2)
    await founder.apply(capability("closed", namespaces=["default"]))
    world.run(2)
    mine = document("one")
    mine["metadata"]["namespace"] = "mine"
    closed, self_made = "TrafficPolicy default/one", "Capability gossamer-system/self"
    for documents, which in (
        ([mine, document("one")], closed),
        ([document("one"), mine], closed),
        ([mine, capability("self", other)], self_made),
    ):
        with pytest.raises(ApiError, match=f"^{which}: node-2 may not"):
            await other.apply(*documents)
        assert other.node.journal.heads.get(other.node.identity.id, 0) == 0
    await other.apply(mine)


async def test_what_a_person_signed_is_hers_in_history_and_her_carriers_on_the_way(world: Any) -> None:
    a, b = Desk(world, world.node(1)), Desk(world, world.node(2))
    world.join(b.address, a.address)
    world.run(2)
    ann = NodeIdentity.from_seed(b"a" * 32)
    made = []
    for number in (0, 1):
        (resource,) = parse_documents([document("one", seconds=number + 1)], "f.yaml")
        made.append(
            sign(
                resource.document, root=a.node.registry.root, key=ann.public_key,
                stamp_ms=int(world.now * 1000) + number, signer=ann.sign,
            )
        )  # fmt: skip
    results, records = await a.apply(made[0])
    (shown,) = a.publishing.get("trafficpolicy", None, "one")
    assert [each["version"] for each in results] == [shown["status"]["version"]]
    assert shown["status"]["version"].startswith(format_id(ann.id))
    assert records == {(a.node.identity.id, 1)}
    a.past.append(encode_record(a.node.journal.get(a.node.identity.id, POLICY, "TrafficPolicy/default/one")))
    await a.apply(made[1])
    world.run(2)
    at_a, at_b = (a.node.identity.id, 2), (b.node.identity.id, 1)
    for desk, places in ((a, {at_a}), (b, {at_a, at_b}), (b, {at_a})):
        results, records = await desk.apply(made[1])
        assert [each["action"] for each in results] == ["unchanged"]
        assert desk.publishing.reach("trafficpolicy", "default", "one") == dict([at_a])
        assert records == places  # the second peer holds it from now on, whatever the first does
    rows = await a.publishing.history("trafficpolicy", "default", "one")
    assert [(row["author"], row["state"]) for row in rows] == [
        (format_id(ann.id), "current"),
        (format_id(ann.id), "replaced"),
    ]
    assert [row["authorKey"] for row in (*rows, shown["status"])] == [ann.public_key.hex()] * 3


def signed(desk: Desk, author: NodeIdentity, stamp_s: float, seconds: int = 5) -> dict[str, Any]:
    """The document as its author hands it over."""
    (resource,) = parse_documents([document("one", seconds=seconds)], "f.yaml")
    return sign(
        resource.document, root=desk.node.registry.root, key=author.public_key, stamp_ms=int(stamp_s * 1000),
        signer=author.sign,
    )  # fmt: skip


async def test_what_its_author_signs_again_as_it_is_is_unchanged(world: Any) -> None:
    a, b = Desk(world, world.node(1)), Desk(world, world.node(2))
    world.join(b.address, a.address)
    world.run(2)
    ann, bob = NodeIdentity.from_seed(b"a" * 32), NodeIdentity.from_seed(b"b" * 32)
    ((created,), _) = await a.apply(signed(a, ann, world.now))
    world.run(2)
    for desk in (a, b, a, b):
        ((again,), _) = await desk.apply(signed(a, ann, world.now))
        assert (created["action"], again["action"]) == ("created", "unchanged")
        assert again["version"] == created["version"]
        world.run(2)
    heads = dict(a.node.journal.heads)
    assert (heads[a.node.identity.id], heads[b.node.identity.id]) == (1, 1)  # each carries it, once
    for changed in (
        signed(a, bob, world.now),
        signed(a, ann, world.now, seconds=6),
        document("one", seconds=6),
    ):
        ((other,), _) = await a.apply(changed)
        assert other["action"] == "configured"
        assert other["version"] != created["version"]


async def test_a_signature_that_does_not_hold_is_invalid_input(world: Any) -> None:
    desk = Desk(world, world.node(1))
    ann = NodeIdentity.from_seed(b"a" * 32)
    good = signed(desk, ann, world.now)
    forged = signed(desk, ann, world.now, seconds=6) | {"metadata": good["metadata"]}
    by_node = signed(desk, desk.node.identity, world.now)
    elsewhere = Desk(world, world.node(2))
    elsewhere.node.registry.root = b"r" * 32
    foreign = signed(elsewhere, ann, world.now)
    for bad, words in (
        (forged, "signature does not match"),
        (foreign, "signature does not match"),
        (by_node, "the key of a node is no author's"),
    ):
        with pytest.raises(ApiError, match=f"^TrafficPolicy default/one: .*{words}") as refusal:
            await desk.apply(document("two"), bad)
        assert refusal.value.code == 2
    await desk.apply(good)
    with pytest.raises(ApiError, match="signature does not match") as refusal:
        await desk.apply(foreign)  # says the same as what is there, and is not hers
    assert refusal.value.code == 2
    assert desk.node.journal.heads == {desk.node.identity.id: 1}


async def test_a_right_that_is_missing_is_no_fault_of_the_document(world: Any) -> None:
    founder, other = Desk(world, world.node(1)), Desk(world, world.node(2, rights={"govern": False}))
    world.join(other.address, founder.address)
    world.run(2)
    await founder.apply(capability("closed", namespaces=["default"]))
    world.run(2)
    with pytest.raises(ApiError, match="may not write") as refusal:
        await other.apply(signed(other, NodeIdentity.from_seed(b"a" * 32), world.now))
    assert refusal.value.code == 1


async def test_history_tells_who_wrote_what_and_what_it_replaced(world: Any) -> None:
    a, b = Desk(world, world.node(1)), Desk(world, world.node(2))
    world.join(b.address, a.address)
    world.run(2)
    await a.apply(document("one", seconds=1))
    world.run(1)
    first = a.node.journal.get(a.node.identity.id, POLICY, "TrafficPolicy/default/one")
    await b.apply(document("one", seconds=2))
    world.run(1)
    await a.publishing.delete([("TrafficPolicy", "default", "one")])
    world.run(1)
    a.past.append(encode_record(first))  # as the disk remembers it
    ids = {"a": format_id(a.node.identity.id), "b": format_id(b.node.identity.id)}
    rows = await a.publishing.history("trafficpolicy", "default", "one")
    assert [(row["version"], row["action"], row["state"], row["replaced"]) for row in rows] == [
        (f"{ids['a']}:2", "deleted", "current", [f"{ids['b']}:1"]),
        (f"{ids['b']}:1", "written", "replaced", [f"{ids['a']}:1"]),
        (f"{ids['a']}:1", "written", "replaced", []),
    ]
    assert [row["document"] and row["document"]["spec"]["timeouts"]["request"] for row in rows] == [
        None,
        "2s",
        "1s",
    ]
    assert rows[0]["author"] == ids["a"]
    assert rows[0]["writtenAt"].endswith("Z")
    assert len(await b.publishing.history("trafficpolicy", "default", "one")) == 2  # what b has seen and kept
    with pytest.raises(ApiError, match="knows no version of TrafficPolicy default/two"):
        await a.publishing.history("trafficpolicy", "default", "two")


async def test_history_of_a_conflict(world: Any) -> None:
    a, b = Desk(world, world.node(1)), Desk(world, world.node(2))
    await a.apply(document("one", seconds=1))
    await b.apply(document("one", seconds=2))
    world.join(b.address, a.address)
    world.run(2)
    rows = await a.publishing.history("trafficpolicy", "default", "one")
    assert [row["state"] for row in rows] == ["conflicting", "conflicting"]


async def test_looking_for_what_is_not_there(desk: Desk) -> None:
    assert desk.publishing.get("all", None, None) == []
    for words, look in (
        ("TrafficPolicy one in any namespace", lambda: desk.publishing.get("trafficpolicy", None, "one")),
        ("resource one in namespace shop", lambda: desk.publishing.get("all", "shop", "one")),
        ("TrafficPolicy shop/one", lambda: desk.publishing.get("trafficpolicy", "shop", "one")),
        ("TrafficPolicy default/one", lambda: desk.publishing.describe("trafficpolicy", "default", "one")),
    ):
        with pytest.raises(ApiError, match=f"there is no {words}$") as refusal:
            look()
        assert refusal.value.code == 1
    with pytest.raises(ApiError, match="teapot") as refusal:
        desk.publishing.get("teapot", None, None)
    assert refusal.value.code == 2


async def test_history_shows_what_would_not_be_obeyed_now_as_ignored_though_it_was_replaced(
    world: Any,
) -> None:
    founder, other = Desk(world, world.node(1)), Desk(world, world.node(2, rights={"govern": False}))
    world.join(other.address, founder.address)
    world.run(2)
    await other.apply(document("one", seconds=1))
    world.run(1)
    first = founder.node.journal.get(other.node.identity.id, POLICY, "TrafficPolicy/default/one")
    founder.past.append(encode_record(first))  # as the disk remembers it
    await other.apply(document("one", seconds=2))
    world.run(1)
    assert [row["state"] for row in await founder.publishing.history("trafficpolicy", "default", "one")] == [
        "current",
        "replaced",
    ]
    await founder.apply(capability("closed"))
    await founder.apply(document("one", seconds=3))
    world.run(1)
    rows = await founder.publishing.history("trafficpolicy", "default", "one")
    assert [row["state"] for row in rows] == ["current", "ignored", "ignored"]
    assert all("node-2 may not write" in row["reason"] for row in rows[1:])
