"""FROST against the published vectors, both Ed25519 verifiers, and everything a participant can send wrong."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from tests.trust.secret import interpolate
from trust.errors import FrostError
from trust.frost import (
    Commitment,
    Nonces,
    aggregate,
    new_nonces,
    sign_share,
    transcript,
    verify_share,
)
from trust.group import (
    IDENTITY,
    ONE,
    ZERO,
    Secret,
    base_mul,
    point_add,
    scalar_add,
    scalar_invert,
    scalar_mul,
    scalar_of,
    scalar_sub,
    scalar_sum,
)
from trust.groupkey import KeyShare, group_key
from trust.identity import verify
from trust.polynomial import evaluate, interpolate_points, lagrange

L = 2**252 + 27742317777372353535851937790883648493
MESSAGE = b"issue this"
NewGroup = Callable[..., Any]
FILES = ("cfrg-frost-ed25519-sha512.json", "zf-vectors.json", "zf-vectors-big-identifier.json")


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def stream(*chunks: bytes) -> Callable[[int], bytes]:
    rest: Iterator[bytes] = iter(chunks)

    def entropy(size: int) -> bytes:
        chunk = next(rest)
        assert len(chunk) == size
        return chunk

    return entropy


# ------------------------------------------------------------------ vectors


@pytest.mark.parametrize("name", FILES)
def test_reproduces_every_published_value(vectors: Callable[[str], dict[str, Any]], name: str) -> None:
    vector = vectors(name)
    inputs, message = vector["inputs"], unhex(vector["inputs"]["message"])
    threshold = int(vector["config"]["MIN_PARTICIPANTS"])
    coefficients = tuple(map(unhex, [inputs["group_secret_key"], *inputs["share_polynomial_coefficients"]]))
    public = base_mul(coefficients[0])
    assert public.hex() == inputs.get("group_public_key", inputs.get("verifying_key_key"))
    secrets = {
        scalar_of(entry["identifier"]): unhex(entry["participant_share"])
        for entry in inputs["participant_shares"]
    }
    assert len(secrets) == int(vector["config"]["MAX_PARTICIPANTS"])
    for identifier, secret in secrets.items():
        assert evaluate(coefficients, identifier) == secret
    signers = [scalar_of(number) for number in inputs["participant_list"]]
    key = group_key(public, threshold, [(i, base_mul(secrets[i])) for i in signers])
    first = {scalar_of(entry["identifier"]): entry for entry in vector["round_one_outputs"]["outputs"]}
    assert list(first) == signers
    shares, nonces = {}, {}
    for i, entry in first.items():
        shares[i] = KeyShare(key, i, Secret(secrets[i]))
        random = stream(unhex(entry["hiding_nonce_randomness"]), unhex(entry["binding_nonce_randomness"]))
        nonces[i] = new_nonces(shares[i], random)
        assert nonces[i]._hiding.expose().hex() == entry["hiding_nonce"]
        assert nonces[i]._binding.expose().hex() == entry["binding_nonce"]
        assert nonces[i].commitment.hiding.hex() == entry["hiding_nonce_commitment"]
        assert nonces[i].commitment.binding.hex() == entry["binding_nonce_commitment"]
    commitments = [nonces[i].commitment for i in signers]
    agreed = transcript(key, message, commitments[::-1])
    assert {i: agreed.factors[i].hex() for i in signers} == {
        i: entry["binding_factor"] for i, entry in first.items()
    }
    parts = {i: sign_share(shares[i], nonces[i], message, commitments) for i in signers}
    assert {i: part.hex() for i, part in parts.items()} == {
        scalar_of(entry["identifier"]): entry["sig_share"] for entry in vector["round_two_outputs"]["outputs"]
    }
    assert all(verify_share(agreed, i, part) for i, part in parts.items())
    assert aggregate(agreed, parts).hex() == vector["final_output"]["sig"]


# ------------------------------------------------------------------ honest signers


def prepare(group: Any, signers: list[bytes]) -> tuple[dict[bytes, Nonces], list[Commitment]]:
    nonces = {i: new_nonces(group.shares[i], group.entropy) for i in signers}
    return nonces, [nonces[i].commitment for i in signers]


def sign(group: Any, signers: list[bytes], message: bytes = MESSAGE) -> bytes:
    nonces, commitments = prepare(group, signers)
    parts = {i: sign_share(group.shares[i], nonces[i], message, commitments) for i in signers}
    return aggregate(transcript(group.key, message, commitments), parts)


@settings(max_examples=60)  # each example signs several times
@given(st.data())
def test_any_t_or_more_signers_make_a_plain_ed25519_signature(
    new_group: NewGroup, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 6), "n")
    t = data.draw(st.integers(1, n), "t")
    group = new_group(t, n, data.draw(st.integers(0, 3), "seed"))
    signers = data.draw(
        st.lists(st.sampled_from(sorted(group.shares)), min_size=t, max_size=n, unique=True), "signers"
    )
    message = data.draw(st.binary(max_size=100), "message")
    signature = sign(group, signers, message)
    VerifyKey(group.key.public).verify(message, signature)
    Ed25519PublicKey.from_public_bytes(group.key.public).verify(signature, message)
    with pytest.raises(BadSignatureError):
        VerifyKey(group.key.public).verify(message + b"!", signature)


def test_two_signatures_of_one_message_share_nothing(new_group: NewGroup) -> None:
    group = new_group(2, 3)
    assert sign(group, [ONE, scalar_of(2)])[:32] != sign(group, [ONE, scalar_of(2)])[:32]


# ------------------------------------------------------------------ nonces


def test_nonces_serve_once_and_are_overwritten_before_the_share_is_there(new_group: NewGroup) -> None:
    group = new_group(2, 3)
    nonces, commitments = prepare(group, [ONE, scalar_of(2)])
    mine = nonces[ONE]
    sign_share(group.shares[ONE], mine, MESSAGE, commitments)
    assert mine.used
    assert bytes(mine._hiding._data) == bytes(mine._binding._data) == ZERO
    for message in (MESSAGE, b"another"):
        with pytest.raises(FrostError, match="have been used"):
            sign_share(group.shares[ONE], mine, message, commitments)
    with pytest.raises(FrostError, match="have been used"):
        mine.take()


def test_nonces_are_gone_also_when_the_call_refuses(new_group: NewGroup) -> None:
    group = new_group(2, 3)
    for spoil in (
        lambda commitments: commitments[:1],
        lambda commitments: [commitments[0], commitments[0]],
        lambda commitments: [commitments[0], replace(commitments[1], hiding=IDENTITY)],
        lambda commitments: [replace(commitments[0], hiding=commitments[1].hiding), commitments[1]],
    ):
        nonces, commitments = prepare(group, [ONE, scalar_of(2)])
        with pytest.raises(FrostError):
            sign_share(group.shares[ONE], nonces[ONE], MESSAGE, spoil(commitments))
        assert nonces[ONE].used
        with pytest.raises(FrostError, match="have been used"):
            sign_share(group.shares[ONE], nonces[ONE], MESSAGE, commitments)


def test_what_a_nonce_used_twice_would_give_away(new_group: NewGroup) -> None:
    """Why they are single-use: three shares under one pair of nonces are three linear equations in (d, e, s)."""
    group = new_group(2, 2)
    share = group.shares[ONE]
    entropy = group.entropy
    hiding, binding = Random(1).randbytes(31) + b"\0", Random(2).randbytes(31) + b"\0"
    equations = []
    for message in (b"1", b"2", b"3"):
        reused = Nonces(ONE, Secret(hiding), Secret(binding))
        commitments = [reused.commitment, new_nonces(group.shares[scalar_of(2)], entropy).commitment]
        agreed = transcript(group.key, message, commitments)
        part = sign_share(share, reused, message, commitments)
        equations.append((agreed.factors[ONE], agreed.weight(ONE), part))
    (a1, b1, c1), (a2, b2, c2) = (
        tuple(scalar_sub(x, y) for x, y in zip(later, equations[0], strict=True)) for later in equations[1:]
    )
    determinant = scalar_sub(scalar_mul(a1, b2), scalar_mul(a2, b1))
    stolen = scalar_mul(scalar_sub(scalar_mul(a1, c2), scalar_mul(a2, c1)), scalar_invert(determinant))
    assert stolen == share.secret.expose()


def test_nonces_are_hedged_with_the_share(new_group: NewGroup) -> None:
    """A source of randomness that repeats itself, or that an attacker knows, is not enough to know a nonce."""
    group = new_group(2, 3)
    stuck = [new_nonces(share, bytes).commitment for share in group.shares.values()]
    assert len({commitment.hiding for commitment in stuck}) == len(stuck)


def test_nonces_are_neither_printed_nor_pickled(new_group: NewGroup) -> None:
    nonces = new_nonces(new_group(2, 3).shares[ONE], Random(1).randbytes)
    assert repr(nonces) == "Nonces(used=False)"
    with pytest.raises(TypeError):
        pickle.dumps(nonces)


# ------------------------------------------------------------------ what the set must be


def test_a_set_that_is_too_small_doubled_or_foreign_is_refused(new_group: NewGroup) -> None:
    group = new_group(3, 5)
    _, commitments = prepare(group, [scalar_of(i) for i in (1, 2, 3)])
    first, second, third = commitments
    for wrong, reason in (
        ([first, second], "2 signers are too few, 3 are needed"),
        ([], "0 signers"),
        ([first, second, second], "twice"),
        ([first, second, third, replace(third, hiding=first.hiding)], "twice"),
        ([first, second, replace(third, identifier=scalar_of(6))], "does not belong"),
        ([first, second, replace(third, identifier=ZERO)], "does not belong"),
        ([first, second, replace(third, identifier=b"")], "does not belong"),
    ):
        with pytest.raises(FrostError, match=reason) as caught:
            transcript(group.key, MESSAGE, wrong)
        assert caught.value.culprits == ()


BAD_POINTS = {
    "identity": IDENTITY,
    "order 2": (2**255 - 20).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 8": unhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "mixed order": point_add(base_mul(ONE), bytes(32)),
    "twice the prime order": point_add(base_mul(ONE), (2**255 - 20).to_bytes(32, "little")),
    "off the curve": b"\x02" + bytes(31),
    "not canonical": (2**255 - 18).to_bytes(32, "little"),
    "short": b"\x01" * 31,
    "empty": b"",
}


@pytest.mark.parametrize("bad", BAD_POINTS.values(), ids=BAD_POINTS)
def test_a_commitment_that_is_no_point_names_its_sender(new_group: NewGroup, bad: bytes) -> None:
    group = new_group(2, 3)
    _, (first, second) = prepare(group, [ONE, scalar_of(2)])
    for spoilt in (replace(second, hiding=bad), replace(second, binding=bad)):
        with pytest.raises(FrostError, match="not points") as caught:
            transcript(group.key, MESSAGE, [first, spoilt])
        assert caught.value.culprits == (scalar_of(2),)


def test_commitments_that_cancel_each_other_are_refused(
    new_group: NewGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The binding factors make this infeasible to bring about, so the sum is replaced."""
    group = new_group(2, 3)
    _, commitments = prepare(group, [ONE, scalar_of(2)])
    monkeypatch.setattr("trust.frost.point_sum", lambda points: IDENTITY)
    with pytest.raises(FrostError, match="cancel"):
        transcript(group.key, MESSAGE, commitments)


