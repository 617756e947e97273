"""This node as it announces itself: its rank, its signed Alive, its good-bye.

Only the subject moves its (boot, incarnation). It rises when this node refutes an accusation, changes what it says of
itself, leaves, or comes back; and it jumps above whatever this identity once signed, should an earlier life with a
higher boot number turn up (a data directory restored from an old image).

Invariant: the rank never falls, and `alive` and `left` are always signed for a rank used for nothing else.
"""

from collections.abc import Mapping
from typing import Final

from gossip.codec import UINT64_MAX
from gossip.member import Member, State
from gossip.statement import VERSION_MAX, VERSION_MIN, Alive, Left, sign_alive, sign_left
from trust.credential import Credential
from trust.identity import NodeIdentity

RANK_MAX: Final = (
    UINT64_MAX,
    UINT64_MAX - 1,
)  # a statement at this rank or above leaves no room for an answer


class Presence:
    """Raises LimitError when what it should announce does not fit; then nothing was changed."""

    __slots__ = (
        "_since",
        "address",
        "alive",
        "boot",
        "credential",
        "encoded",
        "encoded_slim",
        "id",
        "identity",
        "left",
        "meta",
        "versions",
        "zone",
    )

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        credential: Credential,
        address: tuple[str, int],
        boot: int,
        zone: str,
        meta: Mapping[str, int | str | bool],
        now: float,
        versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX),
    ) -> None:
        assert credential.node == identity.id, "the credential is another node's"
        self.identity = identity
        self.id = identity.id
        self.credential = credential
        self.address = address
        self.zone = zone
        self.meta = dict(meta)
        self.versions = versions
        self.left: Left | None = None
        self._since = now
        self.alive = self._sign((boot, 0), credential, self.meta)
        self._encode()

    @property
    def rank(self) -> tuple[int, int]:
        return self.left.rank if self.left is not None else self.alive.rank

    @property
    def member(self) -> Member:
        """This node as a member among the others."""
        boot, incarnation = self.rank
        return Member(
            id=self.id,
            name=self.credential.name,
            address=self.alive.address,
            state=State.ALIVE if self.left is None else State.LEFT,
            incarnation=incarnation,
            boot=boot,
            zone=self.zone,
            meta=self.meta,
            credential=self.credential,
            since=self._since,
        )

    def announce(
        self,
        *,
        credential: Credential | None = None,
        meta: Mapping[str, int | str | bool] | None = None,
        above: tuple[int, int] = (0, 0),
    ) -> None:
        """Sign a new Alive, one incarnation up, or the boot after `above` where that is of a later boot. Who has
        left announces nothing; it keeps what it would say until it comes back."""
        chosen = self.meta if meta is None else dict(meta)
        if self.left is None:
            self.alive = self._sign(self._next(above), credential or self.credential, chosen)
        self.credential, self.meta = credential or self.credential, chosen
        self._encode()

    def leave(self, now: float) -> Left:
        """Sign the good-bye."""
        self.left = sign_left(self.identity, rank=self._next())
        self._since = now
        return self.left

    def come_back(self, now: float) -> None:
        """Take the good-bye back."""
        self.alive = self._sign(self._next(), self.credential, self.meta)
        self.left, self._since = None, now
        self._encode()

    def _next(self, above: tuple[int, int] = (0, 0)) -> tuple[int, int]:
        boot, incarnation = max(self.rank, above)
        if incarnation < UINT64_MAX and boot in (self.boot, UINT64_MAX):
            return boot, incarnation + 1
        return boot + 1, 0

    def _sign(
        self, rank: tuple[int, int], credential: Credential, meta: Mapping[str, int | str | bool]
    ) -> Alive:
        boot, incarnation = rank
        return sign_alive(
            self.identity,
            credential,
            boot=boot,
            incarnation=incarnation,
            address=self.address,
            zone=self.zone,
            meta=meta,
            versions=self.versions,
        )

    def _encode(self) -> None:
        self.boot = self.alive.boot
        self.encoded = self.alive.encode()
        self.encoded_slim = self.alive.slim().encode()
