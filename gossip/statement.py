"""What members sign about themselves and about each other.

| statement | signed by                | says                                                                     |
|-----------|--------------------------|--------------------------------------------------------------------------|
| Alive     | the subject              | where it is, at (boot, incarnation), with the credential that makes it one |
| Suspect   | the accuser              | its probe of the subject at (boot, incarnation) failed                      |
| Dead      | nobody: it is a bundle   | the Suspects for one (boot, incarnation) that make it true                  |
| Left      | the subject              | it has left, at (boot, incarnation)                                        |

Each signature covers a domain label and every field, so that no statement can be passed off as another. An Alive
is sent whole, or slim (without the credential, whose digest the signature covers) to those who should know the
credential already: a refutation then fits beside others in a datagram.

Decoding checks form only. Who signed is checked by gossip/judge.py, which knows the keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Final, TypeAlias

from gossip.codec import (
    as_array,
    as_bytes,
    as_text,
    as_uint,
    pack,
    pack_address,
    unpack_address,
    unpack_array,
)
from gossip.errors import LimitError, MalformedError
from trust.credential import CREDENTIAL_BYTES_MAX, Credential
from trust.identity import ID_BYTES, SIGNATURE_BYTES, NodeIdentity

STATEMENT_BYTES_MAX: Final = 1024
META_BYTES_MAX: Final = 192
META_ENTRIES_MAX: Final = 16
ZONE_BYTES_MAX: Final = 64
SUSPICIONS_MAX: Final = 8  # in one Dead; more would prove no more

VERSION_MIN: Final = 1  # of datagrams: what this code reads ...
VERSION_MAX: Final = 1  # ... and writes, to those who read it too
VERSION_LIMIT: Final = 0x7F  # the field has seven bits

_DIGEST_BYTES: Final = 16
_ALIVE, _SUSPECT, _DEAD, _LEFT = 1, 2, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The subject's own word. `versions` are the lowest and the highest version of datagrams it reads; `credential` is
    its encoded credential, or empty in the slim form."""

    node: bytes
    boot: int
    incarnation: int
    versions: tuple[int, int]
    address: tuple[str, int]
    zone: str
    meta: tuple[tuple[str, int | str | bool], ...]
    credential_digest: bytes
    signature: bytes
    credential: bytes

    @property
    def rank(self) -> tuple[int, int]:
        return self.boot, self.incarnation

    def signing_bytes(self) -> bytes:
        return b"gossamer/alive/1" + pack(self._fields())

    def _fields(self) -> list[object]:
        host, port = pack_address(self.address)
        meta: list[object] = [[key, value] for key, value in self.meta]
        return [
            *(self.node, self.boot, self.incarnation, list(self.versions), host, port, self.zone, meta),
            self.credential_digest,
        ]

    def encode(self) -> bytes:
        return pack([_ALIVE, *self._fields(), self.signature, self.credential])

    def slim(self) -> "Alive":
        """The same without the credential."""
        return replace(self, credential=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """`accuser` could not reach `subject` as it is at (boot, incarnation)."""

    subject: bytes
    boot: int
    incarnation: int
    accuser: bytes
    signature: bytes

    @property
    def rank(self) -> tuple[int, int]:
        return self.boot, self.incarnation

    def signing_bytes(self) -> bytes:
        return b"gossamer/suspect/1" + pack([self.subject, self.boot, self.incarnation, self.accuser])

    def encode(self) -> bytes:
        return pack([_SUSPECT, self.subject, self.boot, self.incarnation, self.accuser, self.signature])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """The signed suspicions of one (subject, boot, incarnation)."""

    subject: bytes
    boot: int
    incarnation: int
    suspicions: tuple[Suspect, ...]

    @property
    def rank(self) -> tuple[int, int]:
        return self.boot, self.incarnation

    def encode(self) -> bytes:
        proofs = [[s.accuser, s.signature] for s in self.suspicions]
        return pack([_DEAD, self.subject, self.boot, self.incarnation, proofs])


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The subject's good-bye."""

    subject: bytes
    boot: int
    incarnation: int
    signature: bytes

    @property
    def rank(self) -> tuple[int, int]:
        return self.boot, self.incarnation

    def signing_bytes(self) -> bytes:
        return b"gossamer/left/1" + pack([self.subject, self.boot, self.incarnation])

    def encode(self) -> bytes:
        return pack([_LEFT, self.subject, self.boot, self.incarnation, self.signature])


Statement: TypeAlias = Alive | Suspect | Dead | Left


def sign_alive(
    identity: NodeIdentity,
    credential: Credential,
    *,
    boot: int,
    incarnation: int,
    address: tuple[str, int],
    zone: str,
    meta: Mapping[str, int | str | bool],
    versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX),
) -> Alive:
    """This node's Alive. Raises LimitError if zone, metadata or address do not fit."""
    pairs = tuple(sorted(meta.items()))
    if len(pairs) > META_ENTRIES_MAX or len(pack([list(pair) for pair in pairs])) > META_BYTES_MAX:
        raise LimitError(f"metadata: at most {META_ENTRIES_MAX} entries of {META_BYTES_MAX} bytes in all")
    if len(zone.encode()) > ZONE_BYTES_MAX:
        raise LimitError(f"zone {zone!r}: at most {ZONE_BYTES_MAX} bytes")
    encoded = credential.encode()
    try:
        unsigned = Alive(
            node=identity.id,
            boot=boot,
            incarnation=incarnation,
            versions=versions,
            address=unpack_address(*pack_address(address)),
            zone=zone,
            meta=pairs,
            credential_digest=credential_digest(encoded),
            signature=b"",
            credential=encoded,
        )
    except MalformedError as error:
        raise LimitError(str(error)) from error
    return replace(unsigned, signature=identity.sign(unsigned.signing_bytes()))


