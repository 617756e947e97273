"""Datagrams: a header in clear, perhaps an introduction, and a body under AES-256-GCM.

    version(1) sender(8) boot(8) counter(8) [length(2) introduction] sealed body with tag(16)

- The key comes from HKDF-SHA256 (RFC 5869) over the X25519 agreement (RFC 7748) of the two nodes' static keys, with
  both ids and the sender's boot as context: one key per direction and boot, no group key, nobody else can speak for
  either side. Everything in front of the sealed body is its associated data.
- The counter is the nonce (gossip/courier.py holds it, so dropping a derived key can never make one repeat). It starts
  at the clock, in microseconds: not even a boot number used twice (a disk restored from an old image) repeats one.
- The sender field is the first 8 bytes of the node id. The receiver is not named: a datagram that strays to
  another node does not authenticate there.
- The version is the highest that sender and receiver both read, by the ranges in their Alives, so that a mesh can be
  upgraded peer by peer. Every version keeps this header.
- The high bit of the version says that an introduction follows: the sender's signed Alive with its credential, for
  receivers that may not know it yet.

Invariant: a body is returned only if it authenticates, and each (sender, boot, counter) only once.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gossip.config import DATAGRAM_BYTES_MAX
from gossip.errors import ForgedError, MalformedError
from gossip.statement import STATEMENT_BYTES_MAX
from trust.errors import IdentityError
from trust.identity import NodeIdentity

SENDER_BYTES: Final = 8
TAG_BYTES: Final = 16
WINDOW: Final = 64

_INTRODUCED: Final = 0x80
_HEADER: Final = struct.Struct(">B8sQQ")
_HEADER_BYTES: Final = _HEADER.size
_LENGTH: Final = struct.Struct(">H")
_NONCE: Final = struct.Struct(">4xQ")
_BOOT: Final = struct.Struct(">Q")


def common_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """The highest version both read; None if there is none."""
    if ours == theirs:
        return ours[1]  # nearly always
    highest = min(ours[1], theirs[1])
    return highest if highest >= max(ours[0], theirs[0]) else None


class Cipher(Protocol):
    """An authenticated cipher as `cryptography`'s AESGCM."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Raises InvalidTag."""
        ...


class Keys(Protocol):
    """The ciphers of one node: what the engine needs of `KeyRing`."""

    def sending(self, receiver: bytes, agreement_key: bytes, boot: int) -> Cipher: ...

    def receiving(self, sender: bytes, agreement_key: bytes, boot: int, *, keep: bool) -> Cipher: ...


class Packet(NamedTuple):
    """A datagram taken apart but not yet believed. `introduction` is empty if there is none."""

    version: int
    sender: bytes
    boot: int
    counter: int
    introduction: bytes
    associated: bytes
    sealed: bytes


def overhead_bytes(introduction: bytes) -> int:
    """What a datagram has besides its body."""
    return _HEADER_BYTES + TAG_BYTES + (_LENGTH.size + len(introduction) if introduction else 0)


def parse(data: bytes, versions: tuple[int, int]) -> Packet:
    """Take a datagram apart by lengths alone. `versions` are those this node reads. Raises MalformedError."""
    if not _HEADER_BYTES + TAG_BYTES < len(data) <= DATAGRAM_BYTES_MAX:
        raise MalformedError(f"a datagram of {len(data)} bytes")
    marked, sender, boot, counter = _HEADER.unpack_from(data)
    version = marked & ~_INTRODUCED
    if not versions[0] <= version <= versions[1]:
        raise MalformedError(f"version {version}, this node reads {versions[0]} to {versions[1]}")
    start = _HEADER_BYTES
    introduction = b""
    if marked & _INTRODUCED:
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        if not 0 < length <= STATEMENT_BYTES_MAX or start + length + TAG_BYTES >= len(data):
            raise MalformedError(f"an introduction of {length} bytes")
        introduction = data[start : start + length]
        start += length
    return Packet(version, sender, boot, counter, introduction, data[:start], data[start:])


def seal(
    cipher: Cipher, *, version: int, sender: bytes, boot: int, counter: int, introduction: bytes, body: bytes
) -> bytes:
    """The datagram. `counter` must never have been used with this boot."""
    if introduction:
        front = _HEADER.pack(version | _INTRODUCED, sender[:SENDER_BYTES], boot, counter)
        front += _LENGTH.pack(len(introduction)) + introduction
    else:
        front = _HEADER.pack(version, sender[:SENDER_BYTES], boot, counter)
    return front + cipher.encrypt(_NONCE.pack(counter), body, front)


def unseal(cipher: Cipher, packet: Packet) -> bytes:
    """The body. Raises ForgedError."""
    try:
        return cipher.decrypt(_NONCE.pack(packet.counter), packet.sealed, packet.associated)
    except InvalidTag as error:
        raise ForgedError("does not authenticate") from error


@dataclass(slots=True)
class ReplayWindow:
    """Which counters of one (sender, boot) have been seen: the highest and the 63 below it (RFC 6479's purpose,
    at the size DTLS uses). Older ones count as seen."""

    highest: int = -1
    seen: int = 0  # bit b: the counter that many below the highest

    def fresh(self, counter: int) -> bool:
        """Whether `counter` may still be accepted."""
        behind = self.highest - counter
        return behind < 0 or (behind < WINDOW and not self.seen >> behind & 1)

    def accept(self, counter: int) -> None:
        """Mark an authenticated counter as seen."""
        behind = self.highest - counter
        if behind < 0:
            shift = min(-behind, WINDOW)
            self.seen = (self.seen << shift | 1) & (1 << WINDOW) - 1
            self.highest = counter
        else:
            self.seen |= 1 << behind


class KeyRing:
    """Derived keys, at most `keys_max` of them; the ones not used for longest are derived anew when needed."""

    __slots__ = ("_ciphers", "_identity", "_keys_max")

    def __init__(self, identity: NodeIdentity, *, keys_max: int) -> None:
        self._identity = identity
        self._keys_max = keys_max
        self._ciphers: OrderedDict[tuple[bytes, bytes, int, bool], AESGCM] = OrderedDict()

    def sending(self, receiver: bytes, agreement_key: bytes, boot: int) -> AESGCM:
        """For datagrams of this node's `boot` to `receiver`. Raises ForgedError on a weak agreement key."""
        return self._cipher(receiver, agreement_key, boot, outward=True)

    def receiving(self, sender: bytes, agreement_key: bytes, boot: int, *, keep: bool) -> AESGCM:
        """For datagrams of the sender's `boot` to this node. `keep` is False while nothing has authenticated under
        that boot, so that invented boots cannot push out keys in use. Raises ForgedError on a weak agreement key."""
        return self._cipher(sender, agreement_key, boot, outward=False, keep=keep)

    def _cipher(
        self, peer: bytes, agreement_key: bytes, boot: int, *, outward: bool, keep: bool = True
    ) -> AESGCM:
        key = (peer, agreement_key, boot, outward)
        cipher = self._ciphers.get(key)
        if cipher is not None:
            self._ciphers.move_to_end(key)
            return cipher
        try:
            shared = self._identity.agree(agreement_key)
        except IdentityError as error:
            raise ForgedError(f"agreement key: {error}") from error
        pair = self._identity.id + peer if outward else peer + self._identity.id
        context = b"gossamer/datagram/1" + pair + _BOOT.pack(boot)
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=context).derive(shared)
        cipher = AESGCM(derived)
        if keep:
            self._ciphers[key] = cipher
            if len(self._ciphers) > self._keys_max:
                self._ciphers.popitem(last=False)
        return cipher

    def __len__(self) -> int:
        return len(self._ciphers)
