"""Looking for keys where none may be: every private byte a mesh holds, in every form somebody could have printed it.

The secrets are read from the files where they belong (the only ones that may hold them); the forms are the bytes
themselves, hex, base64 and base32 at any offset within a longer text, decimal, and Python's own way to show bytes.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from peer.io.keys import KeyFile
from trust.identity import NodeIdentity
from trust.invitation import _token_key, parse_token

SEED_FILES = (KeyFile.NODE_SEED, KeyFile.AUTHORITY_SEED)


@dataclass
class Secrets:
    """Secrets by what they are; `gather` may be called again and again, for keys are renewed."""

    known: dict[bytes, str] = field(default_factory=dict)
    homes: set[Path] = field(default_factory=set)

    def gather(self, data_dirs: Iterable[Path]) -> None:
        for directory in data_dirs:
            for file in SEED_FILES:
                path = directory / "keys" / file.value
                self.homes.add(path)
                if path.exists():
                    self.add_seed(path.read_bytes(), f"{directory.name}'s {file.value}")
            self._gather_shares(directory)
            path = directory / "keys" / KeyFile.CERTIFICATES.value
            self.homes.add(path)
            if path.exists():
                for _, pem in msgpack.unpackb(path.read_bytes()):
                    self.add_leaf(pem, f"a leaf key of {directory.name}")

    def _gather_shares(self, directory: Path) -> None:
        """Shares of the root, and what ceremonies keep on disk: the seed of a dealing, shares to be."""
        for path in (directory / "keys").glob("share-*.key"):
            self.homes.add(path)
            _, _, share = msgpack.unpackb(path.read_bytes())
            self.known[share] = f"a share of {directory.name}"
        for path in (directory / "keys").glob("unnamed-*.key"):
            self.homes.add(path)
            self.known[msgpack.unpackb(path.read_bytes())[3]] = f"a share of {directory.name}"
        made = (directory / "keys").glob("rollover.key")
        for path in (*(directory / "keys").glob("ceremony-*.key"), *made):
            self.homes.add(path)
            fields = msgpack.unpackb(path.read_bytes())
            seed, shares = fields[4], fields[5]
            for secret in (seed, *(shares[at : at + 32] for at in range(0, len(shares), 32))):
                if secret:
                    self.known[secret] = f"a ceremony of {directory.name}"

    def add_seed(self, seed: bytes, what: str) -> None:
        """An Ed25519 seed, the scalar and the prefix that grow from it, and the agreement key derived from it."""
        expanded = hashlib.sha512(seed).digest()
        scalar = bytes([expanded[0] & 248, *expanded[1:31], (expanded[31] & 127) | 64])
        agreement = NodeIdentity.from_seed(seed)._agreement.private_bytes_raw()
        for secret in (seed, expanded[:32], scalar, expanded[32:], agreement):
            self.known[secret] = what

    def add_leaf(self, pem: bytes, what: str) -> None:
        key = load_pem_private_key(pem, password=None)
        assert isinstance(key, EllipticCurvePrivateKey)
        self.known[key.private_numbers().private_value.to_bytes(32, "big")] = what

    def add_token(self, text: str) -> None:
        secret = parse_token(text).secret
        self.known[secret] = "a join token"
        self.add_seed(bytes(_token_key(secret)), "a join token")

    def forms(self) -> dict[bytes, str]:
        """What to look for, and whose it is."""
        return {form: what for secret, what in self.known.items() for form in forms_of(secret)}

    def found_in(self, data: bytes) -> set[str]:
        """Whose secrets are in `data`, with its lines as they are or joined (PEM breaks a key in two)."""
        joined = data.replace(b"\\n", b"").replace(b"\r", b"").replace(b"\n", b"")
        found = {what for form, what in self.forms().items() if form in data or form in joined}
        return found | ({"a key in PEM"} if b"PRIVATE KEY" in data else set())


def forms_of(secret: bytes) -> Iterator[bytes]:
    """The ways in which it may have been written."""
    number = int.from_bytes(secret, "big"), int.from_bytes(secret, "little")
    yield secret
    yield secret[::-1]
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield secret.hex(":").encode()
    yield from (str(each).encode() for each in number)
    yield repr(secret)[2:-1].encode()
    yield str(list(secret)).encode()
    for offset in range(5):  # within a longer text, what lies before it shifts the digits
        for encode, group in ((base64.b64encode, 3), (base64.urlsafe_b64encode, 3), (base64.b32encode, 5)):
            if offset < group:
                yield from _inner(encode(bytes(offset) + secret), offset, len(secret), 6 if group == 3 else 5)


def _inner(text: bytes, offset: int, length: int, bits: int) -> Iterator[bytes]:
    """The digits that no byte before or behind the secret has a part in."""
    first = -(-offset * 8 // bits)
    last = (offset + length) * 8 // bits
    yield text[first:last]
    yield text[first:last].lower() if bits == 5 else text[first:last]
