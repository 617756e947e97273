"""Who should be the signers of the epoch to come: whose wish goes first, and which wish is refused.

This peer's operator goes before this peer's own judgement, and that before the wish of a fellow signer, which is made
this one's where it has none. So one signer that sees a reason is enough for all to sit down.

Invariant: no wish that others brought stands here unchecked: all in it are known as members and not revoked, there are
no more of them than the mesh would keep, and the threshold does not fall below what the mesh is set to.
"""

from typing import Protocol

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

    def __init__(self, judgement: Judgement, rules: SignerRules) -> None:
        self._judgement = judgement
        self._rules = rules
        self._judged: tuple[bytes, ...] | None = None
        self._asked: tuple[bytes, ...] | None = None  # by this peer's operator
        self._hinted: tuple[bytes, ...] | None = None  # by a fellow signer

    @property
    def own(self) -> tuple[bytes, ...] | None:
        """This peer's, its operator's first."""
        return self._asked or self._judged

    @property
    def current(self) -> tuple[bytes, ...] | None:
        """The one that counts here."""
        return self.own or self._hinted

    def forget(self) -> None:
        """Another epoch has begun: nobody has wished for the one after it yet."""
        self._judged = self._asked = self._hinted = None

    def judge(self, record: EpochRecord) -> None:
        """Look again at who should be signers."""
        self._judged = self._judgement.wish(record)

    def ask(self, keys: tuple[bytes, ...] | None, record: EpochRecord) -> tuple[bytes, ...]:
        """The operator wishes for these, or for what this node thinks right; to the same signers for fresh shares. What
        is wished for. Raises CeremonyError, and nothing has changed."""
        wanted = by_id(keys) if keys is not None else self._judgement.wish(record) or record.value.keys
        self._check(wanted, record)
        self._asked = wanted
        return wanted

    def hear(self, content: bytes, record: EpochRecord) -> bool:
        """A fellow signer's letter. Whether it is a wish for the epoch to come. Raises CeremonyError: it is one that
        is refused."""
        name, keys = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if (
            name != succession(record).ceremony
            or len(keys) % KEY_BYTES
            or len(keys) > SIGNERS_MAX * KEY_BYTES
        ):
            return False
        wanted = cut(keys, KEY_BYTES)
        self._check(wanted, record)
        self._hinted = wanted
        return True

    def letter(self, record: EpochRecord) -> bytes:
        """This peer's own wish, for its fellow signers."""
        return succession(record).ceremony + b"".join(self.own or ())

    def _check(self, wanted: tuple[bytes, ...], record: EpochRecord) -> None:
        check_electors(wanted)
        members, rules = self._judgement.members(record), self._rules
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
