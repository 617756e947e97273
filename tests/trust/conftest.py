"""A mesh in miniature: a root, its first member, and every kind of certificate, good and bad."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trust.admission import TokenLedger, found, issue_credential, request_join
from trust.authority import (
    SoleAuthority,
    draft,
    instant,
    key_usage,
    root_certificate,
    root_name,
    serial_number,
)
from trust.credential import Credential
from trust.identity import NodeIdentity, format_id, spiffe_node, spiffe_workload
from trust.invitation import Token, create_token
from trust.issuance import SvidRequest, issue_svid, request_svid
from trust.revocation import RevocationSet
from trust.svid import KeyedSvid, LeafKey, certificate_pem, keyed, new_leaf_key

NOW = 1_800_000_000
TRUST_DOMAIN = "cluster.local"
NO_USAGE = "none"  # for `odd_leaf`: without the extension


@dataclass
class Member:
    identity: NodeIdentity
    credential: Credential

    @property
    def spiffe(self) -> str:
        return self.credential.spiffe


@dataclass
class Mesh:
    """Everything issued here is deterministic in `seed`."""

    seed: int = 0
    now: int = NOW
    trust_domain: str = TRUST_DOMAIN
    ledger: TokenLedger = field(default_factory=TokenLedger)

    def __post_init__(self) -> None:
        self.entropy: Callable[[int], bytes] = random.Random(self.seed).randbytes
        identity = NodeIdentity.from_seed(self.entropy(32))
        self.authority = SoleAuthority.from_seed(self.entropy(32), holder=identity.id)
        self.root_public = self.authority.root_public
        self.root_der = root_certificate(self.authority, self.trust_domain, self.now)
        self.root_pem = certificate_pem(self.root_der)
        self.revoked = RevocationSet(self.root_public)
        self.founder = Member(
            identity,
            found(
                self.authority,
                identity,
                "alpha",
                trust_domain=self.trust_domain,
                now=self.now,
                entropy=self.entropy,
            ),
        )

    def token(self, issuer: Member | None = None, **options: object) -> Token:
        issuer = issuer or self.founder
        arguments = {
            "root_public": self.root_public,
            "seeds": [("127.0.0.1", 7946)],
            "services": ["*/*"],
            "now": self.now,
            "entropy": self.entropy,
            **options,
        }
        return create_token(issuer.identity, issuer.credential, **arguments)

    def join(self, name: str, **options: object) -> Member:
        identity = NodeIdentity.from_seed(self.entropy(32))
        request = request_join(identity, self.token(**options), name, self.now)
        issued = issue_credential(
            self.authority,
            request,
            trust_domain=self.trust_domain,
            now=self.now,
            entropy=self.entropy,
            ledger=self.ledger,
            revoked=self.revoked,
        )
        return Member(identity, issued.credential)

    def request(self, member: Member, uri: str, key: LeafKey | None = None) -> SvidRequest:
        key = key or new_leaf_key(self.entropy)
        return request_svid(member.identity, member.credential, uri, key, self.now)

    def issue(self, request: SvidRequest, **options: int) -> bytes:
        arguments = {"now": self.now, **options}
        return issue_svid(
            self.authority,
            self.root_der,
            request,
            trust_domain=self.trust_domain,
            entropy=self.entropy,
            revoked=self.revoked,
            **arguments,
        )

    def node_svid(self, member: Member | None = None) -> KeyedSvid:
        member = member or self.founder
        return self.svid(spiffe_node(self.trust_domain, member.identity.id), member)

    def workload_svid(
        self, account: str, namespace: str = "default", member: Member | None = None
    ) -> KeyedSvid:
        return self.svid(spiffe_workload(self.trust_domain, namespace, account), member)

    def svid(self, uri: str, member: Member | None = None) -> KeyedSvid:
        key = new_leaf_key(self.entropy)
        der = self.issue(self.request(member or self.founder, uri, key))
        return keyed(der, key, root_public=self.root_public, trust_domain=self.trust_domain, now=self.now)

    def odd_leaf(
        self,
        *,
        names: Sequence[x509.GeneralName] | None = None,
        ca: bool = False,
        usage: x509.KeyUsage | str | None = None,
        purposes: Sequence[x509.ObjectIdentifier] = (
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ),
        extra: x509.ExtensionType | None = None,
        node: bytes | None = None,
        not_before: int | None = None,
        not_after: int | None = None,
        public_key: object = None,
        serial: int | None = None,
        names_issuer_key: bool = True,
        issuer: x509.Name | None = None,
        subject: x509.Name | None = None,
        usage_critical: bool = True,
        constraints: bool = True,
    ) -> KeyedSvid:
        """A leaf the root did sign, but that no issuance policy would let through."""
        key = new_leaf_key(self.entropy)
        private = load_pem_private_key(key.private_pem, None)
        uri = spiffe_workload(self.trust_domain, "default", "odd")
        root = x509.load_der_x509_certificate(self.root_der)
        public = public_key or private.public_key()
        common_name = format_id(node or self.founder.identity.id)
        holder = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(holder if subject is None else subject)
            .issuer_name(issuer or root_name(self.trust_domain))
            .public_key(public)
            .serial_number(serial or serial_number(self.entropy(16)))
            .not_valid_before(instant(self.now - 300 if not_before is None else not_before))
            .not_valid_after(instant(self.now + 3600 if not_after is None else not_after))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if constraints:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if usage is not NO_USAGE:
            builder = builder.add_extension(usage or key_usage(ca=False), critical=usage_critical)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if names_issuer_key:
            issuer_key = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False
            )
        names = [x509.UniformResourceIdentifier(uri)] if names is None else names
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if extra is not None:
            builder = builder.add_extension(extra, critical=True)
        shape = draft(builder)
        der = shape.assemble(self.authority.sign(shape.tbs), self.root_public)
        return KeyedSvid(
            identity=uri,
            chain_pem=certificate_pem(der),
            key_pem=key.private_pem,
            not_before=self.now,
            not_after=self.now + 3600,
        )


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture(scope="session")
def shared_mesh() -> Mesh:
    """For property tests, which only read it."""
    return Mesh(seed=1)


@pytest.fixture
def make_mesh() -> type[Mesh]:
    return Mesh


@pytest.fixture(scope="session")
def shared_make_mesh() -> type[Mesh]:
    """For fixtures that outlive one test."""
    return Mesh