def test_a_signer_sees_that_its_own_commitment_was_replaced_or_left_out(new_group: NewGroup) -> None:
    group = new_group(2, 3)
    two, three = scalar_of(2), scalar_of(3)
    nonces, commitments = prepare(group, [ONE, two, three])
    other = new_nonces(group.shares[ONE], group.entropy).commitment
    for altered, mine in (
        (commitments[1:], ONE),
        ([other, *commitments[1:]], ONE),
    ):
        fresh = new_nonces(group.shares[mine], group.entropy)
        with pytest.raises(FrostError, match="own commitment"):
            sign_share(group.shares[mine], fresh, MESSAGE, altered)
    with pytest.raises(FrostError, match="own commitment"):  # somebody else's nonces
        sign_share(group.shares[ONE], nonces[two], MESSAGE, commitments)


def test_a_tampered_commitment_makes_the_honest_share_useless(new_group: NewGroup) -> None:
    """The coordinator shows signer 1 another commitment of signer 2 than signer 2 made: no signature, and no blame for
    signer 2 under the set that it saw itself."""
    group = new_group(2, 3)
    two = scalar_of(2)
    nonces, commitments = prepare(group, [ONE, two])
    forged = [commitments[0], replace(commitments[1], hiding=commitments[1].binding)]
    parts = {
        ONE: sign_share(group.shares[ONE], nonces[ONE], MESSAGE, forged),
        two: sign_share(group.shares[two], nonces[two], MESSAGE, commitments),
    }
    with pytest.raises(FrostError) as caught:
        aggregate(transcript(group.key, MESSAGE, commitments), parts)
    assert caught.value.culprits == (ONE,)
    with pytest.raises(FrostError) as caught:
        aggregate(transcript(group.key, MESSAGE, forged), parts)
    assert caught.value.culprits == (two,)


