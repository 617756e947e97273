"""What this node knows of the signer group, and the shares of it that it holds.

Public is the chain of epoch records (`trust/epoch.py`): which signers there are, with their verifying shares. Records
come from the journal and from ceremonies, and each is verified. Secret are this node's own shares, at most those of
two epochs: the one that is, and the one before, for coordinators that have not heard of the change yet.

    keys/epochs                 the newest records; older ones are the journal's business
    keys/share-0000000007.key   record and share in one file, so that neither is there without the other

A mesh that was founded while the root was still one seed on one node becomes a group of one here: the seed turns into
the share of epoch 0, and its file is erased once that share is durable. A crash in between repeats the step with the
same outcome (`trust/ceremony/alone.py`).

A share that cannot be read is as good as lost, which `lacking` tells: the other signers can restore it. One that others
can read is refused by name, like any key.

Invariant: a share is on disk before it is used, and is erased from there before it is forgotten here.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Self

from peer import unnamed
from peer.io.keys import KeyFile, KeyFileError, Keys, erase_private, read_private, write_private
from trust.ceremony.alone import founded_alone
from trust.ceremony.statement import pack_many, unpack_many
from trust.codec import Reader, pack
from trust.epoch import RECORD_BYTES_MAX, Chain, EpochRecord, decode_epoch
from trust.errors import AuthorityError, EpochError, TrustError
from trust.group import SCALAR_BYTES, Secret, decode_scalar
from trust.groupkey import GroupKey, KeyShare, identifier_of
from trust.identity import NodeIdentity
from trust.order import Rolling
from trust.rollover import Rollover
from trust.roots import Root, is_root, newest_of
from trust.signer import SHARES_MAX

log = logging.getLogger("gossamer.custody")

RECORDS_KEPT: Final = 32  # in the file: with the largest records it stays below what a key file may have

_LABEL: Final = "gossamer/share/1"
_SHARE_FILES: Final = "share-*.key"


class Custody:
    """See the module's theory. Make it with `load`."""

    def __init__(self, keys: Keys, root: Root, node: bytes) -> None:
        self._keys, self._root, self._node = keys, root, node
        self._first = root if isinstance(root, bytes) else root.first
        self._chain = Chain(self._first)
        self._held: dict[int, tuple[EpochRecord, KeyShare]] = {}
        self._hooks: list[Callable[[], None]] = []
        self._next: Rolling | None = None
        self._next_share: KeyShare | None = None
        self._next_offer: KeyShare | None = None  # another copy, which whoever signs wipes

    @classmethod
    def load(cls, keys: Keys, root: Root, *, identity: NodeIdentity, trust_domain: str) -> Self:
        """What is on disk; a whole root becomes epoch 0 of a group of one. Raises KeyFileError."""
        custody = cls(keys, root, identity.id)
        custody._load_records()
        custody._load_shares()
        custody._adopt_seed(identity, trust_domain)
        if custody.record is not None:
            unnamed.drop(keys, custody.root)
        return custody

    # -------------------------------------------------------------- what is known

    @property
    def chain(self) -> Chain:
        """The epochs known here."""
        return self._chain

    @property
    def record(self) -> EpochRecord | None:
        """The newest epoch known; None before the first was heard of."""
        return self._chain.latest

    @property
    def root(self) -> bytes:
        """The public key that the newest epoch's signers sign for: what is issued is issued under it."""
        record = self.record
        return newest_of(self._root) if record is None else record.group.public

    @property
    def roots_known(self) -> int:
        """How many roots the mesh has had, as far as is known here."""
        return 1 if isinstance(self._root, bytes) else len(self._root)

    def knows_root(self, public: bytes) -> bool:
        """Whether that is the mesh's root, or was, or will be."""
        return is_root(self._root, public)

    @property
    def group(self) -> GroupKey | None:
        """Its public key in shares."""
        record = self.record
        return None if record is None else record.group

    @property
    def signers(self) -> tuple[bytes, ...]:
        """Public keys (Ed25519, 32 bytes) of its signers; () if unknown."""
        record = self.record
        return () if record is None else record.value.keys

    @property
    def shares(self) -> tuple[KeyShare, ...]:
        """Held here and to be answered for, newest last. Of two records of one epoch only the one that is followed
        counts."""
        return tuple(share for epoch, (record, share) in sorted(self._held.items()) if self._follows(record))

    @property
    def next(self) -> Rolling | None:
        """The root that this node's fellow signers and it have made, and to which the mesh has not gone over yet."""
        return self._next

    @property
    def offers(self) -> tuple[KeyShare, ...]:
        """`shares`, and this node's share of the root that is to follow, while that follows on the newest epoch: of
        each epoch one share is offered."""
        record = self.record
        if self._next is None or self._next_offer is None or record is None:
            return self.shares
        return (*self.shares, self._next_offer) if self._next.before.digest == record.digest else self.shares

    @property
    def lacking(self) -> bool:
        """Whether this node is a signer of the newest epoch and has no share of it."""
        record = self.record
        if record is None or self._node not in record.value.ids:
            return False
        held = self._held.get(record.epoch)
        return held is None or held[0].digest != record.digest

    def changed(self, hook: Callable[[], None]) -> None:
        """Call `hook` after any of the above has changed."""
        self._hooks.append(hook)

    def __repr__(self) -> str:
        record = self.record
        epoch = "none" if record is None else record.epoch
        return f"Custody(epoch={epoch}, shares={sorted(self._held)})"

    # -------------------------------------------------------------- what changes

    def learn(self, record: EpochRecord) -> bool:
        """Take in a record; whether the newest one is another now. Raises EpochError: it is not decided, or the one
        before it is not known here yet, and then it has to come again. A full disk is no reason to be ignorant: what
        could not be stored comes back from the journal."""
        if not self._chain.add(record):
            return False
        try:
            self._store_records()
        except KeyFileError as error:
            log.warning("epoch_not_stored", extra={"fields": {"epoch": record.epoch, "reason": str(error)}})
        self._tell()
        return True

    def take(self, record: EpochRecord, share: KeyShare) -> None:
        """Keep `share` of `record`; durable when it returns, and it blocks until then. Shares of more than two epochs
        are not kept: the oldest goes. Raises KeyFileError, EpochError; what is held is then as before."""
        if share.group != record.group or share.identifier != identifier_of(self._node):
            raise EpochError("the share is not this node's of that epoch")
        self.learn(record)
        self._write_share(record, share)
        before = self._held.get(record.epoch)
        self._held[record.epoch] = (record, share)
        if before is not None and before[1] is not share:
            before[1].wipe()
        for epoch in sorted(self._held)[:-SHARES_MAX]:
            self._erase(epoch)
        self._tell()

    def prepare(self, rolling: Rolling, share: KeyShare | None) -> None:
        """A root is made that may follow on this one, and `share` is this node's of it. Both are on disk in the memory
        of the ceremony that made it (`peer/rollover.py`), not here."""
        self._next, self._next_share = rolling, share
        self._next_offer = None
        if share is not None:
            self._next_offer = KeyShare(share.group, share.identifier, Secret(share.secret.expose()))
        self._tell()

    def abandon(self) -> None:
        """Give up the root that was to follow. While the old one is in force this node's share of it is set aside
        (`peer/unnamed.py`), durable when it returns. Raises KeyFileError: nothing has changed."""
        if self._next is None:
            return
        old = self._next.before.group.public
        if self._next_share is not None:
            if self.root == old:
                unnamed.set_aside(self._keys, old, self._next.after, self._next_share)
            self._next_share.wipe()
        self._next = self._next_share = self._next_offer = None
        self._tell()

    def cross(self, step: Rollover, record: EpochRecord) -> None:
        """Go over to the root that begins with `record`, as the verified `step` says; with this node's share of it, if
        there is one, durable before. The shares of the old root stay until they are retired. Raises EpochError,
        KeyFileError: nothing has changed."""
        if record.digest != step.terms.record:
            raise EpochError("the new root does not begin with this epoch")
        if not self._chain.known(step.terms.before):
            raise EpochError("the epoch that the new root follows on is not known here yet")
        made_now = self._next is not None and self._next.after.digest == record.digest
        share = self._next_share if made_now else unnamed.find(self._keys, record, self._node)
        if share is not None:
            self._write_share(record, share)
        self._chain.cross(step.terms.before, record)
        if share is not None:
            self._held[record.epoch] = (record, share)
        self._next = self._next_share = self._next_offer = None
        try:
            self._store_records()
        except KeyFileError as error:
            log.warning("epoch_not_stored", extra={"fields": {"epoch": record.epoch, "reason": str(error)}})
        unnamed.drop(self._keys, self.root)
        self._tell()

    def retire(self, before: int) -> None:
        """Erase the shares of epochs below `before`. Raises KeyFileError."""
        old = [epoch for epoch in sorted(self._held) if epoch < before]
        for epoch in old:
            self._erase(epoch)
        if old:
            log.info("shares_erased", extra={"fields": {"epochs": old}})
            self._tell()

    def let_go(self, accepted: Iterable[bytes]) -> None:
        """Erase the shares of roots (public keys) that are not accepted any more. Raises KeyFileError."""
        roots = {self.root, *accepted}
        for epoch, (record, _) in sorted(self._held.items()):
            if record.group.public not in roots:
                self._erase(epoch)
                log.info("shares_erased", extra={"fields": {"epochs": [epoch]}})
        self._tell()

    # -------------------------------------------------------------- disk

    def _load_records(self) -> None:
        path = self._keys.path(KeyFile.EPOCHS)
        packed = self._keys.read(KeyFile.EPOCHS)
        if packed is None:
            return
        try:
            records = [decode_epoch(each) for each in unpack_many(packed, count_max=RECORDS_KEPT)]
            first = min(records, key=lambda each: each.epoch, default=None)
            if first is None or not is_root(self._root, first.group.public):
                raise EpochError("it holds no epochs of this mesh")
            self._chain = Chain(self._first, trusted=first if first.epoch > 0 else None)
            for record in records:
                self._add(record)
        except TrustError as error:
            # Public, and every member has it: it is heard again.
            log.warning("epochs_unreadable", extra={"fields": {"file": str(path), "reason": str(error)}})
            self._chain = Chain(self._first)

    def _load_shares(self) -> None:
        for path in sorted(self._keys.directory.glob(_SHARE_FILES)):
            packed = read_private(path, secret=True)
            if packed is None:
                continue
            if not any(packed) and self._is_past(path):  # a crash came between its erasure and its removal
                erase_private(path)
                continue
            try:
                record, share = self._decode(packed)
            except TrustError as error:
                log.error("share_unreadable", extra={"fields": {"file": str(path), "reason": str(error)}})
                continue
            if self._share_path(record.epoch) != path:
                log.error("share_unreadable", extra={"fields": {"file": str(path), "reason": "misnamed"}})
                continue
            self._held[record.epoch] = (record, share)
            self._trust_own(record)
        for epoch in sorted(self._held)[:-SHARES_MAX]:
            self._erase(epoch)

    def _decode(self, packed: bytes) -> tuple[EpochRecord, KeyShare]:
        reader = Reader(
            packed, count=3, bytes_max=RECORD_BYTES_MAX + 256, what="a share's file", error=EpochError
        )
        if reader.text(len(_LABEL)) != _LABEL:
            raise EpochError("this is not a share's file of this version")
        record, scalar = decode_epoch(reader.blob(RECORD_BYTES_MAX)), decode_scalar(reader.raw(SCALAR_BYTES))
        if not is_root(self._root, record.group.public):
            raise AuthorityError("the share is of another mesh")
        return record, KeyShare(record.group, identifier_of(self._node), Secret(scalar))

    def _trust_own(self, record: EpochRecord) -> None:
        """A record beside this node's own share was verified before it was stored."""
        if self._chain.latest is None and record.epoch > 0:
            self._chain = Chain(self._first, trusted=record)
            return
        try:
            self._add(record)
        except EpochError as error:
            fields = {"epoch": record.epoch, "reason": str(error)}
            log.warning("epoch_unconnected", extra={"fields": fields})
            newest = self._chain.latest
            if newest is None or record.epoch > newest.epoch:
                self._chain = Chain(self._first, trusted=record)

    def _adopt_seed(self, identity: NodeIdentity, trust_domain: str) -> None:
        seed = self._keys.read(KeyFile.AUTHORITY_SEED)
        if seed is None:
            return
        if not any(seed) and self.shares:  # a crash came between its erasure and its removal
            erase_private(self._keys.path(KeyFile.AUTHORITY_SEED))
            return
        try:
            record, share = founded_alone(identity, trust_domain, seed)
        except TrustError as error:
            raise KeyFileError(f"{self._keys.path(KeyFile.AUTHORITY_SEED)}: {error}") from error
        if record.group.public != self._first:
            raise KeyFileError(
                f"{self._keys.path(KeyFile.AUTHORITY_SEED)}: is not the key of this mesh's root; put it back from a "
                "backup"
            )
        newest = self.record
        if newest is None or newest.epoch == 0:
            try:
                self.take(record, share)
            except EpochError as error:
                raise KeyFileError(f"{self._keys.path(KeyFile.AUTHORITY_SEED)}: {error}") from error
            log.info("root_in_shares", extra={"fields": {"epoch": 0, "threshold": 1, "signers": 1}})
        erase_private(self._keys.path(KeyFile.AUTHORITY_SEED))

    def _add(self, record: EpochRecord) -> None:
        """One of those on disk, which may be the first of another root. Raises EpochError."""
        step = self._crossing(record)
        if step is None:
            self._chain.add(record)
        elif self._chain.known(step.terms.before):
            self._chain.cross(step.terms.before, record)

    def _crossing(self, record: EpochRecord) -> Rollover | None:
        """The rollover that says that another root begins with `record`."""
        if isinstance(self._root, bytes):
            return None
        steps = self._root.rollovers
        return next((each for each in steps if each.terms.record == record.digest), None)

    def _store_records(self) -> None:
        records = [each.encode() for each in self._chain.records[-RECORDS_KEPT:]]
        self._keys.write(KeyFile.EPOCHS, pack_many(records))

    def _write_share(self, record: EpochRecord, share: KeyShare) -> None:
        content = pack([_LABEL, record.encode(), share.secret.expose()])
        write_private(self._share_path(record.epoch), content)

    def _erase(self, epoch: int) -> None:
        erase_private(self._share_path(epoch))
        _, share = self._held.pop(epoch)
        share.wipe()

    def _share_path(self, epoch: int) -> Path:
        return self._keys.directory / f"share-{epoch:010d}.key"

    def _is_past(self, path: Path) -> bool:
        newest = self._chain.latest
        return newest is not None and path < self._share_path(newest.epoch)

    def _follows(self, record: EpochRecord) -> bool:
        followed = self._chain.at(record.epoch)
        return followed is not None and followed.digest == record.digest

    def _tell(self) -> None:
        for hook in tuple(self._hooks):
            hook()
