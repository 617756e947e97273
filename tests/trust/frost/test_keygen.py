"""The mathematics of key generation, against ZcashFoundation's vectors and against liars."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trust.secret import interpolate
from trust.errors import AuthorityError, DealingError
from trust.group import IDENTITY, ONE, ZERO, base_mul, point_add, scalar_add, scalar_of, scalar_sum
from trust.groupkey import KeyShare
from trust.keygen import (
    Package,
    check_package,
    check_proof,
    check_share,
    combine_packages,
    combine_shares,
    deal,
)
from trust.polynomial import commit, evaluate

A, B, C = scalar_of(1), scalar_of(2), scalar_of(3)
CONTEXT = b"\x07" * 32
L = 2**252 + 27742317777372353535851937790883648493

Vectors = Callable[[str], dict[str, Any]]


def test_reproduces_the_published_ceremony(vectors: Vectors) -> None:
    inputs = vectors("zf-vectors_dkg.json")["inputs"]
    people = {name: inputs[name] for name in ("1", "2", "3")}
    packages = {}
    for name, person in people.items():
        identifier = scalar_of(int(name))
        coefficients = (bytes.fromhex(person["signing_key"]), bytes.fromhex(person["coefficient"]))
        package = Package(
            commitment=tuple(map(bytes.fromhex, person["vss_commitments"])),
            proof=bytes.fromhex(person["proof_of_knowledge"]),
        )
        assert commit(coefficients) == package.commitment
        check_package(identifier, package, 2)
        packages[identifier] = package
        for other, share in person["signing_shares"].items():
            # "signing_shares" lists what a participant *received*, by sender.
            received = bytes.fromhex(share)
            sender = people[other]
            of_sender = (bytes.fromhex(sender["signing_key"]), bytes.fromhex(sender["coefficient"]))
            assert evaluate(of_sender, identifier) == received
    key = combine_packages(packages, packages)
    assert key.public.hex() == inputs["verifying_key"]
    finished = {}
    for name, person in people.items():
        identifier = scalar_of(int(name))
        own = evaluate(
            (bytes.fromhex(person["signing_key"]), bytes.fromhex(person["coefficient"])), identifier
        )
        received = [
            check_share(bytes.fromhex(share), packages[scalar_of(int(sender))], identifier)
            for sender, share in person["signing_shares"].items()
        ]
        share = KeyShare(key, identifier, combine_shares([own, *received]))
        assert share.secret.expose().hex() == person["signing_share"]
        assert key.verifying_share(identifier).hex() == person["verifying_share"]
        finished[identifier] = share.secret.expose()
    # The file's "secret" fields belong to none of its other values: their products with B are not in it.
    assert base_mul(interpolate(finished)).hex() == inputs["verifying_key"]


@settings(max_examples=40)  # each example is a whole ceremony
@given(st.integers(1, 4), st.integers(0, 2), st.integers(0, 2**32))
def test_honest_dealers_make_a_key_that_no_one_has(t: int, more: int, seed: int) -> None:
    entropy = Random(seed).randbytes
    people = [scalar_of(i + 1) for i in range(t + more)]
    dealings = {i: deal(i, t, entropy, context=CONTEXT) for i in people}
    for i, dealing in dealings.items():
        check_package(i, dealing.package, t, context=CONTEXT)
    key = combine_packages({i: dealing.package for i, dealing in dealings.items()}, people, epoch=3)
    assert (key.threshold, key.epoch, key.identifiers) == (t, 3, tuple(people))
    shares = {
        i: combine_shares(
            check_share(dealing.share_for(i), dealing.package, i) for dealing in dealings.values()
        )
        for i in people
    }
    for i, secret in shares.items():
        KeyShare(key, i, secret)
    assert base_mul(interpolate({i: shares[i].expose() for i in people[-t:]})) == key.public


def test_a_proof_holds_for_its_dealer_its_context_and_its_constant_alone() -> None:
    entropy = Random(4).randbytes
    package = deal(A, 2, entropy, context=CONTEXT).package
    constant = package.commitment[0]
    check_proof(A, constant, package.proof, context=CONTEXT)
    for identifier, point, context in (
        (B, constant, CONTEXT),
        (A, constant, b"\x08" * 32),
        (A, constant, b""),
        (A, package.commitment[1], CONTEXT),
    ):
        with pytest.raises(DealingError, match="proof of knowledge is wrong"):
            check_proof(identifier, point, package.proof, context=context)


def test_a_rogue_constant_has_no_proof() -> None:
    """Without the proof the last dealer could subtract the others' constants and own the key."""
    entropy = Random(5).randbytes
    honest = deal(A, 2, entropy).package
    mine = deal(B, 2, entropy)
    rogue = point_add(mine.package.commitment[0], base_mul(scalar_sum([ONE, ONE])))
    rogue_package = replace(mine.package, commitment=(rogue, mine.package.commitment[1]))
    with pytest.raises(DealingError, match="wrong"):
        check_package(B, rogue_package, 2)
    with pytest.raises(DealingError, match="wrong"):
        check_package(B, honest, 2)  # somebody else's dealing


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"\x01" * 63,
        IDENTITY + ONE,
        b"\x02" + bytes(31) + ONE,
        base_mul(ONE) + L.to_bytes(32, "little"),
    ],
    ids=["empty", "short", "identity", "off the curve", "scalar of L"],
)
def test_a_malformed_proof_is_refused(proof: bytes) -> None:
    with pytest.raises(DealingError, match="proof of knowledge"):
        check_proof(A, base_mul(ONE), proof)


