"""What signers tell each other of who should sign: wishes, orders, and refusals of both, as letters.

A signer tells its own wish once it changes, after the orders it rests on, and its operator's order again and again
(`peer/appointing.py`). What it hears it takes up or refuses (`peer/wishes.py`), and who is refused is told why.

Invariant: only signers of the newest epoch are heard, and only they are told.
"""

from peer.appointing import Appointing
from peer.post import ORDER, REFUSAL, WISH, Post
from peer.refusals import Asked, Refusals
from peer.wishes import Judgement, Wishes
from trust.ceremony.events import Members
from trust.ceremony.growth import SignerRules
from trust.epoch import EpochRecord
from trust.errors import CeremonyError
from trust.identity import format_id


class Counsel:
    """See the module's theory. `me` is this node's id, `record` always the newest epoch's."""

    def __init__(
        self, me: bytes, post: Post, judgement: Judgement, rules: SignerRules, appointing: Appointing
    ) -> None:
        self._me = me
        self._post = post
        self._judgement = judgement
        self._appointing = appointing
        self._refusals = Refusals(post)
        self.wishes = Wishes(judgement, rules, appointing)

    @property
    def asked(self) -> Asked:
        """What has become of what this peer's operator asked for, and of all orders."""
        return Asked(
            lacks=self.wishes.lacks, orders=self._appointing.orders, refusals=self._refusals.of_others
        )

    def forget(self) -> None:
        """Another epoch has begun."""
        self.wishes.forget()
        self._appointing.forget()
        self._refusals.forget()

    def look(self, record: EpochRecord | None) -> Members:
        """Look at the members, and as a signer at who should be one."""
        if record is None or self._me not in record.value.ids:
            return self._judgement.members(record)
        self.wishes.judge(record)
        return self.wishes.members

    def show(self, now: float, record: EpochRecord) -> None:
        """Show this operator's order, if it is time to (s)."""
        order = self._appointing.show(now)
        if order is not None:
            self._tell([(ORDER, order)], record)

    def tell(self, wish: tuple[bytes, ...] | None, record: EpochRecord) -> None:
        """Tell the wish that counts here, if it is this peer's own."""
        if wish is None or wish != self.wishes.own or self._me not in record.value.ids:
            return
        letters = [(ORDER, order) for order in self._appointing.letters()]
        self._tell([*letters, (WISH, self.wishes.letter(record))], record)

    def hear(self, node: bytes, sort: bytes, content: bytes, record: EpochRecord) -> bool:
        """A letter about wishes came. Whether there is something to sit down for."""
        if self._me not in record.value.ids or node not in record.value.ids:
            return False
        if sort == REFUSAL:
            self._refusals.hear(node, content, record)
            return False
        try:
            heard = (
                self.wishes.hear(node, content, record) if sort == WISH else self._ordered(content, record)
            )
        except CeremonyError as error:
            self._post.reject(node, str(error))
            self._refusals.tell(node, str(error), record)
            return False
        return heard and self.wishes.current is not None

    def put_off(self, node: bytes, reason: str, record: EpochRecord) -> None:
        """This peer does not follow now what `node` wishes for."""
        self._refusals.tell(node, reason, record)

    def _ordered(self, content: bytes, record: EpochRecord) -> bool:
        new = self._appointing.hear(content, record)
        if new:
            self.wishes.judge(record)
        return new

    def _tell(self, letters: list[tuple[bytes, bytes]], record: EpochRecord) -> None:
        for node in record.value.ids:
            for sort, letter in letters if node != self._me else ():
                self._post.send(node, sort, letter)

    def __repr__(self) -> str:
        return f"Counsel({format_id(self._me)}, orders={len(self._appointing.orders)})"
