"""Becoming and staying a member: founding, joining, resuming, and an expired credential at a restart."""

import secrets
from dataclasses import replace
from typing import Any

import pytest

import peer.establish
from peer.config import load_config
from peer.establish import EstablishError, establish
from peer.io.keys import KeyFile, KeyFileError, Keys, write_private
from trust.admission import create_token
from trust.authority import SoleAuthority
from trust.bootstrap import BootstrapSecret
from trust.credential import CREDENTIAL_TTL_S, decode_credential
from trust.held import HeldAuthority
from trust.revocation import RENEWAL_GRACE_S

DAY_S = 86_400


@pytest.fixture(autouse=True)
def impatient(monkeypatch: Any) -> None:
    monkeypatch.setattr(peer.establish, "JOIN_TRIES_S", 0.1)
    monkeypatch.setattr(peer.establish, "RETRY_S", 0.05)


@pytest.fixture
def config(tmp_path: Any) -> Any:
    return load_config(None, {}, {"data_dir": str(tmp_path), "name": "host-1", "bind": "127.0.0.1"})


@pytest.fixture
def keys(tmp_path: Any) -> Keys:
    return Keys.open(tmp_path)


def token_of(live: Any, person: Any, address: Any) -> str:
    return create_token(
        person.identity,
        person.credential,
        root_public=live.authority.root_public,
        seeds=[address],
        services=["default/shop"],
        now=live.now(),
        entropy=bytes,
        ttl_s=600,
        uses=1,
        publish=True,
        invite=False,
    ).text


async def test_a_founder_is_the_same_signer_after_a_restart(config: Any, keys: Keys, live: Any) -> None:
    first = await establish(replace(config, bootstrap=True), keys, live.now)
    again = await establish(config, keys, live.now)
    assert (first.first_start, again.first_start) == (True, False)
    assert again.identity.id == first.identity.id
    assert again.membership == first.membership
    assert again.custody.signers == (first.identity.public_key,)
    assert [share.group.public for share in again.custody.shares] == [first.membership.root_public]
    assert not keys.path(KeyFile.AUTHORITY_SEED).exists()


async def test_who_founded_a_mesh_before_anybody_governed_governs_from_the_next_start_on(
    config: Any, keys: Keys, live: Any
) -> None:
    first = await establish(replace(config, bootstrap=True), keys, live.now)
    assert first.membership.credential.govern
    old = replace(first.membership.credential, govern=False)
    authority = HeldAuthority(first.custody.shares, secrets.token_bytes)
    keys.write(KeyFile.CREDENTIAL, old.signed(authority.sign(old.signing_bytes())).encode())
    again = await establish(config, keys, live.now)
    credential = again.membership.credential
    assert credential.govern
    assert credential.issued_at > old.issued_at  # so that it replaces the old one everywhere
    assert decode_credential(keys.read(KeyFile.CREDENTIAL) or b"") == credential
    assert (await establish(config, keys, live.now)).membership == again.membership


async def test_bootstrapping_again_or_another_token_changes_nothing(
    config: Any, keys: Keys, live: Any
) -> None:
    first = await establish(replace(config, bootstrap=True), keys, live.now)
    again = await establish(replace(config, bootstrap=True, token="gsm1.x"), keys, live.now)
    assert again.membership == first.membership


