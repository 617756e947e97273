"""The kinds of record this peer understands: what their payloads hold and who may write them.

    service     key `<namespace>/<name>`         the node itself, for names its credential allows
    policy      key `<Kind>/<namespace>/<name>`  any member whose credential lets it publish, and whom no Capability
                                                 keeps out (`peer/capabilities.py`, which goes on where this ends)
    closure     key `<namespace>` or `*`         who governs; never taken back
    revocation  key `<what>/<end>/<hash>`        carries its own proof: signed by the mesh root or by the holder
    denial      key printed serial of a certificate  the node it is made out to, which did not ask for it
    issuance    key number of a place           any member, of certificates that prove themselves (`issuelog.py`)
    quarantine  key of the policy                any member, of itself: the policy is not in force on it (`notice.py`)
    quota       key `<Kind>/<namespace>/<name>`  any member, of itself: what it used of that limit (`crdt/counter.py`)
    epoch       key `<epoch>/<hash>`             carries its own proof: signed by the root it names; never taken back
    rollover    key `<old root>/<hash>`          carries its own proof: signed by both roots it names; never taken back

A payload is canonical MessagePack. `judge` is the journal's verifier: is it authentic, of a time that has
come, of a size that is allowed. Whether its writer was *entitled* to it is another question (`objection`),
asked of the author before writing and by everyone else when reading (`peer/fold.py`): rights change with
credentials, bytes do not. Kinds this version does not know are kept and passed on unread, so that a mesh can
be upgraded peer by peer.

A revocation's key says when it ends and which bytes it stands for, and `judge` holds both it and them to that: nobody
who carries a revocation can replace it by another record or take it back before its end. One of a node is never taken
back: what that node signed must not be believed again by those who come later.

Invariant: `judge` depends on the record and its writer's key alone, so that equal heads mean equal state on
every replica.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from crdt.clock import hlc_ms
from crdt.codec import MalformedError, pack, unpack
from crdt.counter import TALLY_BYTES_MAX, decode_tally
from crdt.journal import Accept, Refuse, Verdict, Wait
from crdt.record import Record
from gossip.crypto import REAL, Crypto
from peer.catalog import Health, ServicePort
from peer.issuelog import ISSUANCE, PAGE_BYTES_MAX, page_fault
from peer.notice import QUARANTINE_BYTES_MAX, NoticeError, decode_notice
from proxy.resources.fields import LABEL
from trust.credential import Credential, decode_credential
from trust.epoch import RECORD_BYTES_MAX, EpochRecord, decode_epoch
from trust.errors import IdentityError, TrustError
from trust.identity import check_account, node_id
from trust.revocation import Revocation, RevocationSet, decode_revocation, subject_kind, verify_revocation
from trust.rollover import ROLLOVER_BYTES_MAX, Rollover, decode_rollover, name_of, verify_rollover
from trust.roots import Root, is_root
from trust.transparency import DENIAL_BYTES_MAX, denial_key, read_denial

SERVICE: Final = "service"
POLICY: Final = "policy"
REVOCATION: Final = "revocation"
CLOSURE: Final = "closure"  # of a namespace
QUARANTINE: Final = "quarantine"
DENIAL: Final = "denial"  # of a certificate (`trust/transparency.py`)
QUOTA: Final = "quota"
EPOCH: Final = "epoch"  # of the signer group (`trust/epoch.py`)
ROLLOVER: Final = "rollover"  # from one root to the next (`trust/rollover.py`)

PAYLOAD_BYTES_MAX: Final[Mapping[str, int]] = {
    SERVICE: 8 * 1024,
    POLICY: 128 * 1024,
    REVOCATION: 1024,
    CLOSURE: 64,
    QUARANTINE: QUARANTINE_BYTES_MAX,
    DENIAL: DENIAL_BYTES_MAX,
    ISSUANCE: PAGE_BYTES_MAX,
    QUOTA: TALLY_BYTES_MAX,
    EPOCH: RECORD_BYTES_MAX,
    ROLLOVER: ROLLOVER_BYTES_MAX,
}
UNKNOWN_KIND_BYTES_MAX: Final = 16 * 1024
PORTS_MAX: Final = 32
DOCUMENT_DEPTH_MAX: Final = 24  # a route's filters lie eleven levels deep
LABELS_MAX: Final = 64


class PayloadError(ValueError):
    """A payload is not what its kind says. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePayload:
    """What a node tells the mesh about one of its services."""

    namespace: str
    name: str
    account: str
    address: str
    ports: tuple[ServicePort, ...]
    labels: tuple[tuple[str, str], ...]
    health: Health

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def encode_service(service: ServicePayload) -> bytes:
    return pack(
        {
            "ns": service.namespace,
            "name": service.name,
            "account": service.account,
            "address": service.address,
            "ports": [[p.name, p.port, p.target, p.protocol] for p in service.ports],
            "labels": dict(service.labels),
            "health": service.health,
        }
    )


