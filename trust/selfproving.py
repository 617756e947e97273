"""Requests that prove themselves: signed by the node's Ed25519 key over everything in them, under a label of their own.

Whoever judges one needs nothing but the request and the mesh's root, wherever it came from: each of t signers, and
they derive the same from it. What a request lacks is age: it is good for CLOCK_SKEW_S_MAX around the moment in it,
so that an old one cannot be had signed again.

Invariant: two kinds of request never have the same signed bytes.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from trust.codec import Field, pack, signed_bytes
from trust.credential import CLOCK_SKEW_S_MAX
from trust.errors import TrustError, span
from trust.identity import SIGNATURE_BYTES, NodeIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfProving:
    """What such requests have in common: LABEL, the fields in order, and the signature after them."""

    LABEL: ClassVar[bytes]

    signature: bytes = b"\0" * SIGNATURE_BYTES

    def signing_bytes(self) -> bytes:
        """What the node's key signs."""
        return signed_bytes(self.LABEL, self._fields())

    def signed(self, identity: NodeIdentity) -> Self:
        """The same with the node's signature."""
        return replace(self, signature=identity.sign(self.signing_bytes()))

    def encode(self) -> bytes:
        """The wire form."""
        return pack([*self._fields(), self.signature])

    @abstractmethod
    def _fields(self) -> list[Field]: ...


def check_moment(requested_at: int, now: float, whose: str, error: type[TrustError]) -> None:
    """Raise `error` unless the request was made about now (Unix s)."""
    apart_s = abs(now - requested_at)
    if apart_s > CLOCK_SKEW_S_MAX:
        raise error(
            f"the request{whose} is stamped {span(apart_s)} away from the issuer's clock: set the clocks right"
        )
