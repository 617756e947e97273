"""What a participant has to say next, and the secrets it takes to say it.

Of its dealing it keeps the seed (in the attempt, and so on disk), of shares it accepted the scalars, for an attempt
that others decided while this node was away may be the one that counts. Nonces stay in the attempt's memory.

Invariant: `due` names only statements that this node has not made in this attempt, each backed by all that comes
before.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from trust.ceremony.attempt import Attempt
from trust.ceremony.bodies import Dealt, Echoed, Opening, Proved, Shared
from trust.ceremony.dkg import SEED_BYTES, deal_from
from trust.ceremony.electorate import Electorate
from trust.ceremony.lock import Lock
from trust.ceremony.memory import ACCEPTED_MAX
from trust.ceremony.resharing import constant_of
from trust.ceremony.statement import Kind, Statement
from trust.epoch import EpochRecord, Value
from trust.group import Scalar, Secret
from trust.groupkey import KeyShare, identifier_of
from trust.keygen import Dealing

Due: TypeAlias = tuple[Kind, bytes, bytes]  # kind, body, recipient

NOTHING: Final[list[Due]] = []


class Voice:
    """See the module's theory. `share` is of the epoch before, `secret` that of a root that exists already."""

    def __init__(
        self,
        me: bytes,
        electorate: Electorate,
        entropy: Callable[[int], bytes],
        share: KeyShare | None,
        secret: Scalar | None,
    ) -> None:
        self.accepted: list[Scalar] = []
        self.lock: Lock | None = None
        self._me = me
        self._electorate = electorate
        self._entropy = entropy
        self._share = share
        self._secret = secret
        self._dealing: Dealing | None = None

    @property
    def able(self) -> bool:
        """Whether this node can deal."""
        return self._me in self._electorate.ids and (
            self._electorate.group is None or self._share is not None
        )

    def due(self, attempt: Attempt, prepared: Callable[[Value], Sequence[Statement] | None]) -> list[Due]:
        """This node's next statements in an open attempt; none if others come first. `prepared` gives the prepares that
        a quorum made for a value, None if it has not."""
        if attempt.opening is None:
            return NOTHING
        if attempt.opening.dealers:
            if attempt.deals and not self._did(attempt, Kind.DEAL):
                return self._deal(attempt, attempt.opening)
            mine = attempt.dealings()
            if mine is not None and self._me in attempt.participants:
                taking_part = self._participate(attempt, attempt.opening, mine)
                if taking_part:
                    return taking_part
        if self._me in self._electorate.ids:
            return self._vote(attempt, prepared)
        return NOTHING

    def own_share(self, record: EpochRecord) -> KeyShare | None:
        """This node's share of the key that was decided; None if it accepted none."""
        identifier = identifier_of(self._me)
        if identifier not in record.group.identifiers:
            return None
        expected = record.group.verifying_share(identifier)
        for scalar in reversed(self.accepted):
            secret = Secret(scalar)
            if secret.public() == expected:
                return KeyShare(record.group, identifier, secret)
        return None

    def leave(self, attempt: Attempt) -> None:
        """Forget the dealing of an attempt that is left for good."""
        attempt.wipe()
        if self._dealing is not None:
            self._dealing.wipe()
        self._dealing = None

    # -------------------------------------------------------------- stages

    def _participate(self, attempt: Attempt, opening: Opening, mine: Echoed) -> list[Due]:
        if not self._did(attempt, Kind.ECHO):
            return [(Kind.ECHO, mine.encode(), b"")]
        if attempt.agreed() is None:
            return NOTHING
        if attempt.deals and attempt.get(Kind.SHARE, self._me, attempt.receivers[-1]) is None:
            return self._shares(attempt, opening)
        if not attempt.receives:
            return NOTHING
        if not self._did(attempt, Kind.ACCEPT):
            if not attempt.received() or attempt.share is None:
                return NOTHING
            accepted = attempt.accept(self._entropy)
            self.accepted = [*self.accepted, attempt.share.secret.expose()][-ACCEPTED_MAX:]
            return [(Kind.ACCEPT, accepted.encode(), b"")]
        digest = None if self._did(attempt, Kind.PROVE) else attempt.accepted()
        share = None if digest is None else attempt.prove()
        if digest is None or share is None:
            return NOTHING
        return [(Kind.PROVE, Proved(accepted=digest, share=share).encode(), b"")]

    def _vote(self, attempt: Attempt, prepared: Callable[[Value], Sequence[Statement] | None]) -> list[Due]:
        value = attempt.proven()
        if value is None or self._did(attempt, Kind.CONFIRM):
            return NOTHING
        if not self._did(attempt, Kind.PREPARE):
            return [(Kind.PREPARE, value.digest, b"")]
        prepares = prepared(value)
        if prepares is None:
            return NOTHING
        encoded = tuple(each.encode() for each in prepares)
        self.lock = Lock(attempt=attempt.number, value=value, prepares=encoded)
        return [(Kind.CONFIRM, value.digest, b"")]

    def _deal(self, attempt: Attempt, opening: Opening) -> list[Due]:
        if not self.able:
            return NOTHING
        if attempt.seed is None:
            attempt.seed = self._entropy(SEED_BYTES)
        package = self._drawn(attempt, attempt.seed, opening).package
        return [(Kind.DEAL, Dealt(opening=attempt.opening_digest, package=package).encode(), b"")]

    def _shares(self, attempt: Attempt, opening: Opening) -> list[Due]:
        assert attempt.seed is not None, "who dealt drew a seed"
        dealing = self._drawn(attempt, attempt.seed, opening)
        return [
            (
                Kind.SHARE,
                Shared(opening=attempt.opening_digest, share=dealing.share_for(identifier_of(node))).encode(),
                node,
            )
            for node in attempt.receivers
        ]

    def _drawn(self, attempt: Attempt, seed: bytes, opening: Opening) -> Dealing:
        if self._dealing is None:
            constant = self._secret if self._share is None else constant_of(self._share, opening.dealers)
            self._dealing = deal_from(seed, self._me, opening, attempt.opening_digest, constant)
        return self._dealing

    def _did(self, attempt: Attempt, kind: Kind) -> bool:
        return attempt.get(kind, self._me) is not None
