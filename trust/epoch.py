"""Epoch records: who the signers are, linear from one epoch to the next, the root being the same until a rollover.

A record names the group (threshold, verifying shares), the signers' node keys and the record before it. It counts when

- its `proof` verifies: a signature by the root over the record, which the *new* signers made with their new shares
  before anybody voted. So the new group can sign, and nobody makes a record without t shares of the root;
- a quorum of the electors, who are the signers of the epoch before, confirmed it with their node keys in one attempt.
  An elector confirms durably, one record in an attempt, and another one later only after a quorum showed that the
  first did not come about (`ceremony`), so two records of one epoch do not both get a quorum of honest votes.

An old signer keeps its share until it holds the next record, so whenever a ceremony dies the old group still signs.
Verifying a record takes the one before, back to epoch 0, whose electors are the founders; whoever pins the root needs
to check of that one only that the root is the pinned one.

If liars bring two records of one epoch about all the same (`ceremony.electorate` says when), both are of the same root
and everybody follows the same one (`choose`), whatever came first.

Where the mesh goes over to another root (`trust/rollover.py`), the first record of the new root takes the place of the
next epoch of the old one: no electors' votes decide that, but the old root's signature.

Invariant: a `Chain` only holds records each of which was decided by the signers of the one before.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from trust.ceremony.bodies import cut
from trust.ceremony.electorate import (
    DIGEST_BYTES,
    SIGNERS_MAX,
    Electorate,
    by_id,
    check_electors,
    quorum,
)
from trust.ceremony.evidence import judge
from trust.ceremony.statement import (
    ATTEMPT_MAX,
    Kind,
    Statement,
    decode_statement,
    pack_many,
    unpack_many,
)
from trust.codec import Reader, pack, signed_bytes
from trust.errors import EpochError, TrustError
from trust.groupkey import GroupKey, decode_group_key, node_of
from trust.identity import KEY_BYTES, SIGNATURE_BYTES, node_id, verify

RECORD_BYTES_MAX: Final = 80 * 1024
VALUE_BYTES_MAX: Final = 4096
EPOCHS_MAX: Final = 10_000  # of one chain: a change of signers every hour for a year

_PROOF: Final = b"gossamer/epoch/1"
_VALUE: Final = b"gossamer/epoch-value/1\0"
_GROUP_BYTES_MAX: Final = 64 + SIGNERS_MAX * 64
_VOTE_BYTES: Final = KEY_BYTES + SIGNATURE_BYTES
_EVIDENCE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What electors vote on. `proof` is the root's signature over the rest."""

    previous: bytes
    strict: bool
    group: GroupKey
    keys: tuple[bytes, ...]  # the signers' Ed25519 public keys, by node id
    proof: bytes = b"\0" * SIGNATURE_BYTES

    @property
    def digest(self) -> bytes:
        """What a PREPARE and a CONFIRM name."""
        return hashlib.sha256(_VALUE + self.encode()).digest()

    @property
    def ids(self) -> tuple[bytes, ...]:
        """Node ids of the signers."""
        return tuple(node_id(key) for key in self.keys)

    def signing_bytes(self) -> bytes:
        """What the new group signs."""
        return signed_bytes(_PROOF, [self.previous, self.strict, self.group.encode(), b"".join(self.keys)])

    def encode(self) -> bytes:
        """The wire form."""
        return pack([self.previous, self.strict, self.group.encode(), b"".join(self.keys), self.proof])

    @property
    def proven(self) -> bool:
        """Whether the group signed it."""
        return verify(self.group.public, self.signing_bytes(), self.proof)


def decode_value(data: bytes) -> Value:
    """Inverse of `Value.encode`. Raises EpochError. The proof is not checked."""
    reader = Reader(data, count=5, bytes_max=VALUE_BYTES_MAX, what="an epoch", error=EpochError)
    previous, strict = reader.raw(DIGEST_BYTES), reader.flag()
    packed, joined = reader.blob(_GROUP_BYTES_MAX), reader.blob(SIGNERS_MAX * KEY_BYTES)
    keys = cut(joined, KEY_BYTES)
    try:
        check_electors(keys)
        group = decode_group_key(packed)
        members = sorted(node_of(identifier) for identifier in group.identifiers)
    except TrustError as error:
        raise EpochError(f"this is not an epoch: {error}") from None
    value = Value(previous=previous, strict=strict, group=group, keys=keys, proof=reader.raw(SIGNATURE_BYTES))
    if members != list(value.ids):
        raise EpochError("this is not an epoch: its shares are not those of its signers")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """A value and the votes that decided it. `evidence` is there when convicted electors had to be discounted."""

    value: Value
    attempt: int
    votes: tuple[tuple[bytes, bytes], ...]  # elector's public key, signature of its CONFIRM
    evidence: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def epoch(self) -> int:
        """Rises by one with each change of the signers."""
        return self.value.group.epoch

    @property
    def group(self) -> GroupKey:
        """The public half of the key in this epoch."""
        return self.value.group

    @property
    def digest(self) -> bytes:
        """What the next record calls `previous`. Of the value alone: by whose votes it passed does not matter."""
        return self.value.digest

    def encode(self) -> bytes:
        """The wire form."""
        votes = b"".join(key + signature for key, signature in self.votes)
        return pack([self.value.encode(), self.attempt, votes, pack_many(self.evidence)])


