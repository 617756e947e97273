"""The node credential: what the mesh root says of a node, small enough to travel with the gossip.

The root binds a node's two public keys to its name and to what it may do: which services it may offer, whether it
may publish policy, whether it may invite others, whether it governs (decides who may publish what, which is
`peer/capabilities.py`). It is compact MessagePack under one Ed25519 signature (at most 512 bytes, usually about 230),
lives for days and is renewed at half-life; the X.509-SVIDs of `trust/svid.py` are the short-lived ones and are issued
to who shows a valid credential.

Most nodes do not govern: their credentials are of format 1, which every version reads. Format 2 has one field more,
which is always true, so that a credential still has one encoding only.

Service patterns are `<namespace>/<service or account>`; either side is exact, `*`, or a prefix ending in `*`.
Rights only ever narrow: `covers` decides whether each pattern of a grant lies inside one pattern of the granter
(not inside their union: `a*` and `b*` do not cover `*` of a namespace that has only those).

Invariant: a Credential object is well-formed. Only `verify_credential` says that it is true.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from trust.codec import UNIX_S_MAX, Field, Reader, pack, signed_bytes
from trust.errors import CredentialError, IdentityError, span
from trust.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    TRUST_DOMAIN_CHARS_MAX,
    check_account,
    check_label,
    check_node_name,
    check_trust_domain,
    format_id,
    node_id,
    spiffe_node,
)
from trust.roots import NOT_SIGNED, Root, Roots, refusal

CREDENTIAL_BYTES_MAX: Final = 512
CREDENTIAL_TTL_S: Final = (
    7 * 86_400
)  # long enough to sleep through a weekend's partition, short enough to end
CREDENTIAL_TTL_S_MAX: Final = 30 * 86_400
SERIAL_BYTES: Final = 16
SERVICES_MAX: Final = 32
PATTERN_CHARS_MAX: Final = 127
CLOCK_SKEW_S_MAX: Final = (
    300  # how far ahead the issuer's clock may be; the same five minutes SVIDs are backdated
)

_LABEL: Final = b"gossamer/credential/1"
_FORMAT: Final = 1
_FORMAT_GOVERNING: Final = 2
_FIELDS: Final = 12
_FIELDS_GOVERNING: Final = 13
_GOVERNING_HEAD: Final = bytes([0x90 | _FIELDS_GOVERNING])
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,61}\*")


def check_pattern(pattern: str) -> str:
    """`pattern` itself if it is a service pattern. Raises IdentityError."""
    namespace, slash, name = pattern.partition("/")
    if not slash:
        raise IdentityError(
            f"{pattern[:64]!r} is not a service pattern: <namespace>/<service> is expected, such as shop/cart or shop/*"
        )
    if not _wild(namespace):
        check_label(namespace)
    if not _wild(name):
        check_account(name)
    return pattern


def covers(granted: Iterable[str], pattern: str) -> bool:
    """Whether one of the patterns `granted` includes every name that `pattern` includes."""
    namespace, _, name = pattern.partition("/")
    for candidate in granted:
        outer_namespace, _, outer_name = candidate.partition("/")
        if _includes(outer_namespace, namespace) and _includes(outer_name, name):
            return True
    return False


def _wild(part: str) -> bool:
    return part == "*" or _PREFIX.fullmatch(part) is not None


def _includes(outer: str, inner: str) -> bool:
    return inner.startswith(outer[:-1]) if outer.endswith("*") else inner == outer


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A node's credential. Times are Unix seconds. Raises CredentialError when a field is out of bounds."""

    trust_domain: str
    public_key: bytes
    agreement_key: bytes
    name: str
    services: tuple[str, ...]
    publish: bool
    invite: bool
    serial: bytes
    issued_at: int
    expires_at: int
    govern: bool = False
    signature: bytes = b"\0" * SIGNATURE_BYTES

    # Derived, read on every datagram: the node's id, its SPIFFE ID, the wire form.
    node: bytes = field(init=False, compare=False)
    spiffe: str = field(init=False, compare=False)
    _encoded: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        assert len(self.public_key) == len(self.agreement_key) == KEY_BYTES, "keys have 32 bytes"
        assert len(self.serial) == SERIAL_BYTES, "a serial has 16 bytes"
        assert len(self.signature) == SIGNATURE_BYTES, "a signature has 64 bytes"
        try:
            check_trust_domain(self.trust_domain)
            check_node_name(self.name)
            for pattern in self.services:
                check_pattern(pattern)
        except IdentityError as error:
            raise CredentialError(f"not a credential: {error}") from None
        if not 0 <= self.issued_at < self.expires_at <= UNIX_S_MAX:
            raise CredentialError("not a credential: it ends before it begins")
        encoded = pack([*self._fields(), self.signature])
        if len(self.services) > SERVICES_MAX or len(encoded) > CREDENTIAL_BYTES_MAX:
            raise CredentialError(
                f"the credential would have {len(encoded)} bytes and {len(self.services)} services; at most "
                f"{CREDENTIAL_BYTES_MAX} and {SERVICES_MAX} are allowed: name fewer, or use a pattern such as shop/*"
            )
        object.__setattr__(self, "_encoded", encoded)
        object.__setattr__(self, "node", node_id(self.public_key))
        object.__setattr__(self, "spiffe", spiffe_node(self.trust_domain, self.node))

    def encode(self) -> bytes:
        """The wire form, at most CREDENTIAL_BYTES_MAX bytes."""
        return self._encoded

    def signing_bytes(self) -> bytes:
        """What the root signs."""
        return signed_bytes(_LABEL, self._fields())

    def signed(self, signature: bytes) -> "Credential":
        """This credential with the root's signature."""
        return replace(self, signature=signature)

    def allows(self, namespace: str, service: str) -> bool:
        """Whether the node may offer `service` (or act as that account) in `namespace`."""
        return covers(self.services, f"{namespace}/{service}")

    def _fields(self) -> list[Field]:
        return [
            _FORMAT_GOVERNING if self.govern else _FORMAT,
            self.trust_domain,
            self.public_key,
            self.agreement_key,
            self.name,
            self.services,
            self.publish,
            self.invite,
            *([True] if self.govern else []),
            self.serial,
            self.issued_at,
            self.expires_at,
        ]

    def __repr__(self) -> str:
        return (
            f"Credential({self.name}, {format_id(self.node)}, services={','.join(self.services) or '-'}, "
            f"expires_at={self.expires_at})"
        )


