"""Shares in one place: they sign as the root, too few of them do not, and none of them shows."""

import secrets

import pytest

from tests.trust.ceremony.network import founded
from trust.errors import AuthorityError
from trust.held import HeldAuthority
from trust.identity import verify


def test_enough_shares_in_one_place_sign_as_the_root() -> None:
    record, shares, signers = founded(5)
    held = [shares[each.id] for each in signers]
    for some in (held, held[:3], held[2:]):
        authority = HeldAuthority(some, secrets.token_bytes)
        assert authority.can_sign
        assert verify(record.group.public, b"message", authority.sign(b"message"))
    assert (authority.root_public, authority.epoch, authority.threshold) == (record.group.public, 0, 3)
    assert set(authority.signers) == set(record.value.ids)
    for share in held:
        assert share.secret.expose().hex() not in repr(authority)


def test_too_few_shares_do_not_sign() -> None:
    _, shares, signers = founded(5)
    authority = HeldAuthority([shares[each.id] for each in signers[:2]], secrets.token_bytes)
    assert not authority.can_sign
    with pytest.raises(AuthorityError, match="2 shares of the root are here, 3 are needed"):
        authority.sign(b"message")
    with pytest.raises(AuthorityError, match="no share"):
        HeldAuthority([], secrets.token_bytes)
