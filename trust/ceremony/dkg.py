"""Distributed key generation as a ceremony has it: who deals what, and how each part is checked.

Pedersen's scheme with a proof of knowledge (Komlo and Goldberg, SAC 2020, figure 1; `keygen` has the mathematics). Each
founder deals a random polynomial; the root is the sum of the constants. Its value can be nobody's choice, since nobody
may go on before all have echoed the same dealings, and each dealer has proved that it knows its own constant. (The last
dealer to publish can still pick among keys by picking its dealing; Schnorr signatures bear that: Gennaro, Jarecki,
Krawczyk and Rabin, J. Cryptology 2007, section 5.) Proofs are bound to the opening of the attempt, so none is replayed.

A resharing (`resharing`) is the same with constants that are given. Everything after the dealing, in `ceremony`, is
one.

A dealer whose polynomial has to be there again after a restart keeps a seed of 32 bytes and the opening, never
the coefficients: `deal_from` draws the same from the same.

Invariant: a share or dealing is used only after it passed the checks here; `CeremonyError` names who failed them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from trust.ceremony.bodies import Dealt, Opening, dealing_context
from trust.ceremony.electorate import Electorate
from trust.ceremony.resharing import expected_constant
from trust.errors import AuthorityError, CeremonyError, DealingError, GroupError
from trust.group import Point, Scalar
from trust.groupkey import GroupKey, identifier_of
from trust.identity import format_id
from trust.keygen import Dealing, check_package, check_share, combine_packages, deal

SEED_BYTES: Final = 32

_STREAM: Final = b"gossamer/dealing-stream/1\0"


def stream(seed: bytes) -> Callable[[int], bytes]:
    """Entropy (SHAKE-256) that is the same for the same 32 secret bytes."""
    assert len(seed) == SEED_BYTES, "a dealing's seed has 32 bytes"
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(_STREAM + seed + drawn.to_bytes(4, "big")).digest(count)

    return draw


def deal_from(
    seed: bytes, node: bytes, opening: Opening, opening_digest: bytes, constant: Scalar | None
) -> Dealing:
    """The dealing of `node` for an opening. `constant` is None to draw the constant too."""
    context = dealing_context(opening_digest)
    return deal(
        identifier_of(node), opening.threshold, stream(seed), context=context, constant=constant
    )  # fmt: skip


def check_dealt(
    dealt: Dealt, node: bytes, opening: Opening, opening_digest: bytes, electorate: Electorate
) -> None:
    """Raise CeremonyError unless `dealt` is what `node` may deal. All it takes is public: the same for everybody."""
    constant: Point | None = None
    if electorate.group is not None:
        constant = expected_constant(electorate.group, opening.dealers, node)
    try:
        check_package(
            identifier_of(node),
            dealt.package,
            opening.threshold,
            context=dealing_context(opening_digest),
            constant=constant,
        )
    except (DealingError, GroupError) as error:
        raise CeremonyError(f"what {format_id(node)} dealt is wrong: {error}") from None


def check_shared(share: bytes, dealt: Dealt, recipient: bytes) -> Scalar:
    """`share` itself if it is the recipient's by an already checked dealing. Raises CeremonyError."""
    try:
        return check_share(share, dealt.package, identifier_of(recipient))
    except (DealingError, GroupError) as error:
        raise CeremonyError(f"the share for {format_id(recipient)} is wrong: {error}") from None


def group_of(dealt: Mapping[bytes, Dealt], receivers: Sequence[bytes], electorate: Electorate) -> GroupKey:
    """The key that checked dealings, by dealer, make for `receivers` (node ids). Raises CeremonyError: the dealings
    cancel each other out, or do not make the root there was before."""
    packages = {identifier_of(node): each.package for node, each in dealt.items()}
    try:
        group = combine_packages(
            packages, [identifier_of(node) for node in receivers], epoch=electorate.epoch
        )
    except (AuthorityError, GroupError) as error:
        raise CeremonyError(f"the dealings make no key: {error}") from None
    if electorate.group is not None and group.public != electorate.group.public:
        raise CeremonyError("the dealings would make another root")
    return group