def decode_credential(data: bytes) -> Credential:
    """Inverse of `Credential.encode`. Raises CredentialError. Nothing is verified."""
    governing = data[:1] == _GOVERNING_HEAD  # the length of the array tells which; Reader checks all of it
    reader = Reader(
        data,
        count=_FIELDS_GOVERNING if governing else _FIELDS,
        bytes_max=CREDENTIAL_BYTES_MAX,
        what="a node credential",
        error=CredentialError,
    )
    if (version := reader.integer()) != (_FORMAT_GOVERNING if governing else _FORMAT):
        raise CredentialError(
            f"the credential is of format {version}; this version of Gossamer knows {_FORMAT} and "
            f"{_FORMAT_GOVERNING}, which has a field more"
        )
    credential = Credential(
        trust_domain=reader.text(TRUST_DOMAIN_CHARS_MAX),
        public_key=reader.raw(KEY_BYTES),
        agreement_key=reader.raw(KEY_BYTES),
        name=reader.text(63),
        services=reader.texts(SERVICES_MAX, PATTERN_CHARS_MAX),
        publish=reader.flag(),
        invite=reader.flag(),
        govern=reader.flag() if governing else False,
        serial=reader.raw(SERIAL_BYTES),
        issued_at=reader.integer(),
        expires_at=reader.integer(),
        signature=reader.raw(SIGNATURE_BYTES),
    )
    if credential.govern != governing:
        raise CredentialError("a node credential is not in its canonical encoding")
    return credential


def is_doubtful(credential: Credential, root: Root) -> bool:
    """Whether somebody else than the signers may have made it: one that a compromised root signed."""
    if not isinstance(root, Roots):
        return False
    signer = root.signer_of(credential.signing_bytes(), credential.signature)
    return signer is not None and root.compromised(signer)


def check_carried(credential: Credential, root: Root, carries: Callable[[Credential], bool]) -> None:
    """Raise CredentialError for a doubtful one, unless the mesh `carries` it over."""
    if is_doubtful(credential, root) and not carries(credential):
        raise CredentialError(
            f"the credential of {credential.name} is signed by a root that was given up as compromised, and it was "
            "not known as a member then: join again with a new token"
        )


def verify_credential(
    credential: Credential, root_public: Root, trust_domain: str, now: float | None
) -> None:
    """Raise CredentialError unless the root of `trust_domain` signed it and it is valid at `now` (Unix s). With
    `now` None neither its validity nor that of the root is judged: records signed long ago stay true."""
    if credential.trust_domain != trust_domain:
        raise CredentialError(
            f"the credential of {credential.name} is for trust domain {credential.trust_domain!r}, not {trust_domain!r}"
        )
    if reason := refusal(root_public, credential.signing_bytes(), credential.signature, now):
        words = f"is not signed by the root of {trust_domain!r}" if reason == NOT_SIGNED else reason
        raise CredentialError(f"the credential of {credential.name} {words}")
    if credential.expires_at - credential.issued_at > CREDENTIAL_TTL_S_MAX:
        raise CredentialError(f"the credential of {credential.name} is valid for longer than the mesh allows")
    if now is None:
        return
    if now >= credential.expires_at:
        raise CredentialError(
            f"the credential of {credential.name} expired {span(now - credential.expires_at)} ago"
        )
    if credential.issued_at > now + CLOCK_SKEW_S_MAX:
        raise CredentialError(
            f"the credential of {credential.name} was issued {span(credential.issued_at - now)} in the future: "
            "the clocks of the two hosts differ too much"
        )