def sign_suspect(identity: NodeIdentity, *, subject: bytes, rank: tuple[int, int]) -> Suspect:
    """This node's accusation of `subject` as it is at `rank`."""
    boot, incarnation = rank
    unsigned = Suspect(
        subject=subject, boot=boot, incarnation=incarnation, accuser=identity.id, signature=b""
    )
    return replace(unsigned, signature=identity.sign(unsigned.signing_bytes()))


def sign_left(identity: NodeIdentity, *, rank: tuple[int, int]) -> Left:
    """This node's good-bye at `rank`."""
    boot, incarnation = rank
    unsigned = Left(subject=identity.id, boot=boot, incarnation=incarnation, signature=b"")
    return replace(unsigned, signature=identity.sign(unsigned.signing_bytes()))


def credential_digest(encoded: bytes) -> bytes:
    """What an Alive's signature covers of the credential."""
    return sha256(b"gossamer/credential-digest/1" + encoded).digest()[:_DIGEST_BYTES]


@lru_cache(maxsize=1024)
def decode_statement(data: bytes) -> Statement:
    """Any statement. Raises MalformedError. The same statement comes from many members within seconds: the latest ones
    are remembered."""
    values = unpack_array(data, size_max=STATEMENT_BYTES_MAX)
    match values:
        case [
            kind,
            node,
            boot,
            incarnation,
            versions,
            host,
            port,
            zone,
            meta,
            digest,
            signature,
            credential,
        ] if kind == _ALIVE:
            encoded = as_bytes(credential, "credential", size_max=CREDENTIAL_BYTES_MAX)
            alive = Alive(
                node=_id(node, "node"),
                boot=as_uint(boot, "boot"),
                incarnation=as_uint(incarnation, "incarnation"),
                versions=_versions(versions),
                address=unpack_address(host, port),
                zone=as_text(zone, "zone", size_max=ZONE_BYTES_MAX),
                meta=_meta(meta),
                credential_digest=as_bytes(digest, "credential digest", size=_DIGEST_BYTES),
                signature=_signature(signature),
                credential=encoded,
            )
            if encoded and credential_digest(encoded) != alive.credential_digest:
                raise MalformedError("credential: not the one that was signed for")
            return alive
        case [kind, subject, boot, incarnation, accuser, signature] if kind == _SUSPECT:
            return Suspect(
                subject=_id(subject, "subject"),
                boot=as_uint(boot, "boot"),
                incarnation=as_uint(incarnation, "incarnation"),
                accuser=_id(accuser, "accuser"),
                signature=_signature(signature),
            )
        case [kind, subject, boot, incarnation, proofs] if kind == _DEAD:
            return _dead(subject, boot, incarnation, as_array(proofs, "proofs", length_max=SUSPICIONS_MAX))
        case [kind, subject, boot, incarnation, signature] if kind == _LEFT:
            return Left(
                subject=_id(subject, "subject"),
                boot=as_uint(boot, "boot"),
                incarnation=as_uint(incarnation, "incarnation"),
                signature=_signature(signature),
            )
        case _:
            raise MalformedError("no known statement")


def _dead(subject: object, boot: object, incarnation: object, proofs: list[object]) -> Dead:
    whom = _id(subject, "subject")
    rank = as_uint(boot, "boot"), as_uint(incarnation, "incarnation")
    suspicions = []
    for proof in proofs:
        match proof:
            case [accuser, signature]:
                suspicions.append(
                    Suspect(
                        subject=whom,
                        boot=rank[0],
                        incarnation=rank[1],
                        accuser=_id(accuser, "accuser"),
                        signature=_signature(signature),
                    )
                )
            case _:
                raise MalformedError("proofs: not pairs of accuser and signature")
    return Dead(subject=whom, boot=rank[0], incarnation=rank[1], suspicions=tuple(suspicions))


def _versions(value: object) -> tuple[int, int]:
    match value:
        case [int() as lowest, int() as highest] if 0 < lowest <= highest <= VERSION_LIMIT:
            return lowest, highest
        case _:
            raise MalformedError("versions: not the lowest and the highest")


def _id(value: object, field: str) -> bytes:
    return as_bytes(value, field, size=ID_BYTES)


def _signature(value: object) -> bytes:
    return as_bytes(value, "signature", size=SIGNATURE_BYTES)


def _meta(value: object) -> tuple[tuple[str, int | str | bool], ...]:
    pairs: list[tuple[str, int | str | bool]] = []
    for item in as_array(value, "meta", length_max=META_ENTRIES_MAX):
        match item:
            case [str() as key, str() | bool() | int() as entry]:
                pairs.append((key, entry))
            case _:
                raise MalformedError("meta: not pairs of text and text, integer or bool")
    if pairs != sorted(pairs, key=lambda pair: pair[0]) or len({key for key, _ in pairs}) != len(pairs):
        raise MalformedError("meta: keys not in order, or twice")
    if len(pack([list(pair) for pair in pairs])) > META_BYTES_MAX:
        raise MalformedError(f"meta: more than {META_BYTES_MAX} bytes")
    return tuple(pairs)