def decode_service(payload: bytes) -> ServicePayload:
    """Inverse of `encode_service`. Raises PayloadError."""
    try:
        data = unpack(payload, bytes_max=PAYLOAD_BYTES_MAX[SERVICE])
    except MalformedError as error:
        raise PayloadError(str(error)) from error
    if not isinstance(data, dict):
        raise PayloadError("service: not a map")
    fields = {name: data.get(name) for name in ("ns", "name", "account", "address", "health")}
    for name, value in fields.items():
        if not isinstance(value, str) or not value or len(value) > 253:
            raise PayloadError(f"service: field {name} must be a short string")
    if not LABEL.fullmatch(str(fields["ns"])) or not LABEL.fullmatch(str(fields["name"])):
        raise PayloadError("service: namespace and name must be DNS labels")
    try:
        check_account(str(fields["account"]))
    except IdentityError as error:
        raise PayloadError(f"service: {error}") from error
    health = fields["health"]
    if health not in ("passing", "failing", "unknown"):
        raise PayloadError("service: unknown health")
    labels = data.get("labels")
    if not isinstance(labels, dict) or len(labels) > LABELS_MAX:
        raise PayloadError("service: labels must be a small map")
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in labels.items()):
        raise PayloadError("service: labels must be strings")
    return ServicePayload(
        namespace=str(fields["ns"]),
        name=str(fields["name"]),
        account=str(fields["account"]),
        address=str(fields["address"]),
        ports=_decode_ports(data.get("ports")),
        labels=tuple(sorted(labels.items())),
        health=health,
    )


def _decode_ports(ports: Any) -> tuple[ServicePort, ...]:
    if not isinstance(ports, list) or not 1 <= len(ports) <= PORTS_MAX:
        raise PayloadError(f"service: 1 to {PORTS_MAX} ports")
    decoded = []
    for item in ports:
        if not isinstance(item, list) or len(item) != 4:
            raise PayloadError("service: a port is [name, port, target, protocol]")
        name, port, target, protocol = item
        if not isinstance(name, str) or protocol not in ("http", "grpc", "tcp"):
            raise PayloadError("service: bad port name or protocol")
        for number in (port, target):
            if type(number) is not int or not 1 <= number <= 65535:
                raise PayloadError("service: port numbers are 1 to 65535")
        decoded.append(ServicePort(name=name, port=port, target=target, protocol=protocol))
    return tuple(decoded)


def policy_key(kind: str, namespace: str, name: str) -> str:
    return f"{kind}/{namespace}/{name}"


def encode_policy(document: Mapping[str, Any]) -> bytes:
    """Raises PayloadError for what no record can hold, such as a fraction: canonical bytes have no floats."""
    try:
        return pack(dict(document))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(f"cannot be stored: {error}") from error


def decode_policy(payload: bytes) -> dict[str, Any]:
    """The resource document. Raises PayloadError."""
    try:
        document = unpack(payload, bytes_max=PAYLOAD_BYTES_MAX[POLICY], depth_max=DOCUMENT_DEPTH_MAX)
    except MalformedError as error:
        raise PayloadError(str(error)) from error
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise PayloadError("policy: not a resource")
    return document