def test_a_forged_proof_for_the_identity_is_refused() -> None:
    """mu * B = R holds for any R known, were the constant allowed to be nothing."""
    package = Package(commitment=(IDENTITY, base_mul(ONE)), proof=base_mul(ONE) + ONE)
    with pytest.raises(DealingError, match="identity"):
        check_package(A, package, 2)
    with pytest.raises(DealingError, match="identity"):
        check_proof(A, IDENTITY, package.proof)


def test_a_package_has_as_many_points_as_the_threshold_and_all_of_prime_order() -> None:
    package = deal(A, 3, Random(6).randbytes).package
    for threshold in (2, 4):
        with pytest.raises(DealingError, match="threshold"):
            check_package(A, package, threshold)
    for bad in (IDENTITY, bytes(32), b"\x02" + bytes(31), b"\x01"):
        for at in range(3):
            commitment = tuple(bad if i == at else point for i, point in enumerate(package.commitment))
            with pytest.raises(DealingError, match="malformed"):
                check_package(A, replace(package, commitment=commitment), 3)


def test_a_share_that_was_not_committed_to_is_refused() -> None:
    dealing = deal(A, 2, Random(7).randbytes)
    share = dealing.share_for(B)
    assert check_share(share, dealing.package, B) == share
    with pytest.raises(DealingError, match="not the one"):
        check_share(share, dealing.package, C)
    with pytest.raises(DealingError, match="not the one"):
        check_share(scalar_add(share, ONE), dealing.package, B)
    second_encoding = (int.from_bytes(share, "little") + L).to_bytes(32, "little")
    with pytest.raises(DealingError, match="malformed"):
        check_share(second_encoding, dealing.package, B)


def test_a_dealing_of_zero_refreshes_and_proves_nothing() -> None:
    dealing = deal(A, 3, Random(8).randbytes, constant=ZERO)
    check_package(A, dealing.package, 3, constant=IDENTITY)
    assert dealing.package.proof == b""
    with pytest.raises(DealingError, match="malformed"):
        check_package(A, dealing.package, 3)
    with pytest.raises(DealingError, match="no proof"):
        check_package(A, replace(dealing.package, proof=bytes(64)), 3, constant=IDENTITY)
    other = deal(A, 3, Random(8).randbytes).package
    with pytest.raises(DealingError, match="not of the constant"):
        check_package(A, replace(other, proof=b""), 3, constant=IDENTITY)
    with pytest.raises(DealingError, match="malformed"):
        check_package(
            A, replace(dealing.package, commitment=(IDENTITY, IDENTITY, base_mul(ONE))), 3, constant=IDENTITY
        )


def test_a_dealing_of_a_given_constant_is_held_to_it() -> None:
    dealing = deal(A, 2, Random(9).randbytes, context=CONTEXT, constant=scalar_of(5))
    check_package(A, dealing.package, 2, context=CONTEXT, constant=base_mul(scalar_of(5)))
    with pytest.raises(DealingError, match="not of the constant"):
        check_package(A, dealing.package, 2, context=CONTEXT, constant=base_mul(scalar_of(6)))


def test_packages_of_different_thresholds_make_no_key() -> None:
    entropy = Random(10).randbytes
    packages = {A: deal(A, 2, entropy).package, B: deal(B, 3, entropy).package}
    with pytest.raises(Exception, match="different degrees"):
        combine_packages(packages, [A, B, C])
    with pytest.raises(AuthorityError, match="not possible"):
        combine_packages({A: packages[B]}, [A, B])


def test_a_dealing_keeps_its_polynomial_to_itself() -> None:
    dealing = deal(A, 2, Random(11).randbytes, constant=scalar_of(0x1234567890))
    assert "1234567890" not in repr(dealing)
    with pytest.raises(TypeError):
        pickle.dumps(dealing)
    dealing.wipe()
    with pytest.raises(AssertionError, match="wiped"):
        dealing.share_for(B)