@pytest.mark.parametrize(
    "done", [[], [KeyFile.ROOT_CERTIFICATE], [KeyFile.ROOT_CERTIFICATE, KeyFile.CREDENTIAL]]
)
async def test_a_founding_cut_short_is_finished_with_the_same_keys(
    config: Any, keys: Keys, live: Any, monkeypatch: Any, done: list[KeyFile]
) -> None:
    founder = replace(config, bootstrap=True)
    with monkeypatch.context() as broken:
        broken.setattr("peer.establish.Custody.load", lambda *_args, **_fields: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await establish(founder, keys, live.now)
    seed = keys.read(KeyFile.AUTHORITY_SEED)
    assert seed is not None
    for file in (KeyFile.ROOT_CERTIFICATE, KeyFile.CREDENTIAL):
        if file not in done:
            keys.path(file).unlink()
    first = SoleAuthority.from_seed(seed, holder=bytes(16))
    again = await establish(founder, keys, live.now)
    assert again.membership.root_public == first.root_public
    assert [share.group.public for share in again.custody.shares] == [first.root_public]
    assert not keys.path(KeyFile.AUTHORITY_SEED).exists()


async def test_a_founder_that_lost_its_credential_certifies_itself_again(
    config: Any, keys: Keys, live: Any
) -> None:
    founder = replace(config, bootstrap=True)
    first = await establish(founder, keys, live.now)
    keys.path(KeyFile.CREDENTIAL).unlink()
    again = await establish(founder, keys, live.now)
    assert again.membership.root_certificate == first.membership.root_certificate
    assert again.identity.id == first.identity.id
    assert again.membership.root_public == first.membership.root_public


async def test_a_newcomer_joins_and_a_joining_cut_short_takes_the_same_token(
    config: Any, keys: Keys, live: Any, post: Any
) -> None:
    signer = await post(live.member(1), signer=True)
    joining = replace(config, token=token_of(live, signer.person, signer.address))
    first = await establish(joining, keys, live.now)
    assert first.met == (signer.address,)
    assert (first.custody.shares, first.custody.record) == ((), None)
    keys.path(KeyFile.CREDENTIAL).unlink()  # the crash came before it was on disk
    again = await establish(joining, keys, live.now)
    assert again.identity.id == first.identity.id
    assert len(live.spends) == 1


async def test_nobody_becomes_a_member_by_accident(config: Any, keys: Keys, live: Any) -> None:
    with pytest.raises(EstablishError, match="--bootstrap, or join one with --token"):
        await establish(config, keys, live.now)
    with pytest.raises(EstablishError):
        await establish(replace(config, token="gsm1.nonsense"), keys, live.now)


async def test_a_bootstrap_token_that_has_ended_founds_nothing(config: Any, keys: Keys, live: Any) -> None:
    ended = BootstrapSecret(b"s" * 32, int(live.now()) - 7200)
    with pytest.raises(EstablishError, match="the bootstrap token ended 2 hours ago: make another one"):
        await establish(replace(config, bootstrap_expect=3, bootstrap_secret=ended), keys, live.now)
    assert keys.read(KeyFile.FOUNDERS) is None


async def test_seeds_that_do_not_answer_are_tried_for_a_while_and_named(
    config: Any, keys: Keys, live: Any, caplog: Any
) -> None:
    text = token_of(live, live.member(1), ("127.0.0.1", 1))
    with pytest.raises(EstablishError, match=r"127\.0\.0\.1:1.*tried for"):
        await establish(replace(config, token=text), keys, live.now)
    assert "signers_unreachable" in caplog.text


async def test_an_expired_credential_is_renewed_at_a_member_of_the_last_run(
    config: Any, keys: Keys, live: Any, post: Any
) -> None:
    """The host was off for a week and a half; it has no seed, but it has met others."""
    live.advance_s = -(CREDENTIAL_TTL_S + 3 * DAY_S)
    person = live.member(2)
    live.advance_s = 0
    keys.write(KeyFile.NODE_SEED, bytes([2]) * 32)
    keys.write(KeyFile.ROOT_CERTIFICATE, live.root)
    keys.write(KeyFile.CREDENTIAL, person.credential.encode())
    with pytest.raises(EstablishError, match="has expired and the credential was not renewed: no seed"):
        await establish(config, keys, live.now)
    signer = await post(live.member(1), signer=True)
    resumed = await establish(config, keys, live.now, [("127.0.0.1", 1), signer.address])
    assert resumed.identity.id == person.identity.id
    assert resumed.membership.credential.expires_at > live.now()
    stored = keys.read(KeyFile.CREDENTIAL)
    assert stored is not None
    assert decode_credential(stored) == resumed.membership.credential


async def test_a_credential_expired_too_long_ago_is_refused_with_what_to_do(
    config: Any, keys: Keys, live: Any, post: Any
) -> None:
    live.advance_s = -(CREDENTIAL_TTL_S + RENEWAL_GRACE_S + DAY_S)
    person = live.member(2)
    live.advance_s = 0
    keys.write(KeyFile.NODE_SEED, bytes([2]) * 32)
    keys.write(KeyFile.ROOT_CERTIFICATE, live.root)
    keys.write(KeyFile.CREDENTIAL, person.credential.encode())
    signer = await post(live.member(1), signer=True)
    with pytest.raises(EstablishError, match="join again with a new token"):
        await establish(config, keys, live.now, [signer.address])


async def test_a_signer_renews_its_own_expired_credential_with_nobody_there(
    config: Any, keys: Keys, live: Any
) -> None:
    first = await establish(replace(config, bootstrap=True), keys, live.now)
    live.advance_s = CREDENTIAL_TTL_S + DAY_S
    again = await establish(config, keys, live.now)
    assert again.membership.credential.expires_at > live.now()
    assert again.identity.id == first.identity.id


@pytest.mark.parametrize("file", [KeyFile.CREDENTIAL, KeyFile.ROOT_CERTIFICATE])
async def test_a_damaged_membership_is_named_and_not_replaced(
    config: Any, keys: Keys, live: Any, file: KeyFile
) -> None:
    await establish(replace(config, bootstrap=True), keys, live.now)
    whole = keys.path(file).read_bytes()
    damaged = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    keys.path(file).write_bytes(damaged)
    with pytest.raises(EstablishError, match=f"{keys.path(file)}: .*put it back from a backup"):
        await establish(replace(config, bootstrap=True), keys, live.now)
    assert keys.path(file).read_bytes() == damaged


async def test_the_credential_of_another_node_is_no_membership(config: Any, keys: Keys, live: Any) -> None:
    keys.write(KeyFile.NODE_SEED, bytes([3]) * 32)
    keys.write(KeyFile.ROOT_CERTIFICATE, live.root)
    keys.write(KeyFile.CREDENTIAL, live.member(2).credential.encode())
    with pytest.raises(EstablishError, match="credential of another node"):
        await establish(config, keys, live.now)


def content(keys: Keys) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in keys.directory.iterdir()}