@dataclass(slots=True)
class Registry:
    """Who the writers are and what has been revoked: all that judging needs besides the record.

    `root` is the mesh root's public key, or the line of roots; `drift_ms` how far ahead of our clock a stamp may be.
    `credentials` may be a layer over one that several simulated nodes share.
    """

    root: Root
    trust_domain: str
    drift_ms: int
    revocations: RevocationSet
    credentials: MutableMapping[bytes, Credential] = field(default_factory=dict)
    crypto: Crypto = REAL

    def introduce(self, writer: bytes, blob: bytes) -> str:
        """Learn a writer's credential. Returns why it was refused, or "". The newest credential is kept, and of two
        issued in the same second the same one on every replica.

        Expiry is not judged: what a member signed while it was one stays signed.
        """
        try:
            credential = decode_credential(blob)
            if credential.node != writer:
                return "credential of another node"
            known = self.credentials.get(writer)
            if known is not None and _age(known) >= _age(credential):
                return ""
            self.crypto.verify_credential(credential, self.root, self.trust_domain, None)
        except TrustError as error:
            return str(error)
        self.credentials[writer] = credential
        return ""

    def judge(self, record: Record, now_ms: int) -> Verdict:
        """Is this record authentic? `now_ms` is Unix time."""
        credential = self.credentials.get(record.writer)
        if credential is None:
            return Wait("unknown writer")
        if not self.crypto.verify(credential.public_key, record.signing_bytes(), record.signature):
            return Refuse("bad signature")
        if hlc_ms(record.hlc) > now_ms + self.drift_ms:
            return Wait("stamped in the future")
        if len(record.payload) > PAYLOAD_BYTES_MAX.get(record.kind, UNKNOWN_KIND_BYTES_MAX):
            return Refuse(f"{record.kind} of {len(record.payload)} bytes is too large")
        fault = ""
        if record.kind == REVOCATION:
            fault = _revocation_fault(record)
        elif record.kind == EPOCH:
            fault = _epoch_fault(record)
        elif record.kind == ROLLOVER:
            fault = _rollover_fault(record, self.trust_domain)
        return Refuse(fault) if fault else Accept()

    def objection(self, record: Record) -> str:
        """Why its writer was not entitled to the record, or what is wrong in it; "" if it is to be obeyed."""
        credential = self.credentials.get(record.writer)
        if credential is None:
            return "unknown writer"
        # These prove themselves: were their writer's standing asked, the order of arrival would decide.
        if record.kind not in {REVOCATION, EPOCH, ROLLOVER} and self.revocations.ever_covered(
            credential.spiffe
        ):
            return "writer is revoked"
        rule = _RULES.get(record.kind)
        return rule(self, record, credential) if rule else ""


def revocation_key(revocation: Revocation) -> str:
    """The key of the record that carries it."""
    digest = hashlib.sha256(revocation.encode()).hexdigest()[:32]
    return f"{subject_kind(revocation.subject)}/{revocation.expires_at}/{digest}"


def revocation_end(key: str) -> float:
    """When (Unix s) the record of a revocation may go; infinity for never."""
    kind, _, rest = key.partition("/")
    end = rest.partition("/")[0]
    collected = kind in ("workload", "certificate", "signer") and len(end) <= 12 and end.isdecimal()
    return int(end) if collected else math.inf


def _revocation_fault(record: Record) -> str:
    """What is wrong with a revocation's key, or with deleting it; "" for nothing."""
    if not record.payload:
        early = hlc_ms(record.hlc) < revocation_end(record.key) * 1000
        return "a revocation is not taken back before its end" if early else ""
    try:
        key = revocation_key(decode_revocation(record.payload))
    except TrustError as error:
        return str(error)
    return "" if key == record.key else "a revocation under another key than its own"


def epoch_key(epoch: EpochRecord) -> str:
    """The key of the record that carries it. Of two that were decided for one epoch both are kept."""
    return f"{epoch.epoch}/{epoch.digest.hex()[:32]}"


def _epoch_fault(record: Record) -> str:
    """What is wrong with an epoch; "" for nothing. Whether it was decided, and is of a root of this mesh, takes the
    epochs and rollovers before it (`epochs.py`), and those come in any order."""
    if not record.payload:
        return "an epoch is not taken back"
    try:
        epoch = decode_epoch(record.payload)
    except TrustError as error:
        return str(error)
    if not epoch.value.proven:
        return "an epoch that is not signed by the root it names"
    return "" if epoch_key(epoch) == record.key else "an epoch under another key than its own"


