"""Payloads and rights: what can be written, what is believed, and what hostile bytes come to."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.codec import pack
from crdt.counter import Tally, encode_tally
from crdt.journal import Accept, Refuse, Wait
from crdt.record import Record
from peer.catalog import ServicePort
from peer.records import (
    EPOCH,
    PAYLOAD_BYTES_MAX,
    POLICY,
    QUOTA,
    REVOCATION,
    ROLLOVER,
    SERVICE,
    UNKNOWN_KIND_BYTES_MAX,
    PayloadError,
    ServicePayload,
    decode_policy,
    decode_service,
    encode_policy,
    encode_service,
    epoch_key,
    revocation_end,
    revocation_key,
    rollover_key,
)
from tests.trust.rolled import rollover
from trust.ceremony.alone import founded_alone
from trust.epoch import EpochRecord
from trust.identity import NodeIdentity, spiffe_node
from trust.revocation import REVOCATION_S, Revocation, revoke, serial_subject, signer_subject

START_MS = 1_800_000_000_000
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
ports = st.builds(
    ServicePort,
    name=st.text(max_size=10),
    port=st.integers(1, 65535),
    target=st.integers(1, 65535),
    protocol=st.sampled_from(["http", "grpc", "tcp"]),
)
services = st.builds(
    ServicePayload,
    namespace=labels,
    name=labels,
    account=labels,
    address=st.sampled_from(["127.0.0.1", "::1", "10.1.2.3"]),
    ports=st.lists(ports, min_size=1, max_size=4).map(tuple),
    labels=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4).map(
        lambda pairs: tuple(sorted(pairs.items()))
    ),
    health=st.sampled_from(["passing", "failing", "unknown"]),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12) | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def shop(**changes: Any) -> ServicePayload:
    made = ServicePayload(
        namespace="default",
        name="shop",
        account="shop",
        address="127.0.0.1",
        ports=(ServicePort(name="", port=80, target=8080, protocol="http"),),
        labels=(),
        health="unknown",
    )
    return replace(made, **changes)


def signed(world: Any, number: int = 1, **fields: Any) -> Record:
    """A record by node `number`, registered or not."""
    identity, _ = world.mesh.member(number)
    defaults = {
        "writer": identity.id, "seq": 1, "kind": SERVICE, "key": "default/shop", "payload": encode_service(shop()),
        "context": (), "hlc": START_MS << 16, "floor": 0, "rest": bytes(32), "signature": bytes(64),
    }  # fmt: skip
    unsigned = Record(**(defaults | fields))
    return replace(unsigned, signature=identity.sign(unsigned.signing_bytes()))


@pytest.fixture
def registry(world: Any) -> Any:
    made = world.mesh.registry()
    identity, credential = world.mesh.member(1)
    assert made.introduce(identity.id, credential.encode()) == ""
    return made


# ------------------------------------------------------------------ decoders


def words_of(decode: Callable[[bytes], Any], data: bytes) -> str:
    """Why it was refused; "decoded" if it was not. Any other error than the decoder's own fails the test."""
    try:
        decode(data)
    except PayloadError as error:
        return str(error)
    return "decoded"


@given(services)
def test_a_service_comes_back_as_it_was_told(service: ServicePayload) -> None:
    assert decode_service(encode_service(service)) == service


@given(st.binary(max_size=300) | values.map(pack))
def test_bytes_that_are_no_service_are_refused_with_words(data: bytes) -> None:
    assert words_of(decode_service, data)


@given(st.sampled_from(["ns", "name", "account", "address", "ports", "labels", "health"]), values)
def test_a_service_with_one_field_replaced_is_whole_or_refused(field: str, value: Any) -> None:
    from crdt.codec import unpack

    fields = unpack(encode_service(shop()), bytes_max=9000) | {field: value}
    try:
        service = decode_service(pack(fields))
    except PayloadError:
        return
    assert decode_service(encode_service(service)) == service


@pytest.mark.parametrize("name", ["", "Shop", "a b", "a/b", "-a", "a-", "a" * 64, "sh.op", "shop\n", "ａ"])
def test_names_that_are_no_labels_cannot_reach_a_data_plane(name: str) -> None:
    for field in ("namespace", "name"):
        with pytest.raises(PayloadError):
            decode_service(encode_service(shop(**{field: name})))
    if name != "sh.op":  # an account may have dots, as in Kubernetes
        with pytest.raises(PayloadError):
            decode_service(encode_service(shop(account=name)))