# ------------------------------------------------------------------ shares


@settings(max_examples=60)  # each example signs several times
@given(st.integers(0, 2**32))
def test_exactly_the_liars_are_named(new_group: NewGroup, seed: int) -> None:
    rng = Random(seed)
    group = new_group(3, 5)
    signers = rng.sample(sorted(group.shares), rng.randint(3, 5))
    nonces, commitments = prepare(group, signers)
    parts = {i: sign_share(group.shares[i], nonces[i], MESSAGE, commitments) for i in signers}
    liars = set(rng.sample(signers, rng.randint(1, len(signers))))
    for liar in liars:
        part = parts[liar]
        parts[liar] = rng.choice(
            [
                scalar_add(part, scalar_of(rng.randint(1, 1000))),
                scalar_sub(ZERO, part),
                (int.from_bytes(part, "little") + L).to_bytes(32, "little"),  # right, but not canonical
                L.to_bytes(32, "little"),
                b"\xff" * 32,
                rng.randbytes(rng.randint(0, 40)),
                b"",
                ZERO,
            ]
        )
    with pytest.raises(FrostError, match="wrong") as caught:
        aggregate(transcript(group.key, MESSAGE, commitments), parts)
    assert set(caught.value.culprits) == liars


def test_errors_that_cancel_are_a_signature_all_the_same(new_group: NewGroup) -> None:
    """Two liars whose lies add up to nothing did no harm: what is returned is checked, not how it came about."""
    group = new_group(2, 3)
    two = scalar_of(2)
    nonces, commitments = prepare(group, [ONE, two])
    parts = {i: sign_share(group.shares[i], nonces[i], MESSAGE, commitments) for i in (ONE, two)}
    parts = {ONE: scalar_add(parts[ONE], ONE), two: scalar_sub(parts[two], ONE)}
    agreed = transcript(group.key, MESSAGE, commitments)
    assert not verify_share(agreed, ONE, parts[ONE])
    assert verify(group.key.public, MESSAGE, aggregate(agreed, parts))


