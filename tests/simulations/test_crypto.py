"""The stand-in refuses what the real thing refuses, short of forgery."""

import pytest
from cryptography.exceptions import InvalidTag

from crdt.delta import Accept, Refuse, Wait
from crdt.journal import Journal
from simulations.crypto import Costs, Meter, ModelCrypto, ModelIdentity
from simulations.mesh import TRUST_DOMAIN, ModelMesh, RealMesh
from trust.errors import CredentialError

NOW = 1_800_000_000.0


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def mesh(meter: Meter) -> ModelMesh:
    return ModelMesh(1, ttl_s=1000, costs=Costs(), meter=meter)


def test_a_signature_holds_for_its_bytes_and_its_key_only(meter: Meter) -> None:
    one, other = (ModelIdentity(seed * 32, Costs(), meter) for seed in (b"a", b"b"))
    crypto = ModelCrypto(Costs(), meter)
    signature = one.sign(b"message")
    assert len(signature) == 64
    assert crypto.verify(one.public_key, b"message", signature)
    assert not crypto.verify(one.public_key, b"massage", signature)
    assert not crypto.verify(other.public_key, b"message", signature)
    assert one.agree(other.agreement_key) == other.agree(one.agreement_key)


def test_what_is_sealed_for_one_node_opens_at_that_node_only(meter: Meter) -> None:
    a, b, c = (ModelIdentity(seed * 32, Costs(), meter) for seed in (b"a", b"b", b"c"))
    crypto = ModelCrypto(Costs(), meter)
    sealed = crypto.keyring(a, keys_max=8).sending(b.id, b.agreement_key, 1).encrypt(b"", b"body", b"")
    assert len(sealed) == len(b"body") + 16
    assert (
        crypto.keyring(b, keys_max=8).receiving(a.id, a.agreement_key, 1, keep=True).decrypt(b"", sealed, b"")
        == b"body"
    )
    with pytest.raises(InvalidTag):
        crypto.keyring(c, keys_max=8).receiving(a.id, a.agreement_key, 1, keep=True).decrypt(b"", sealed, b"")


def test_what_is_done_is_charged(meter: Meter) -> None:
    identity, crypto = ModelIdentity(b"a" * 32, Costs(), meter), ModelCrypto(Costs(), meter)
    crypto.verify(identity.public_key, b"m", identity.sign(b"m"))
    assert meter.s == pytest.approx(Costs().sign_s + Costs().verify_s)


@pytest.mark.parametrize("kind", ["real", "model"])
def test_credentials_are_judged_alike_by_both_meshes(kind: str, mesh: ModelMesh) -> None:
    judged = mesh if kind == "model" else RealMesh(1, ttl_s=1000)
    stranger = (
        RealMesh(2, ttl_s=1000) if kind == "real" else ModelMesh(2, ttl_s=1000, costs=Costs(), meter=Meter())
    )
    identity = judged.identity(0, 1)
    credential = judged.credential(identity, "n0", NOW)
    root = judged.registry().root
    judged.crypto.verify_credential(credential, root, TRUST_DOMAIN, NOW)
    for bad, now in (
        (credential, NOW + 1000),
        (stranger.credential(stranger.identity(0, 1), "n0", NOW), NOW),
        (credential.signed(bytes(64)), NOW),
    ):
        with pytest.raises(CredentialError):
            judged.crypto.verify_credential(bad, root, TRUST_DOMAIN, now)
    assert judged.identity(0, 1).id == identity.id
    assert len({judged.identity(0, 2).id, judged.identity(1, 1).id, identity.id}) == 3


@pytest.mark.parametrize("kind", ["real", "model"])
def test_records_are_judged_alike_by_both_registries(kind: str, mesh: ModelMesh) -> None:
    judged = mesh if kind == "model" else RealMesh(1, ttl_s=1000)
    identity = judged.identity(0, 1)
    credential = judged.credential(identity, "n0", NOW)
    registry = judged.registry()
    journal = Journal(verify=registry.judge)
    record = journal.draft(
        writer=identity.id, kind="note", key="k", payload=b"p", now_ms=int(NOW * 1000), sign=identity.sign
    )
    assert isinstance(registry.judge(record, int(NOW * 1000)), Wait)
    assert registry.introduce(identity.id, credential.encode()) == ""
    assert registry.introduce(bytes(16), credential.encode()) == "credential of another node"
    assert isinstance(registry.judge(record, int(NOW * 1000)), Accept)
    assert isinstance(registry.judge(record, int(NOW * 1000) - 6000), Wait)
    other = journal.draft(
        writer=identity.id,
        kind="note",
        key="other",
        payload=b"p",
        now_ms=int(NOW * 1000),
        sign=lambda _: bytes(64),
    )
    assert isinstance(registry.judge(other, int(NOW * 1000)), Refuse)
