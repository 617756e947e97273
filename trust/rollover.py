"""Rollover: the mesh goes over to another root, and the old one says itself which.

A root that is old, or suspected, is followed by one that a new key ceremony makes among the same signers. What ties
the two together are *terms*: the two public keys, the epoch record with which the new key begins, the moment, and for
how long the old root goes on counting beside the new one (the *overlap*). Terms are of force when both signed them:

    the old root    "follow that one": only t of its signers can say so, and each judged it (`trust/rolling.py`)
    the new root    "I am that one": it can sign, and it vouches for the one before it, so that who knows only the
                    new one believes what the old one signed for as long as it counts

With them goes the new root's certificate. All of it is public and the same for everybody, and it is never void: who
was away follows the old root's word to the new one years later (`trust/roots.py`), unless the old root was given up as
*compromised*. Then whoever stole it could sign such terms as well, so nobody can follow any: who did not hear of it
while it still counted joins again.

A signer votes durably for one successor of a root at most, so there are no two unless t signers lie. If there are,
the two rollovers are a proof against those (`conflict`).

Invariant: a Rollover object is well-formed. Only `verify_rollover` says that both roots signed it.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from trust.authority import CERTIFICATE_BYTES_MAX, read_root, root_fingerprint
from trust.ceremony.electorate import DIGEST_BYTES
from trust.codec import Field, Reader, pack, signed_bytes
from trust.errors import IdentityError, RolloverError, SvidError, span
from trust.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    TRUST_DOMAIN_CHARS_MAX,
    check_trust_domain,
    verify,
)

OVERLAP_S: Final = (
    14 * 86_400
)  # twice what the longest-lived of what a root signs lives (a credential: 7 days)
OVERLAP_S_MIN: Final = 30
OVERLAP_S_MAX: Final = 366 * 86_400
# A root that somebody else holds is not given up in one moment, or nobody could renew what it signed: long enough for
# every member that is there, too short for more.
COMPROMISED_S: Final = 900
SWITCH_S_MAX: Final = (
    3600  # how long one member that has not heard of the new root keeps the others from using it
)

ROLLOVER_BYTES_MAX: Final = 6000

_FORMAT: Final = 1
_OLD_LABEL: Final = b"gossamer/rollover/1"
_NEW_LABEL: Final = b"gossamer/rollover-accepted/1"
_NO_SIGNATURE: Final = b"\0" * SIGNATURE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What both roots sign. Times are Unix seconds. Raises RolloverError when they can be nobody's terms."""

    trust_domain: str
    old: bytes  # public keys (Ed25519)
    new: bytes
    before: bytes  # digest of the epoch record whose signers hold the old root
    record: bytes  # digest of the epoch record with which the new root begins
    issued_at: int
    overlap_s: int
    compromised: bool = False

    def __post_init__(self) -> None:
        assert len(self.old) == len(self.new) == KEY_BYTES, "keys have 32 bytes"
        assert len(self.before) == len(self.record) == DIGEST_BYTES, "digests have 32 bytes"
        try:
            check_trust_domain(self.trust_domain)
        except IdentityError as error:
            raise RolloverError(f"this is no rollover: {error}") from None
        if self.old == self.new:
            raise RolloverError("this is no rollover: a root does not follow on itself")
        check_overlap(self.overlap_s, compromised=self.compromised)

    @property
    def ends_at(self) -> int:
        """When the old root counts no more."""
        return self.issued_at + self.overlap_s

    @property
    def switch_at(self) -> int:
        """From when on everything is signed by the new root, whoever has not heard of it."""
        return self.issued_at + min(self.overlap_s // 4, SWITCH_S_MAX)

    def old_bytes(self) -> bytes:
        """What the old root signs."""
        return signed_bytes(_OLD_LABEL, self._fields())

    def new_bytes(self) -> bytes:
        """What the new root signs."""
        return signed_bytes(_NEW_LABEL, self._fields())

    def encode(self) -> bytes:
        """The wire form."""
        return pack(self._fields())

    def _fields(self) -> list[Field]:
        return [
            _FORMAT,
            self.trust_domain,
            self.old,
            self.new,
            self.before,
            self.record,
            self.issued_at,
            self.overlap_s,
            self.compromised,
        ]


def check_overlap(overlap_s: int, *, compromised: bool) -> None:
    """Raise RolloverError for an overlap that nobody accepts."""
    longest = COMPROMISED_S if compromised else OVERLAP_S_MAX
    if not OVERLAP_S_MIN <= overlap_s <= longest:
        whose = "of a compromised root " if compromised else ""
        raise RolloverError(
            f"an overlap {whose}lasts from {span(OVERLAP_S_MIN)} to {span(longest)}, not {span(max(overlap_s, 0))}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollover:
    """Terms with what makes them true: both signatures, and the certificate (DER) of the new root."""

    terms: Terms
    by_old: bytes = field(default=_NO_SIGNATURE, repr=False)
    by_new: bytes = field(default=_NO_SIGNATURE, repr=False)
    certificate: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """The wire form, at most ROLLOVER_BYTES_MAX bytes."""
        return pack([self.terms.encode(), self.by_old, self.by_new, self.certificate])


def decode_terms(data: bytes) -> Terms:
    """Inverse of `Terms.encode`. Raises RolloverError."""
    reader = Reader(data, count=9, bytes_max=1024, what="the terms of a rollover", error=RolloverError)
    if (version := reader.integer()) != _FORMAT:
        raise RolloverError(
            f"the terms of a rollover are of format {version}; this version of Gossamer knows {_FORMAT}"
        )
    return Terms(
        trust_domain=reader.text(TRUST_DOMAIN_CHARS_MAX),
        old=reader.raw(KEY_BYTES),
        new=reader.raw(KEY_BYTES),
        before=reader.raw(DIGEST_BYTES),
        record=reader.raw(DIGEST_BYTES),
        issued_at=reader.integer(),
        overlap_s=reader.integer(),
        compromised=reader.flag(),
    )


def decode_rollover(data: bytes) -> Rollover:
    """Inverse of `Rollover.encode`. Raises RolloverError. Nothing is verified."""
    reader = Reader(data, count=4, bytes_max=ROLLOVER_BYTES_MAX, what="a rollover", error=RolloverError)
    return Rollover(
        terms=decode_terms(reader.blob(1024)),
        by_old=reader.raw(SIGNATURE_BYTES),
        by_new=reader.raw(SIGNATURE_BYTES),
        certificate=reader.blob(CERTIFICATE_BYTES_MAX),
    )


def verify_rollover(rollover: Rollover, trust_domain: str) -> None:
    """Raise RolloverError unless both roots it names signed it, for this trust domain, and the certificate is the new
    one's. Whether the old root is one that is believed is the question of `trust/roots.py`."""
    terms = rollover.terms
    if terms.trust_domain != trust_domain:
        raise RolloverError(f"the rollover is of trust domain {terms.trust_domain!r}, not {trust_domain!r}")
    if not verify(terms.old, terms.old_bytes(), rollover.by_old):
        raise RolloverError(f"the old root {name_of(terms.old)} did not sign the rollover")
    if not verify(terms.new, terms.new_bytes(), rollover.by_new):
        raise RolloverError(f"the new root {name_of(terms.new)} did not sign the rollover")
    try:
        public = read_root(rollover.certificate, trust_domain)
    except SvidError as error:
        raise RolloverError(f"the new root's certificate in the rollover: {error}") from None
    if public != terms.new:
        raise RolloverError("the certificate in the rollover is another root's than the new one's")


def complete(rollover: Rollover, *, by_old: bytes, by_new: bytes, certificate: bytes) -> Rollover:
    """The rollover with all that was missing. Raises RolloverError unless it is right now."""
    whole = replace(rollover, by_old=by_old, by_new=by_new, certificate=certificate)
    verify_rollover(whole, whole.terms.trust_domain)
    return whole


def conflict(first: Rollover, second: Rollover) -> bool:
    """Whether two verified rollovers prove that signers of the old root lied: they name different successors."""
    return first.terms.old == second.terms.old and first.terms.new != second.terms.new


def name_of(root_public: bytes) -> str:
    """A root as people are shown it: the first half of its fingerprint's first half."""
    return root_fingerprint(root_public).hex()[:16]
