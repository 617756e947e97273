"""Who should be the signers of the epoch to come: whose wish goes first, and which wish is refused.

What enough operators order goes first (`peer/appointing.py`), then what this peer's operator asks for, then this peer's
own judgement, and that before the wish of a fellow signer, which is made this one's where it has none. So one signer
that sees a reason is enough for all to sit down.

No wish goes further than this peer would go with an opening that somebody else made (`trust/ceremony/bearing.py`),
unless it is ordered. What its operator asks for beyond that waits for the orders of others, and `lacks` says why.

Invariant: no wish that others brought stands here unchecked: all in it are known as members and not revoked, there are
no more of them than the mesh would keep, the threshold does not fall below what the mesh is set to, and this elector
can bear it.
"""

from dataclasses import replace
from typing import Protocol

from peer.appointing import Appointing
from trust.ceremony.bearing import check_change
from trust.ceremony.bodies import cut
from trust.ceremony.electorate import DIGEST_BYTES, SIGNERS_MAX, by_id, check_electors
from trust.ceremony.events import Members
from trust.ceremony.growth import SignerRules
from trust.epoch import EpochRecord, succession
from trust.errors import CeremonyError
from trust.identity import KEY_BYTES, format_id, node_id


class Judgement(Protocol):
    """Who should be signers, by what this node sees (`peer/candidates.py`)."""

    def wish(self, record: EpochRecord) -> tuple[bytes, ...] | None:
        """Public keys, or None for no change."""

    def members(self, record: EpochRecord | None) -> Members:
        """Who may become a signer, and who must not."""


class Wishes:
    """See the module's theory. Wishes are public keys; None is for no change. `record` is always the newest epoch's."""

    def __init__(self, judgement: Judgement, rules: SignerRules, appointing: Appointing) -> None:
        self._judgement = judgement
        self._rules = rules
        self._appointing = appointing
        self._members = Members(known=frozenset())
        self._ordered: tuple[bytes, ...] | None = None  # by enough operators
        self._judged: tuple[bytes, ...] | None = None
        self._asked: tuple[bytes, ...] | None = None  # by this peer's operator
        self._hinted: tuple[bytes, ...] | None = None  # by a fellow signer
        self._hinters: dict[bytes, tuple[bytes, ...]] = {}  # by each fellow signer (node id) that wished
        self.lacks = ""  # why what the operator asks for has to be ordered by others too; "" if it has not

    @property
    def own(self) -> tuple[bytes, ...] | None:
        """This peer's: what is ordered, then what its operator asks for."""
        asked = None if self.lacks else self._asked
        return self._ordered or asked or self._judged

    @property
    def commanded(self) -> bool:
        """Whether operators want a change, this peer's or enough others."""
        return self._ordered is not None or (self._asked is not None and not self.lacks)

    @property
    def current(self) -> tuple[bytes, ...] | None:
        """The one that counts here."""
        return self.own or self._hinted

    @property
    def members(self) -> Members:
        """Those that were looked at last, with what is ordered."""
        return self._members

    def forget(self) -> None:
        """Another epoch has begun: nobody has wished for the one after it yet."""
        self._ordered = self._judged = self._asked = self._hinted = None
        self._hinters.clear()
        self.lacks = ""

    def judge(self, record: EpochRecord) -> None:
        """Look again at the members, and at who should be signers."""
        self._look(record)
        self._judged = self._judgement.wish(record)

    def ask(self, keys: tuple[bytes, ...] | None, record: EpochRecord) -> tuple[bytes, ...]:
        """The operator wishes for these, which is an order, or for what this node thinks right; to the same signers for
        fresh shares. What is wished for. Raises CeremonyError, and nothing has changed."""
        self._look(record)
        wanted = by_id(keys) if keys is not None else self._judgement.wish(record) or record.value.keys
        self._check(wanted, record)
        if keys is not None:
            self._appointing.order(wanted, record)
        self._asked = wanted
        self._look(record)
        return wanted

    def hear(self, node: bytes, content: bytes, record: EpochRecord) -> bool:
        """A letter of `node`, a fellow signer. Whether it is a wish for the epoch to come. Raises CeremonyError: it is
        one that is refused."""
        name, keys = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if (
            name != succession(record).ceremony
            or len(keys) % KEY_BYTES
            or len(keys) > SIGNERS_MAX * KEY_BYTES
        ):
            return False
        wanted = cut(keys, KEY_BYTES)
        self._look(record)
        self._check(wanted, record)
        self._bear(wanted, record)
        self._hinted = wanted
        self._hinters[node] = wanted
        return True

    def backed(self, record: EpochRecord) -> bool:
        """Whether as many signers as have the root together wish for what counts here."""
        wishing = sum(each == self.current for each in self._hinters.values())
        return self.current is not None and wishing >= record.group.threshold

    def letter(self, record: EpochRecord) -> bytes:
        """This peer's own wish, for its fellow signers."""
        return succession(record).ceremony + b"".join(self.own or ())

    def _look(self, record: EpochRecord) -> None:
        members = self._judgement.members(record)
        ordered = self._appointing.agreed(record, members.barred)
        self._members = replace(members, ordered=frozenset(map(node_id, ordered)))
        try:
            self._check(ordered, record)
            self._ordered = ordered
        except CeremonyError:
            self._ordered = (
                None  # of strangers, or of somebody that is revoked: whoever ordered it was told so
            )
        if self._asked is not None:
            self.lacks = self._objection(self._asked, record)

    def _objection(self, wanted: tuple[bytes, ...], record: EpochRecord) -> str:
        try:
            self._bear(wanted, record)
        except CeremonyError as error:
            return str(error)
        return ""

    def _bear(self, wanted: tuple[bytes, ...], record: EpochRecord) -> None:
        check_change(
            [node_id(key) for key in wanted], self._rules.threshold_of(len(wanted)), succession(record),
            self._rules, self._members,
        )  # fmt: skip

    def _check(self, wanted: tuple[bytes, ...], record: EpochRecord) -> None:
        check_electors(wanted)
        members, rules = self._members, self._rules
        for key in wanted:
            node = node_id(key)
            if node in members.barred:
                raise CeremonyError(f"node {format_id(node)} is revoked")
            if node not in members.known and node not in record.value.ids:
                raise CeremonyError(f"node {format_id(node)} is no member that can be a signer")
        if len(wanted) > max(rules.goal, len(record.value.keys)):
            raise CeremonyError(
                f"{len(wanted)} signers are more than ca.signers says ({rules.goal}), to which the mesh would go "
                "back: set that first, on all peers"
            )
        least = min(record.group.threshold, rules.threshold_of(rules.goal))
        if rules.threshold_of(len(wanted)) < least:
            raise CeremonyError(
                f"{len(wanted)} signers would lower the threshold from {record.group.threshold} to "
                f"{rules.threshold_of(len(wanted))}"
            )
