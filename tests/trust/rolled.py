"""Roots that follow one another, each held whole: rollovers as t of n signers would make them."""

import random
from dataclasses import replace

from trust.authority import SoleAuthority, root_certificate
from trust.rollover import Rollover, Terms, complete
from trust.roots import Roots

DOMAIN = "cluster.local"
NOW = 1_800_000_000
DAY_S = 86_400


def authority(number: int) -> SoleAuthority:
    """The root of that number, the same each time."""
    return SoleAuthority.from_seed(random.Random(f"root {number}").randbytes(32), holder=bytes(16))


def terms(old: int, new: int, **changed: object) -> Terms:
    """What both agree on."""
    plain = Terms(
        trust_domain=DOMAIN,
        old=authority(old).root_public,
        new=authority(new).root_public,
        before=bytes(32),
        record=bytes([new]) * 32,
        issued_at=NOW + old * DAY_S,
        overlap_s=DAY_S,
    )
    return replace(plain, **changed)


def rollover(old: int, new: int, **changed: object) -> Rollover:
    """From one root to another, signed by both."""
    agreed = terms(old, new, **changed)
    first, second = authority(old), authority(new)
    return complete(
        Rollover(terms=agreed),
        by_old=first.sign(agreed.old_bytes()),
        by_new=second.sign(agreed.new_bytes()),
        certificate=root_certificate(second, agreed.trust_domain, agreed.issued_at),
    )


def first_certificate() -> bytes:
    """Of root 0."""
    return root_certificate(authority(0), DOMAIN, NOW)


def roots(*steps: Rollover) -> Roots:
    """A line that begins with root 0."""
    return Roots(first_certificate(), DOMAIN, steps)
