"""A lost share: a signer that has none of the newest epoch asks the others for it, and helps those that ask.

The machine of a repair (`trust/ceremony/repair.py`) is one of the epoch and of whether this node has a share to give,
and is made anew when either changes. A share is lost, and not just on its way, after REPAIR_AFTER_S.

Invariant: a restored share counts once custody has it. A repair gives its share once, so where that cannot be kept
another one begins, as long after.
"""

import logging
import secrets
from collections.abc import Callable
from typing import Final, assert_never

from peer.custody import Custody
from peer.post import REPAIR, Post
from trust.ceremony.electorate import DIGEST_BYTES
from trust.ceremony.events import Received, Rejected, Send, Tick
from trust.ceremony.repair import Repair, Restored
from trust.errors import TrustError
from trust.groupkey import KeyShare

log = logging.getLogger("gossamer.ceremony")

REPAIR_AFTER_S: Final = 5.0


class Mending:
    """See the module's theory. `me` is this node's id, `now` a clock (s) that never falls."""

    def __init__(self, custody: Custody, me: bytes, post: Post, now: Callable[[], float]) -> None:
        self._custody = custody
        self._me = me
        self._post = post
        self._now = now
        self._repair: Repair | None = None
        self._gives = False  # the repair has a share to repair others' with
        self._lacking_since: float | None = None

    @property
    def deadline(self) -> float | None:
        """When `mend` has something to do; None while no share is known to be lost."""
        if self._lacking_since is None:
            return None
        again_at = 0.0 if self._repair is None else self._repair.deadline or 0.0
        return max(again_at, self._lacking_since + REPAIR_AFTER_S)

    def begin_anew(self) -> None:
        """The newest epoch is another one."""
        self._repair = None
        self._lacking_since = None

    def mend(self) -> bool:
        """Ask the other signers for this node's share, if it is lost. Whether it is back. Raises KeyFileError."""
        if not self._custody.lacking:
            self._lacking_since = None
            return False
        if self._lacking_since is None:
            self._lacking_since = self._now()
        if self._now() - self._lacking_since < REPAIR_AFTER_S:
            return False
        repair = self._current()
        if repair is None or repair.deadline is None or repair.deadline > self._now():
            return False
        log.warning("share_lost", extra={"fields": {"repair": repr(repair)}})
        return self._carry_out(repair.step(self._now(), Tick()))

    def hear(self, node: bytes, content: bytes) -> bool:
        """A letter of a repair. Whether this node's share is back by it. Raises KeyFileError."""
        repair = self._current()
        if repair is None or content[:DIGEST_BYTES] != repair.name:
            return False
        return self._carry_out(repair.step(self._now(), Received(node=node, data=content)))

    def _current(self) -> Repair | None:
        record = self._custody.record
        if record is None or self._me not in record.value.ids:
            return None
        shares = [share for share in self._custody.shares if share.group == record.group]
        if self._repair is None or self._gives != bool(shares):
            self._gives = bool(shares)
            self._repair = Repair(
                me=self._me, group=record.group, share=shares[0] if shares else None,
                entropy=secrets.token_bytes,
            )  # fmt: skip
        return self._repair

    def _carry_out(self, outputs: list[Send | Rejected | Restored]) -> bool:
        back = False
        for output in outputs:
            match output:
                case Send():
                    self._post.send(output.node, REPAIR, output.data)
                case Rejected():
                    self._post.reject(output.node, output.reason)
                case Restored():
                    self._repair, self._lacking_since = None, self._now()
                    back = self._take(output.share) or back
                case _:
                    assert_never(output)
        return back

    def _take(self, share: KeyShare) -> bool:
        record = self._custody.record
        if record is None or record.group != share.group:
            return False
        try:
            self._custody.take(record, share)
        except TrustError as error:
            log.error("share_refused", extra={"fields": {"reason": str(error)}})
            return False
        log.warning("share_restored", extra={"fields": {"epoch": record.epoch}})
        return True