@pytest.mark.parametrize(("port", "target"), [(0, 1), (1, 0), (65536, 1), (1, -1), (True, 1), ("1", 1)])
def test_ports_out_of_range_are_refused(port: Any, target: Any) -> None:
    port = ServicePort(name="", port=port, target=target, protocol="http")
    with pytest.raises(PayloadError, match="port"):
        decode_service(encode_service(shop(ports=(port,))))


def test_too_many_ports_or_labels_are_refused() -> None:
    port = ServicePort(name="", port=80, target=8080, protocol="http")
    with pytest.raises(PayloadError, match="ports"):
        decode_service(encode_service(shop(ports=(port,) * 33)))
    with pytest.raises(PayloadError, match="labels"):
        decode_service(encode_service(shop(labels=tuple((str(n), "") for n in range(65)))))


@given(st.binary(max_size=300) | values.map(pack))
def test_bytes_that_are_no_policy_are_refused_with_words(data: bytes) -> None:
    assert words_of(decode_policy, data)


@pytest.mark.parametrize("value", [0.5, float("nan"), {1: 2}, 2**70, object(), "\ud800"])
def test_a_document_no_record_can_hold_is_the_authors_error(value: Any) -> None:
    with pytest.raises(PayloadError, match="cannot be stored"):
        encode_policy({"kind": "TrafficPolicy", "spec": {"x": value}})


# ------------------------------------------------------------------ credentials


def test_a_credential_of_another_node_or_another_mesh_is_refused(world: Any, registry: Any) -> None:
    one, credential = world.mesh.member(1)
    two, other = world.mesh.member(2)
    assert registry.introduce(one.id, other.encode()) == "credential of another node"
    forged = other.signed(one.sign(other.signing_bytes()))
    assert registry.introduce(two.id, forged.encode())
    assert two.id not in registry.credentials
    assert registry.credentials[one.id] == credential


def test_of_two_credentials_issued_in_one_second_all_replicas_keep_the_same(world: Any) -> None:
    one, credential = world.mesh.member(1)
    twin = replace(credential, serial=b"s" * 16)
    twin = twin.signed(world.mesh.authority.sign(twin.signing_bytes()))
    kept = []
    for order in ((credential, twin), (twin, credential)):
        registry = world.mesh.registry()
        for each in order:
            assert registry.introduce(one.id, each.encode()) == ""
        kept.append(registry.credentials[one.id])
    assert kept[0] == kept[1]


@given(st.binary(max_size=600))
def test_bytes_that_are_no_credential_are_refused_with_words(make_world: Any, data: bytes) -> None:
    assert make_world().mesh.registry().introduce(b"w" * 16, data)


# ------------------------------------------------------------------ judging


def test_an_authentic_record_is_accepted_and_a_changed_one_refused(world: Any, registry: Any) -> None:
    record = signed(world)
    assert registry.judge(record, START_MS) == Accept()
    for changed in (
        replace(record, key="default/bank"), replace(record, seq=2), replace(record, hlc=record.hlc + 1),
        replace(record, payload=b""), replace(record, rest=b"r" * 32),
    ):  # fmt: skip
        assert registry.judge(changed, START_MS) == Refuse("bad signature")


def test_an_unknown_writer_and_a_stamp_of_the_future_have_to_wait(world: Any, registry: Any) -> None:
    assert registry.judge(signed(world, 2), START_MS) == Wait("unknown writer")
    early = signed(world, hlc=(START_MS + 5001) << 16)
    assert registry.judge(early, START_MS) == Wait("stamped in the future")
    assert registry.judge(early, START_MS + 1) == Accept()


@pytest.mark.parametrize("kind", [*PAYLOAD_BYTES_MAX, "of a later version"])
def test_a_record_larger_than_its_kind_may_be_is_refused(world: Any, registry: Any, kind: str) -> None:
    bound = PAYLOAD_BYTES_MAX.get(kind, UNKNOWN_KIND_BYTES_MAX)
    largest = registry.judge(signed(world, kind=kind, payload=bytes(bound)), START_MS)
    assert largest == Accept() or (
        kind in (REVOCATION, EPOCH, ROLLOVER) and "too large" not in largest.reason
    )
    verdict = registry.judge(signed(world, kind=kind, payload=bytes(bound + 1)), START_MS)
    assert isinstance(verdict, Refuse)
    assert "too large" in verdict.reason


