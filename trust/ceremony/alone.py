"""A root that one node holds whole, as epoch 0 of a group of one: what a lone founder grows from.

The polynomial has degree 0, so the share is the key, as a scalar (`resharing.scalar_of_seed`). The record is the one a
founding ceremony of one would make. Both signatures in it are plain Ed25519 ones (RFC 8032) and thus functions of
key and message: whoever computes the record again, after a crash before it was stored, gets the same bytes.

Invariant: the same identity, trust domain and seed give the same record, and it is decided.
"""

import hashlib

from trust.authority import SoleAuthority
from trust.ceremony.electorate import founding
from trust.ceremony.resharing import scalar_of_seed
from trust.ceremony.statement import Kind, state
from trust.epoch import EpochRecord, unproven, with_votes
from trust.group import Secret
from trust.groupkey import KeyShare, group_key, identifier_of
from trust.identity import NodeIdentity


def founded_alone(identity: NodeIdentity, trust_domain: str, seed: bytes) -> tuple[EpochRecord, KeyShare]:
    """Epoch 0 of the root that grows from `seed` (32 secret bytes), held by `identity` alone. Raises AuthorityError,
    IdentityError."""
    authority = SoleAuthority.from_seed(seed, holder=identity.id)
    electorate = founding(trust_domain, [identity.public_key])
    identifier = identifier_of(identity.id)
    group = group_key(authority.root_public, 1, [(identifier, authority.root_public)])
    draft = unproven(electorate, group, [identity.public_key])
    value = unproven(electorate, group, [identity.public_key], authority.sign(draft.signing_bytes()))
    vote = state(identity, electorate.ceremony, 0, Kind.CONFIRM, value.digest)
    share = KeyShare(group, identifier, Secret(scalar_of_seed(hashlib.sha512(seed).digest())))
    return with_votes(value, 0, [vote], ()), share