def decode_epoch(data: bytes) -> EpochRecord:
    """Inverse of `EpochRecord.encode`. Raises EpochError. Nothing is verified."""
    reader = Reader(data, count=4, bytes_max=RECORD_BYTES_MAX, what="an epoch record", error=EpochError)
    value, attempt = decode_value(reader.blob(VALUE_BYTES_MAX)), reader.integer(ATTEMPT_MAX)
    votes = reader.blob(SIGNERS_MAX * _VOTE_BYTES)
    if len(votes) % _VOTE_BYTES:
        raise EpochError("this is not an epoch record: its votes are cut off")
    try:
        evidence = unpack_many(reader.blob(_EVIDENCE_BYTES_MAX), count_max=SIGNERS_MAX)
    except TrustError as error:
        raise EpochError(f"this is not an epoch record: {error}") from None
    pairs = tuple((row[:KEY_BYTES], row[KEY_BYTES:]) for row in cut(votes, _VOTE_BYTES))
    return EpochRecord(value=value, attempt=attempt, votes=pairs, evidence=evidence)


def check_value(value: Value, electorate: Electorate) -> None:
    """Raise EpochError unless `value` is what `electorate` may decide on: next in line, same root, proven."""
    if value.previous != electorate.previous or value.group.epoch != electorate.epoch:
        raise EpochError(f"epoch {value.group.epoch} does not follow on the record it is held against")
    if value.strict != electorate.strict:
        raise EpochError("the rule by which epochs are decided never changes")
    if electorate.group is not None and value.group.public != electorate.group.public:
        raise EpochError(f"epoch {value.group.epoch} is of another root")
    if not value.proven:
        raise EpochError(f"the signers of epoch {value.group.epoch} have not proved that they can sign")


def check_epoch(record: EpochRecord, electorate: Electorate) -> None:
    """Raise EpochError unless `electorate` decided on `record`."""
    check_value(record.value, electorate)
    voters = {node_id(key) for key, signature in record.votes if _voted(record, electorate, key, signature)}
    convicted = {guilty for each in record.evidence if (guilty := _guilty(each, electorate)) is not None}
    if not electorate.decided(voters, convicted):
        raise EpochError(
            f"epoch {record.epoch} has {len(voters)} votes, {electorate.quorum} of {len(electorate.keys)} are needed"
        )


def succession(record: EpochRecord) -> Electorate:
    """The electorate of the epoch after `record`."""
    threshold, count = record.group.threshold, len(record.value.keys)
    faults = threshold - 1 if record.value.strict else 0
    needed = max(threshold, quorum(count, faults))
    return Electorate(
        epoch=record.epoch + 1,
        previous=record.digest,
        keys=by_id(record.value.keys),
        quorum=needed,
        faults=faults,
        strict=record.value.strict,
        group=record.group,
    )