def objection(world: Any, registry: Any, **fields: Any) -> str:
    return registry.objection(signed(world, **fields))


def test_what_a_service_record_may_say(world: Any, registry: Any) -> None:
    assert objection(world, registry) == ""
    assert objection(world, registry, payload=b"") == ""
    assert "key and name differ" in objection(world, registry, key="default/bank")
    assert "not a map" in objection(world, registry, payload=pack([]))


def policy(kind: str = "TrafficPolicy", **metadata: Any) -> bytes:
    named = {"name": "one", "namespace": "default"} | metadata
    return encode_policy({"kind": kind, "metadata": named, "spec": {}})


@pytest.mark.parametrize(
    ("key", "payload", "words"),
    [
        ("TrafficPolicy/default/one", policy(), ""),
        ("TrafficPolicy/default/one", b"", ""),
        ("TrafficPolicy/default", policy(), "key is not"),
        ("TrafficPolicy/default/one/more", b"", "key is not"),
        ("TrafficPolicy/default/two", policy(), "differ"),
        ("MeshConfig/default/one", policy(), "differ"),
        ("TrafficPolicy/default/one", policy(namespace=None), "differ"),
        ("TrafficPolicy/default/one", pack({"kind": "TrafficPolicy"}), "no metadata"),
        ("TrafficPolicy/default/one", pack({"kind": "TrafficPolicy", "metadata": []}), "no metadata"),
        ("TrafficPolicy/default/one", pack({"kind": 1}), "not a resource"),
        ("TrafficPolicy/default/one", b"\xc1", "type 0xc1"),
    ],
)
def test_what_a_policy_record_may_say(
    world: Any, registry: Any, key: str, payload: bytes, words: str
) -> None:
    found = objection(world, registry, kind=POLICY, key=key, payload=payload)
    assert (words in found) if words else not found


USED = encode_tally(Tally(width_ms=1000).add({"default/cart": 3}, START_MS))


@pytest.mark.parametrize(
    ("key", "payload", "words"),
    [
        ("RateLimit/default/one", USED, ""),
        ("RateLimit/default/one", b"", ""),
        ("RateLimit/default", USED, "key is not"),
        ("RateLimit/default/one/more", USED, "key is not"),
        ("RateLimit/default/one", USED[:-1], "cut short"),
        ("RateLimit/default/one", pack([1, 1000, 0, {"a": [0, -1]}]), "count"),
    ],
)
def test_what_a_quota_record_may_say(world: Any, registry: Any, key: str, payload: bytes, words: str) -> None:
    found = objection(world, registry, kind=QUOTA, key=key, payload=payload)
    assert (words in found) if words else not found


def test_a_writer_of_an_unknown_kind_is_not_objected_to(world: Any, registry: Any) -> None:
    assert objection(world, registry, kind="later", payload=b"\xff") == ""
    assert registry.objection(signed(world, 2)) == "unknown writer"


@given(
    kind=st.sampled_from([SERVICE, POLICY, QUOTA, "revocation"]),
    payload=st.binary(max_size=200) | values.map(pack),
)
def test_no_payload_whatever_breaks_the_rules(make_world: Any, kind: str, payload: bytes) -> None:
    world = make_world()
    made = world.mesh.registry()
    identity, credential = world.mesh.member(1)
    made.introduce(identity.id, credential.encode())
    assert isinstance(objection(world, made, kind=kind, key="a/b/c", payload=payload), str)


# ------------------------------------------------------------------ revocations


def revocation_of(world: Any, subject: str) -> Revocation:
    start_s = START_MS // 1000
    return revoke(
        world.mesh.authority, subject, reason="lost", now=start_s, expires_at=start_s + REVOCATION_S
    )


def test_a_revocation_stands_under_its_own_key_only(world: Any, registry: Any) -> None:
    one = revocation_of(world, serial_subject(b"\1" * 16))
    other = revocation_of(world, serial_subject(b"\2" * 16))
    good = signed(world, kind=REVOCATION, key=revocation_key(one), payload=one.encode())
    assert registry.judge(good, START_MS) == Accept()
    for changes in (
        {"payload": other.encode()},
        {"key": "certificate/5/x"},
        {"key": ""},
        {"payload": b"junk"},
    ):
        fields = {"kind": REVOCATION, "key": good.key, "payload": good.payload} | changes
        assert isinstance(registry.judge(signed(world, **fields), START_MS), Refuse), changes


