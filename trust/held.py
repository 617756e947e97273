"""The root as something that signs at once, for whoever holds enough of its shares in one place.

That is the founder of a group of one, before anything else of it runs: its own first credential, the root's
certificate, and its own renewal after a long sleep. It signs as any group does (RFC 9591), only without a network.

Invariant: as of every Authority, nothing outside sees a secret; what signs here are shares like any others.
"""

from collections.abc import Callable, Iterable

from trust.errors import AuthorityError
from trust.frost import aggregate, new_nonces, sign_share, transcript
from trust.groupkey import KeyShare, node_of


class HeldAuthority:
    """An Authority made of `shares` of one epoch. `entropy` is asked for nonces."""

    __slots__ = ("_entropy", "_shares")

    def __init__(self, shares: Iterable[KeyShare], entropy: Callable[[int], bytes]) -> None:
        self._shares = tuple(shares)
        self._entropy = entropy
        if not self._shares:
            raise AuthorityError("no share of the root is held here")

    @property
    def root_public(self) -> bytes:
        return self._shares[0].group.public

    @property
    def epoch(self) -> int:
        return self._shares[0].group.epoch

    @property
    def threshold(self) -> int:
        return self._shares[0].group.threshold

    @property
    def signers(self) -> tuple[bytes, ...]:
        return tuple(node_of(identifier) for identifier in self._shares[0].group.identifiers)

    @property
    def can_sign(self) -> bool:
        return len(self._shares) >= self.threshold

    def sign(self, message: bytes) -> bytes:
        """A plain Ed25519 signature (64 bytes). Raises AuthorityError when too few shares are here."""
        if not self.can_sign:
            raise AuthorityError(
                f"{len(self._shares)} shares of the root are here, {self.threshold} are needed"
            )
        chosen = self._shares[: self.threshold]
        nonces = [new_nonces(share, self._entropy) for share in chosen]
        commitments = [each.commitment for each in nonces]
        parts = {
            share.identifier: sign_share(share, each, message, commitments)
            for share, each in zip(chosen, nonces, strict=True)
        }
        return aggregate(transcript(chosen[0].group, message, commitments), parts)

    def __repr__(self) -> str:
        return f"HeldAuthority(epoch={self.epoch}, shares={len(self._shares)}, threshold={self.threshold})"
