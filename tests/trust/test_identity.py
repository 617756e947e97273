"""Node keys, ids and SPIFFE IDs."""

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.errors import IdentityError
from trust.identity import (
    NodeIdentity,
    NodeSpiffe,
    WorkloadSpiffe,
    check_account,
    check_label,
    check_trust_domain,
    format_id,
    node_id,
    parse_id,
    parse_spiffe,
    spiffe_node,
    spiffe_workload,
    verify,
)

SEED = bytes(range(32))


def test_matches_rfc_8032_vector_1() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    identity = NodeIdentity.from_seed(seed)
    assert identity.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert identity.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_id_is_the_hash_of_the_key_and_prints_as_26_characters() -> None:
    identity = NodeIdentity.from_seed(SEED)
    assert identity.id == hashlib.sha256(identity.public_key).digest()[:16] == node_id(identity.public_key)
    assert len(format_id(identity.id)) == 26


def test_the_same_seed_is_the_same_node_and_another_seed_another() -> None:
    first, again, other = (NodeIdentity.from_seed(seed) for seed in (SEED, SEED, b"x" * 32))
    assert (first.id, first.agreement_key) == (again.id, again.agreement_key)
    assert first.id != other.id
    assert first.agreement_key != other.agreement_key


def test_two_nodes_agree_on_one_secret() -> None:
    one, two = NodeIdentity.from_seed(SEED), NodeIdentity.from_seed(b"x" * 32)
    assert one.agree(two.agreement_key) == two.agree(one.agreement_key)
    assert one.agree(two.agreement_key) != one.agree(one.agreement_key)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31), b"short"])
def test_refuses_to_agree_with_a_key_that_would_make_the_secret_known(point: bytes) -> None:
    with pytest.raises(IdentityError):
        NodeIdentity.from_seed(SEED).agree(point)


def test_signatures_verify_and_nothing_else_does() -> None:
    identity = NodeIdentity.from_seed(SEED)
    signature = identity.sign(b"message")
    assert verify(identity.public_key, b"message", signature)
    assert not verify(identity.public_key, b"massage", signature)
    assert not verify(NodeIdentity.from_seed(b"x" * 32).public_key, b"message", signature)
    assert not verify(identity.public_key, b"message", signature[:-1])
    assert not verify(identity.public_key[:-1], b"message", signature)


@given(st.binary(max_size=40), st.binary(max_size=10), st.binary(max_size=70))
def test_verifying_arbitrary_bytes_is_false_and_no_error(
    key: bytes, message: bytes, signature: bytes
) -> None:
    assert verify(key, message, signature) is False


def test_secrets_neither_print_nor_pickle() -> None:
    identity = NodeIdentity.from_seed(SEED)
    assert repr(identity) == f"NodeIdentity({format_id(identity.id)})"
    assert not hasattr(identity, "__dict__")
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(identity)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(IdentityError, match="32 bytes, not 31"):
        NodeIdentity.from_seed(SEED[:-1])


@given(st.binary(min_size=16, max_size=16))
def test_ids_read_back_as_they_print(node: bytes) -> None:
    assert parse_id(format_id(node)) == node


@given(st.text(max_size=40) | st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=26, max_size=26))
def test_an_id_has_one_text_only(text: str) -> None:
    try:
        node = parse_id(text)
    except IdentityError:
        return
    assert format_id(node) == text


def test_an_id_in_capitals_or_with_stray_bits_is_refused() -> None:
    text = format_id(bytes(16))
    for other in (text.upper().replace("A", "B"), text[:-1] + "b", text + "a", ""):
        with pytest.raises(IdentityError):
            parse_id(other)


def test_spiffe_ids_read_back_as_they_print() -> None:
    node = NodeIdentity.from_seed(SEED).id
    assert parse_spiffe(spiffe_node("cluster.local", node)) == NodeSpiffe("cluster.local", node)
    workload = parse_spiffe(spiffe_workload("cluster.local", "shop", "cart"))
    assert workload == WorkloadSpiffe("cluster.local", "shop", "cart")
    assert workload.uri == "spiffe://cluster.local/ns/shop/sa/cart"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "cluster.local/ns/a/sa/b",
        "https://cluster.local/ns/a/sa/b",
        "SPIFFE://cluster.local/ns/a/sa/b",
        "spiffe://Cluster.local/ns/a/sa/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://user@cluster.local/ns/a/sa/b",
        "spiffe://cluster.local:80/ns/a/sa/b",
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/a/sa/b/",
        "spiffe://cluster.local/ns/a/sa/b?x=1",
        "spiffe://cluster.local/ns/a/sa/b#x",
        "spiffe://cluster.local/ns/a/sa/%62",
        "spiffe://cluster.local/ns//sa/b",
        "spiffe://cluster.local/ns/../sa/b",
        "spiffe://cluster.local/ns/a/sa/b\n",
        "spiffe://cluster.local\n/ns/a/sa/b",
        "spiffe://cluster.local/node/short",
        "spiffe://cluster.local/workload/b",
        "spiffe://" + "a" * 64 + "/ns/a/sa/b",
        "spiffe://cluster.local/ns/a/sa/" + "b" * 3000,
    ],
)
def test_refuses_what_is_no_spiffe_id_of_this_mesh(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_spiffe(uri)


@given(st.text(max_size=80) | st.from_regex(r"spiffe://[a-z.]{0,5}/(ns|node|sa)/.{0,9}/(sa)?/.{0,9}"))
def test_a_spiffe_id_has_one_text_only(uri: str) -> None:
    try:
        parsed = parse_spiffe(uri)
    except IdentityError:
        return
    assert parsed.uri == uri


def test_names_are_those_of_kubernetes() -> None:
    assert check_label("cart-2") == "cart-2"
    assert check_account("build.bot") == "build.bot"
    assert check_trust_domain("cluster.local") == "cluster.local"
    for bad in ("", "-a", "a-", "A", "a_b", "a" * 64, "a.b", "*", "a\n"):
        with pytest.raises(IdentityError):
            check_label(bad)
    for bad in ("", ".", "a..b", "a.", "x" * 64):
        with pytest.raises(IdentityError):
            check_account(bad)
    for bad in ("", "Cluster", "a/b", "x" * 64):
        with pytest.raises(IdentityError):
            check_trust_domain(bad)