@pytest.mark.parametrize("left", [file for file in KeyFile if file is not KeyFile.NODE_SEED])
async def test_where_a_members_key_is_missing_no_other_is_made(
    config: Any, keys: Keys, live: Any, left: KeyFile
) -> None:
    await establish(replace(config, bootstrap=True), keys, live.now)
    keys.write(KeyFile.CERTIFICATES, b"x")
    keys.write(KeyFile.BOOT, b"1")
    keys.write(
        KeyFile.AUTHORITY_SEED, bytes(32)
    )  # of a mesh that was founded before roots were held in shares
    keys.write(KeyFile.FOUNDERS, b"x")
    keys.write(KeyFile.FOUNDER_SINCE, b"1")
    for file in (KeyFile.ROOTS, KeyFile.ROLLOVER_REQUEST, KeyFile.ROLLOVER_VOTE):
        keys.write(file, b"x")
    for file in KeyFile:
        if file is not left:
            keys.path(file).unlink()
    before = content(keys)
    with pytest.raises(
        EstablishError, match=f"{keys.path(KeyFile.NODE_SEED)}: is missing, although {keys.path(left)}"
    ):
        await establish(replace(config, bootstrap=True), keys, live.now)
    assert content(keys) == before


@pytest.mark.parametrize("traces", [{"contacts": [("127.0.0.1", 1)]}, {"entered": True}])
async def test_where_all_keys_of_a_member_are_missing_no_mesh_is_founded_beside_its_state(
    config: Any, keys: Keys, live: Any, traces: Any
) -> None:
    with pytest.raises(EstablishError, match="is missing, although this data directory is a member's"):
        await establish(replace(config, bootstrap=True), keys, live.now, **traces)
    assert content(keys) == {}


async def test_a_missing_root_is_named_with_where_to_find_it(config: Any, keys: Keys, live: Any) -> None:
    await establish(replace(config, bootstrap=True), keys, live.now)
    keys.path(KeyFile.ROOT_CERTIFICATE).unlink()
    before = content(keys)
    with pytest.raises(EstablishError, match=r"root\.der: is missing; put it back .* from any other member"):
        await establish(replace(config, bootstrap=True), keys, live.now)
    assert content(keys) == before


async def test_a_member_without_its_credential_founds_and_joins_no_other_mesh(
    config: Any, keys: Keys, live: Any
) -> None:
    keys.write(KeyFile.NODE_SEED, bytes([2]) * 32)
    keys.write(KeyFile.ROOT_CERTIFICATE, live.root)
    with pytest.raises(
        EstablishError, match=r"root\.der: is the root of a mesh already, and its key is not here"
    ):
        await establish(replace(config, bootstrap=True), keys, live.now)
    stranger = type(live)(b"another root")
    token = token_of(stranger, stranger.member(1), ("127.0.0.1", 1))
    with pytest.raises(EstablishError, match=r"root\.der: is the root of another mesh than the token's"):
        await establish(replace(config, token=token), keys, live.now)


@pytest.mark.parametrize("lost", [[], [KeyFile.CREDENTIAL]])
async def test_a_damaged_root_key_is_named_before_anything_is_signed_with_it(
    config: Any, keys: Keys, live: Any, lost: list[KeyFile]
) -> None:
    await establish(replace(config, bootstrap=True), keys, live.now)
    path = keys.path(KeyFile.AUTHORITY_SEED)
    write_private(path, b"another key".ljust(32))
    for file in lost:
        keys.path(file).unlink()
    with pytest.raises(KeyFileError, match=f"{path}: is not the key of this mesh's root"):
        await establish(replace(config, bootstrap=True), keys, live.now)
    write_private(
        path, bytes(32)
    )  # a page of zeros is a key like any other, or one erased: not without its share
    for share in keys.directory.glob("share-*"):
        share.unlink()
    with pytest.raises(KeyFileError, match=f"{path}: is not the key of this mesh's root"):
        await establish(replace(config, bootstrap=True), keys, live.now)