def test_a_share_for_another_message_or_session_is_worth_nothing(new_group: NewGroup) -> None:
    group = new_group(2, 3)
    two = scalar_of(2)
    nonces, commitments = prepare(group, [ONE, two])
    old = sign_share(group.shares[ONE], nonces[ONE], MESSAGE, commitments)
    assert verify_share(transcript(group.key, MESSAGE, commitments), ONE, old)
    assert not verify_share(transcript(group.key, MESSAGE, commitments), two, old)
    assert not verify_share(transcript(group.key, b"another", commitments), ONE, old)
    _, later = prepare(group, [ONE, two])
    for mixed in (later, [commitments[0], later[1]], [*commitments, prepare(group, [scalar_of(3)])[1][0]]):
        assert not verify_share(transcript(group.key, MESSAGE, mixed), ONE, old)
    assert not verify_share(transcript(group.key, MESSAGE, commitments), scalar_of(3), old)
    assert not verify_share(transcript(group.key, MESSAGE, commitments), scalar_of(9), old)


def test_missing_shares_are_named_and_foreign_ones_refused(new_group: NewGroup) -> None:
    group = new_group(2, 3)
    two = scalar_of(2)
    nonces, commitments = prepare(group, [ONE, two])
    parts = {i: sign_share(group.shares[i], nonces[i], MESSAGE, commitments) for i in (ONE, two)}
    agreed = transcript(group.key, MESSAGE, commitments)
    with pytest.raises(FrostError, match="missing") as caught:
        aggregate(agreed, {ONE: parts[ONE]})
    assert caught.value.culprits == (two,)
    with pytest.raises(FrostError, match="not in the set"):
        aggregate(agreed, {**parts, scalar_of(3): ONE})