def rollover_key(rollover: Rollover) -> str:
    """The key of the record that carries it. Of two of one root both are kept."""
    return f"{name_of(rollover.terms.old)}/{hashlib.sha256(rollover.encode()).hexdigest()[:32]}"


def _rollover_fault(record: Record, trust_domain: str) -> str:
    """What is wrong with a rollover; "" for nothing. Whether its old root is one of this mesh, those before it say."""
    if not record.payload:
        return "a rollover is not taken back"
    try:
        rollover = decode_rollover(record.payload)
        verify_rollover(rollover, trust_domain)
    except TrustError as error:
        return str(error)
    return "" if rollover_key(rollover) == record.key else "a rollover under another key than its own"


def _age(credential: Credential) -> tuple[int, int, bytes]:
    return credential.issued_at, credential.expires_at, credential.encode()


def _judge_service(_registry: Registry, record: Record, credential: Credential) -> str:
    if not record.payload:
        return ""
    try:
        service = decode_service(record.payload)
    except PayloadError as error:
        return str(error)
    if service.key != record.key:
        return "service: key and name differ"
    for name in (service.name, service.account):
        if not credential.allows(service.namespace, name):
            return f"{credential.name} may not be service {service.namespace}/{name}"
    return ""


def _judge_policy(_registry: Registry, record: Record, credential: Credential) -> str:
    if not credential.publish:
        return f"{credential.name} may not publish policies"
    if record.key.count("/") != 2:
        return "policy: key is not Kind/namespace/name"
    if not LABEL.fullmatch(record.key.split("/")[1]):
        return "policy: the namespace is not a DNS label"  # nor is it one that was closed
    if not record.payload:
        return ""
    try:
        document = decode_policy(record.payload)
    except PayloadError as error:
        return str(error)
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return "policy: no metadata"
    named = policy_key(document["kind"], str(metadata.get("namespace")), str(metadata.get("name")))
    return "" if named == record.key else "policy: key and metadata differ"


def _judge_revocation(registry: Registry, record: Record, _credential: Credential) -> str:
    if not record.payload:
        return ""  # it has ended: `judge` has seen to that
    try:
        revocation = decode_revocation(record.payload)
        verify_revocation(revocation, registry.root, registry.trust_domain)
    except TrustError as error:
        return str(error)
    # Keys cost nothing: what a holder says of its own key is taken from its own journal only.
    if not is_root(registry.root, revocation.issuer) and node_id(revocation.issuer) != record.writer:
        return "a node's own revocation is not in its own journal"
    return ""


def _judge_quarantine(_registry: Registry, record: Record, _credential: Credential) -> str:
    if record.key.count("/") != 2:
        return "quarantine: key is not Kind/namespace/name"
    if not record.payload:
        return ""
    try:
        decode_notice(record.payload)
    except NoticeError as error:
        return str(error)
    return ""


def _judge_denial(registry: Registry, record: Record, _credential: Credential) -> str:
    if not record.payload:
        return ""
    try:
        svid = read_denial(
            record.payload,
            root_public=registry.root,
            trust_domain=registry.trust_domain,
            writer=record.writer,
        )
    except TrustError as error:
        return str(error)
    return "" if denial_key(svid) == record.key else "denial: key and certificate differ"


def _judge_quota(_registry: Registry, record: Record, _credential: Credential) -> str:
    if record.key.count("/") != 2:
        return "quota: key is not Kind/namespace/name"
    if not record.payload:
        return ""
    try:
        decode_tally(record.payload)
    except MalformedError as error:
        return f"quota: {error}"
    return ""


def _judge_closure(_registry: Registry, record: Record, credential: Credential) -> str:
    if not credential.govern:
        return f"{credential.name} does not govern the mesh"
    if not record.payload:
        return "a closure is not taken back"
    return "" if record.key == "*" or LABEL.fullmatch(record.key) else "closure: key is not a namespace"


_RULES: Final[Mapping[str, Callable[[Registry, Record, Credential], str]]] = {
    SERVICE: _judge_service,
    POLICY: _judge_policy,
    REVOCATION: _judge_revocation,
    CLOSURE: _judge_closure,
    QUARANTINE: _judge_quarantine,
    DENIAL: _judge_denial,
    ISSUANCE: lambda _registry, record, _credential: page_fault(record),
    QUOTA: _judge_quota,
}
