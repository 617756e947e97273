"""What a record of an issuance holds: a certificate, without what all certificates of the mesh have in common.

Leafs have one shape (`trust/issuance.py`), so a certificate follows from whom it is for, its key, serial, dates and the
root's signature: 165 bytes instead of 505. `certificate_of` puts it together again, and the signature says whether such
a certificate was ever issued. So an entry proves itself, whoever wrote it, and nobody can make one up.

Two certificates of one key in one name are one *leaf*: who asked for one asked for both, and who did not has the key of
neither.

Invariant: what `certificate_of` returns is signed by the root, byte for byte what was issued.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from trust.authority import BACKDATE_S, read_root
from trust.errors import AuthorityError, IdentityError, SvidError
from trust.identity import (
    ID_BYTES,
    SIGNATURE_BYTES,
    NodeSpiffe,
    SpiffeId,
    WorkloadSpiffe,
    parse_spiffe,
    spiffe_node,
    spiffe_workload,
)
from trust.issuance import draft_leaf
from trust.svid import SVID_TTL_S_MAX, Svid

LEAF_BYTES: Final = 16
KEY_BYTES: Final = 33  # a compressed point of P-256
SERIAL_BYTES: Final = 16
WORKLOAD_CHARS_MAX: Final = 127  # two DNS labels and a stroke
LIFE_S_MAX: Final = SVID_TTL_S_MAX + BACKDATE_S

_FIELDS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate. `workload` is `<namespace>/<account>`, or "" for the node's own; `by` is the node that had it
    signed, as far as its signers know: b"" for the one it is for. Times are Unix seconds."""

    node: bytes
    workload: str
    key: bytes
    serial: bytes
    not_before: int
    not_after: int
    signature: bytes
    by: bytes = b""

    @property
    def leaf(self) -> bytes:
        """Node, name and key, hashed."""
        return _leaf(self.node, self.workload, self.key)

    @property
    def issued_at(self) -> int:
        """When the root signed it, by the clock of who coordinated: it begins a little before."""
        return issued_at(self.not_before, self.not_after)

    def fields(self) -> list[Any]:
        """For a record, in a fixed order."""
        life_s = self.not_after - self.not_before
        return [
            self.node, self.workload, self.key, self.serial, self.not_before, life_s, self.signature, self.by,
        ]  # fmt: skip

    @classmethod
    def of_fields(cls, fields: object) -> Self:
        """Inverse of `fields`. Raises SvidError. The signature is not verified."""
        wrong = SvidError("this is not the entry of an issuance")
        if not isinstance(fields, list) or len(fields) != _FIELDS:
            raise wrong
        node, workload, key, serial, begin, life_s, signature, by = fields
        sizes = (
            (node, ID_BYTES), (key, KEY_BYTES), (serial, SERIAL_BYTES), (signature, SIGNATURE_BYTES),
        )  # fmt: skip
        if not all(isinstance(value, bytes) and len(value) == size for value, size in sizes):
            raise wrong
        if not isinstance(by, bytes) or len(by) not in (0, ID_BYTES):
            raise wrong
        if type(begin) is not int or type(life_s) is not int or not 0 < life_s <= LIFE_S_MAX:
            raise wrong
        if not isinstance(workload, str) or len(workload) > WORKLOAD_CHARS_MAX or not 0 <= begin < 2**40:
            raise wrong
        return cls(
            node=node, workload=workload, key=key, serial=serial, not_before=begin, not_after=begin + life_s,
            signature=signature, by=by,
        )  # fmt: skip


def issued_at(not_before: int, not_after: int) -> int:
    """When a certificate of these dates was signed (`draft_svid` dates it back by so much)."""
    life_s = not_after - not_before
    back_s = BACKDATE_S if life_s >= 5 * BACKDATE_S else life_s // 5
    return not_before + back_s


def leaf_of(svid: Svid) -> bytes:
    """As `Issued.leaf`, of a certificate that was read."""
    return _leaf(svid.node, _workload(svid.id), compressed(svid.public_der))


def leaf_of_key(node: bytes, uri: str, public_der: bytes) -> bytes:
    """As `Issued.leaf`, of what a node asks for. Raises SvidError, IdentityError."""
    return _leaf(node, _workload(parse_spiffe(uri)), compressed(public_der))


def _leaf(node: bytes, workload: str, key: bytes) -> bytes:
    return hashlib.sha256(b"\0".join((node, workload.encode(), key))).digest()[:LEAF_BYTES]


def _workload(identity: SpiffeId) -> str:
    match identity:
        case NodeSpiffe():
            return ""
        case WorkloadSpiffe(namespace=namespace, account=account):
            return f"{namespace}/{account}"


def issued_of(svid: Svid, der: bytes, root_der: bytes, trust_domain: str, by: bytes = b"") -> Issued:
    """The entry of a certificate that was read from `der`. Raises SvidError for one that is not of the shape that this
    mesh issues, though the root signed it."""
    entry = _issued(svid, der[-SIGNATURE_BYTES:], b"" if by == svid.node else by)
    try:
        same = certificate_of(entry, root_der, trust_domain) == der
    except SvidError:
        same = False
    if not same:
        raise SvidError(f"the certificate of {svid.spiffe} has not the shape that this mesh issues")
    return entry


def certificate_of(entry: Issued, root_der: bytes, trust_domain: str) -> bytes:
    """The certificate (DER). Raises SvidError unless the root signed it."""
    try:
        uri = parse_spiffe(_uri(entry, trust_domain)).uri
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), entry.key)
        leaf = draft_leaf(
            root_der, trust_domain=trust_domain, node=entry.node, uri=uri, public=public,
            serial=int.from_bytes(entry.serial, "big"), not_before=entry.not_before, not_after=entry.not_after,
        )  # fmt: skip
        return leaf.assemble(entry.signature, read_root(root_der, trust_domain))
    except (AuthorityError, IdentityError) as error:
        raise SvidError(f"recorded as issued, and not signed by the root: {error}") from error
    except (ValueError, OverflowError, UnsupportedAlgorithm):  # no point of the curve, no serial
        raise SvidError("recorded as issued, and not a certificate at all") from None


def _uri(entry: Issued, trust_domain: str) -> str:
    if not entry.workload:
        return spiffe_node(trust_domain, entry.node)
    namespace, _, account = entry.workload.partition("/")
    return spiffe_workload(trust_domain, namespace, account)


def _issued(svid: Svid, signature: bytes, by: bytes) -> Issued:
    return Issued(
        node=svid.node, workload=_workload(svid.id), key=compressed(svid.public_der), serial=svid.serial,
        not_before=svid.not_before, not_after=svid.not_after, signature=signature, by=by,
    )  # fmt: skip


def compressed(public_der: bytes) -> bytes:
    """A P-256 key (SubjectPublicKeyInfo) as one coordinate and a sign. Raises SvidError."""
    try:
        public = load_der_public_key(public_der)
    except (ValueError, UnsupportedAlgorithm):
        raise SvidError("the key does not decode") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise SvidError("the key is not ECDSA P-256")
    return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