# ------------------------------------------------------------------ one signer too few
#
# What can be tested of "t-1 colluders cannot sign" is that each way they have of trying, given all they can ever know
# (their shares and nonces, every message of every session, all public values), makes no signature. That no other way
# exists is the unforgeability theorem (RFC 9591, 7), and that their shares say nothing at all about the key is shown
# in test_polynomial: they are consistent with every secret.


@settings(max_examples=25)  # each example signs several times
@given(st.integers(2, 4), st.integers(0, 1), st.integers(0, 2**32))
def test_t_minus_1_colluders_make_no_signature(new_group: NewGroup, t: int, more: int, seed: int) -> None:
    group = new_group(t, t + more)
    rng = Random(seed)
    colluders = rng.sample(sorted(group.shares), t - 1)
    victim = rng.choice([i for i in group.shares if i not in colluders])
    stolen = {i: group.shares[i].secret.expose() for i in colluders}
    # They took part in sessions with the victim: this is all that it ever said.
    said = []
    for number in range(3):
        signers = [*colluders, victim]
        nonces, commitments = prepare(group, signers)
        message = f"honest {number}".encode()
        part = sign_share(group.shares[victim], nonces[victim], message, commitments)
        assert verify_share(transcript(group.key, message, commitments), victim, part)
        said.append((commitments[-1], part, message))
    target = b"a certificate that the victim never saw"

    # 1. They leave the victim out: the code refuses the set ...
    nonces, commitments = prepare(group, colluders)
    with pytest.raises(FrostError, match="too few"):
        transcript(group.key, target, commitments)
    # ... and interpolation over t-1 points gives another key, under which they do sign, and only under that one.
    wrong_secret = interpolate(stolen)
    wrong_key = interpolate_points({i: group.key.verifying_share(i) for i in colluders})
    assert base_mul(wrong_secret) == wrong_key != group.key.public
    small = group_key(wrong_key, t - 1, [(i, base_mul(s)) for i, s in stolen.items()])
    parts = {
        i: sign_share(KeyShare(small, i, Secret(stolen[i])), nonces[i], target, commitments)
        for i in colluders
    }
    signature = aggregate(transcript(small, target, commitments), parts)
    assert verify(wrong_key, target, signature)
    assert not verify(group.key.public, target, signature)

    # 2. They give the victim's commitment of an old session and whatever can be made of its shares.
    old, part, _ = said[0]
    nonces = {i: new_nonces(group.shares[i], group.entropy) for i in colluders}
    commitments = [*(nonces[i].commitment for i in colluders), old]
    agreed = transcript(group.key, target, commitments)
    own = {i: sign_share(group.shares[i], nonces[i], target, commitments) for i in colluders}
    olds = [part for _, part, _ in said]
    for guess in (
        *olds,
        scalar_sum(olds),
        scalar_sub(olds[0], olds[1]),
        scalar_sub(ZERO, part),
        scalar_mul(part, agreed.challenge),
        ZERO,
        wrong_secret,
    ):
        with pytest.raises(FrostError) as caught:
            aggregate(agreed, {**own, victim: guess})
        assert caught.value.culprits == (victim,)

    # 3. They choose the victim's commitment themselves, knowing its nonces; what lacks is its share of the key.
    hiding, binding = group.entropy(31) + b"\0", group.entropy(31) + b"\0"
    forged = Nonces(victim, Secret(hiding), Secret(binding))
    nonces = {i: new_nonces(group.shares[i], group.entropy) for i in colluders}
    commitments = [*(nonces[i].commitment for i in colluders), forged.commitment]
    agreed = transcript(group.key, target, commitments)
    own = {i: sign_share(group.shares[i], nonces[i], target, commitments) for i in colluders}
    without_key = scalar_add(hiding, scalar_mul(binding, agreed.factors[victim]))
    with pytest.raises(FrostError) as caught:
        aggregate(agreed, {**own, victim: without_key})
    assert caught.value.culprits == (victim,)
    # With it they would: the test above fails for want of this alone.
    weight = scalar_mul(agreed.challenge, lagrange(victim, agreed.points))
    with_key = scalar_add(without_key, scalar_mul(weight, group.shares[victim].secret.expose()))
    assert verify(group.key.public, target, aggregate(agreed, {**own, victim: with_key}))