@pytest.mark.parametrize(
    ("subject", "collected"),
    [
        (serial_subject(bytes(16)), True),
        (signer_subject(bytes(16)), True),
        ("spiffe://cluster.local/ns/a/sa/b", True),
        (spiffe_node("cluster.local", bytes(16)), False),
    ],
)
def test_a_revocation_is_taken_back_at_its_end_and_one_of_a_node_never(
    world: Any, registry: Any, subject: str, collected: bool
) -> None:
    entry = revocation_of(world, subject)
    end_ms = entry.expires_at * 1000

    def deleted(at_ms: int) -> Record:
        return signed(world, kind=REVOCATION, key=revocation_key(entry), payload=b"", hlc=at_ms << 16)

    assert isinstance(registry.judge(deleted(end_ms - 1), end_ms), Refuse)
    assert (registry.judge(deleted(end_ms), end_ms) == Accept()) is collected
    assert (revocation_end(revocation_key(entry)) == entry.expires_at) is collected


@pytest.mark.parametrize(
    "key", ["", "x", "workload", "workload/", "workload/x/y", "workload/-1/y", "node/1/y"]
)
def test_a_key_that_says_no_end_has_none(key: str) -> None:
    assert revocation_end(key) == math.inf
    assert revocation_end("workload/" + "9" * 13) == math.inf


# ------------------------------------------------------------------ epochs


def test_an_epoch_stands_under_its_own_key_and_is_never_taken_back(world: Any, registry: Any) -> None:
    identity = NodeIdentity.from_seed(bytes(32))
    one, _ = founded_alone(identity, "cluster.local", b"r" * 32)
    foreign, _ = founded_alone(identity, "cluster.local", b"s" * 32)
    unproven = EpochRecord(value=replace(one.value, proof=bytes(64)), attempt=0, votes=one.votes)
    good = signed(world, kind=EPOCH, key=epoch_key(one), payload=one.encode())
    assert registry.judge(good, START_MS) == Accept()
    assert registry.objection(good) == ""
    other = signed(world, kind=EPOCH, key=epoch_key(foreign), payload=foreign.encode())
    assert registry.judge(other, START_MS) == Accept(), "it may be the root that follows: `Epochs` knows"
    for key, payload in (
        (epoch_key(one), b""),
        (epoch_key(one), b"junk"),
        (epoch_key(one), bytes(PAYLOAD_BYTES_MAX[EPOCH] + 1)),
        ("0/00", one.encode()),
        (epoch_key(unproven), unproven.encode()),
    ):
        refused = registry.judge(signed(world, kind=EPOCH, key=key, payload=payload), START_MS)
        assert isinstance(refused, Refuse), payload[:20]


def test_a_rollover_proves_itself_stands_under_its_own_key_and_is_never_taken_back(
    world: Any, registry: Any
) -> None:
    made = rollover(0, 1)
    good = signed(world, kind=ROLLOVER, key=rollover_key(made), payload=made.encode())
    assert registry.judge(good, START_MS) == Accept()
    registry.revocations.add(revocation_of(world, spiffe_node("cluster.local", good.writer)))
    assert registry.objection(good) == "", "whoever carries it"
    forged = replace(made, by_old=bytes(64))
    foreign = rollover(0, 1, trust_domain="other.local")
    for key, payload in (
        (rollover_key(made), b""),
        (rollover_key(made), b"junk"),
        ("0/00", made.encode()),
        (rollover_key(forged), forged.encode()),
        (rollover_key(foreign), foreign.encode()),
    ):
        refused = registry.judge(signed(world, kind=ROLLOVER, key=key, payload=payload), START_MS)
        assert isinstance(refused, Refuse), payload[:20]


def test_an_epoch_counts_whoever_carries_it(world: Any, registry: Any) -> None:
    one, _ = founded_alone(NodeIdentity.from_seed(bytes(32)), "cluster.local", b"r" * 32)
    record = signed(world, kind=EPOCH, key=epoch_key(one), payload=one.encode())
    subject = spiffe_node("cluster.local", record.writer)
    registry.revocations.add(revocation_of(world, subject))
    assert registry.objection(record) == ""
    assert registry.objection(signed(world)) == "writer is revoked"