class Chain:
    """The epochs of one mesh, from the founding of `root_public` on, or from a record that was verified before
    (`trusted`). Feed it what comes, in any order, as often as it comes."""

    __slots__ = ("_by_previous", "_chain", "_crossings", "_root", "_trusted")

    def __init__(self, root_public: bytes, trusted: EpochRecord | None = None) -> None:
        self._root = root_public
        self._trusted = trusted
        self._crossings: dict[bytes, EpochRecord] = {}  # by the record before
        self._by_previous: dict[bytes, dict[bytes, EpochRecord]] = {}
        self._chain: list[EpochRecord] = [] if trusted is None else [trusted]

    @property
    def latest(self) -> EpochRecord | None:
        """The epoch in force; None before the founding record is here."""
        return self._chain[-1] if self._chain else None

    @property
    def first(self) -> int:
        """The epoch that the chain held here starts with."""
        return self._chain[0].epoch if self._chain else 0

    @property
    def records(self) -> tuple[EpochRecord, ...]:
        """Those in force and those they follow on, oldest first."""
        return tuple(self._chain)

    def at(self, epoch: int) -> EpochRecord | None:
        """The record of `epoch` that leads to the one in force."""
        index = epoch - self.first
        return self._chain[index] if 0 <= index < len(self._chain) else None

    def known(self, digest: bytes) -> bool:
        """Whether the record with this digest is here, be it in force or not."""
        if any(record.digest == digest for record in (*self._chain[:1], *self._crossings.values())):
            return True
        return any(digest in siblings for siblings in self._by_previous.values())

    def __len__(self) -> int:
        return len(self._chain)

    def add(self, record: EpochRecord) -> bool:
        """Whether this changed which epoch is in force. A record that comes before its predecessor is refused and has
        to come again; one from before `trusted` changes nothing. Raises EpochError."""
        if self._trusted is not None and record.epoch <= self._trusted.epoch:
            return False
        if any(record.digest == each.digest for each in self._crossings.values()):
            return False
        if record.epoch == 0:
            self._check_founding(record)
        else:
            before = self._find(record.value.previous, record.epoch - 1)
            if before is None:
                raise EpochError(f"epoch {record.epoch} follows on a record that is not known here")
            check_epoch(record, succession(before))
        if record.epoch >= EPOCHS_MAX:
            raise EpochError(f"a chain has at most {EPOCHS_MAX} epochs")
        siblings = self._by_previous.setdefault(record.value.previous, {})
        if record.digest in siblings:
            return False
        siblings[record.digest] = record
        was = self.latest
        self._chain = self._follow()
        return self.latest is not was

    def cross(self, before: bytes, record: EpochRecord) -> bool:
        """Go over to the root of `record` after the epoch with digest `before`: a rollover that was verified says so
        (`trust/rollover.py`). What the old signers decided after that epoch counts no more. Whether this changed which
        epoch is in force. Raises EpochError."""
        leading = next((each for each in self._chain if each.digest == before), None)
        if leading is None:
            raise EpochError(f"the new root follows on an epoch that is not known here, {record.epoch - 1}")
        if record.epoch != leading.epoch + 1 or not record.value.proven:
            raise EpochError(f"the new root does not begin with epoch {leading.epoch + 1}, proved")
        if record.group.public == leading.group.public:
            raise EpochError("a root does not follow on itself")
        self._crossings.setdefault(before, record)
        was = self.latest
        self._chain = self._follow()
        return self.latest is not was

    def _check_founding(self, record: EpochRecord) -> None:
        if record.group.public != self._root or not record.value.proven:
            raise EpochError("epoch 0 is not signed by the root of this mesh")

    def _find(self, digest: bytes, epoch: int) -> EpochRecord | None:
        known = self.at(epoch)
        if known is not None and known.digest == digest:
            return known
        for crossing in self._crossings.values():
            if crossing.digest == digest:
                return crossing
        for siblings in self._by_previous.values():
            if digest in siblings:
                return siblings[digest]
        return None

    def _follow(self) -> list[EpochRecord]:
        founding = [
            record
            for siblings in self._by_previous.values()
            for record in siblings.values()
            if record.epoch == 0
        ]
        chain = [self._trusted or choose(founding)]
        while (after := self._after(chain[-1].digest)) is not None:
            chain.append(after)
        return chain

    def _after(self, digest: bytes) -> EpochRecord | None:
        siblings = self._by_previous.get(digest)
        return self._crossings.get(digest) or (None if siblings is None else choose(siblings.values()))


def choose(records: Iterable[EpochRecord]) -> EpochRecord:
    """Of several decided records of one epoch: the same one everywhere."""
    return min(records, key=lambda record: record.digest)


def with_votes(
    value: Value, attempt: int, confirms: Iterable[Statement], evidence: Iterable[Statement]
) -> EpochRecord:
    """The record of a value that was decided in `attempt`."""
    votes = sorted((each.sender, each.signature) for each in confirms)
    accusations = tuple(sorted(each.encode() for each in evidence))
    return EpochRecord(value=value, attempt=attempt, votes=tuple(votes), evidence=accusations)


def unproven(
    electorate: Electorate, group: GroupKey, keys: Iterable[bytes], proof: bytes | None = None
) -> Value:
    """The value of an epoch as the new signers sign it; with `proof`, as it is voted on."""
    value = Value(previous=electorate.previous, strict=electorate.strict, group=group, keys=by_id(keys))
    return value if proof is None else replace(value, proof=proof)


def _voted(record: EpochRecord, electorate: Electorate, key: bytes, signature: bytes) -> bool:
    vote = Statement(
        ceremony=electorate.ceremony, sender=key, attempt=record.attempt, kind=Kind.CONFIRM, body=record.digest,
        signature=signature,
    )  # fmt: skip
    return key in electorate.keys and vote.genuine


def _guilty(accusation: bytes, electorate: Electorate) -> bytes | None:
    try:
        accuse = decode_statement(accusation)
    except TrustError:
        return None
    if accuse.kind is not Kind.ACCUSE or accuse.ceremony != electorate.ceremony or not accuse.genuine:
        return None
    return judge(accuse, electorate)
