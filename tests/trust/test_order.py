"""Orders: each signer judges for itself, derives the same bytes as everybody, and refuses with the reason."""

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.ceremony.network import founded
from trust.admission import TokenLedger, create_token, found, parse_token, request_join, request_renewal
from trust.authority import SoleAuthority, read_root, root_certificate
from trust.credential import CREDENTIAL_TTL_S, Credential, decode_credential, verify_credential
from trust.errors import AuthorityError, OrderError, TrustError
from trust.founding import decode_founding, request_founding
from trust.groupkey import node_of
from trust.identity import NodeIdentity, spiffe_node, spiffe_workload
from trust.issuance import request_svid
from trust.order import (
    ENTROPY_BYTES,
    ORDER_BYTES_MAX,
    ORDER_REQUEST_BYTES_MAX,
    ORDER_SKEW_S_MAX,
    Draft,
    Kind,
    Order,
    Rules,
    decode_order,
    derive,
    judge,
)
from trust.revocation import (
    NODE_REVOCATION_S,
    RENEWAL_GRACE_S,
    RevocationSet,
    decode_revocation,
    revoke,
    signer_subject,
    verify_revocation,
)
from trust.revoking import request_revocation
from trust.svid import SVID_TTL_S_MAX, new_leaf_key, verify_svid

DOMAIN = "cluster.local"
NOW = 1_800_000_000
DAY_S = 86_400
SHOP = spiffe_workload(DOMAIN, "default", "shop")


@dataclass
class Bench:
    """A mesh with a governor, a plain member, and what a signer goes by."""

    authority: SoleAuthority
    rules: Rules
    governor: NodeIdentity
    member: NodeIdentity
    credentials: dict[bytes, Credential]
    now: float = NOW

    def order(self, kind: Kind, request: bytes, **changes: Any) -> Order:
        ttl_s = {Kind.CREDENTIAL: CREDENTIAL_TTL_S, Kind.FOUNDER: CREDENTIAL_TTL_S, Kind.SVID: 3600}.get(
            kind, 0
        )
        fields = {"kind": kind, "request": request, "issued_at": NOW, "entropy": b"e" * 16, "ttl_s": ttl_s}
        return Order(**(fields | changes))

    def judge(self, order: Order, *, coordinator: bytes = b"c" * 16, signer: bytes = b"s" * 16) -> Draft:
        passed = decode_order(order.encode())
        return judge(passed, self.rules, now=self.now, coordinator=coordinator, signer=signer)

    def signed(self, order: Order) -> bytes:
        draft = self.judge(order)
        return draft.assemble(self.authority.sign(draft.message))

    def token(self, now: float = NOW, **changes: Any) -> Any:
        fields = {"services": ["default/shop"], "ttl_s": 600, "uses": 1, "publish": False, "invite": False}
        made = create_token(
            self.governor, self.credentials[self.governor.id], root_public=self.authority.root_public,
            seeds=[("127.0.0.1", 1)], now=now, entropy=random.Random(3).randbytes, **(fields | changes),
        )  # fmt: skip
        return parse_token(made.text)

    def join(self, *, at: float = NOW, seed: int = 9, **changes: Any) -> bytes:
        newcomer = NodeIdentity.from_seed(bytes([seed]) * 32)
        return request_join(newcomer, self.token(**changes), "new", at).encode()

    def renew(self, at: float = NOW) -> bytes:
        return request_renewal(self.member, self.credentials[self.member.id], at).encode()

    def svid(self, spiffe: str | None = None, at: float = NOW) -> bytes:
        spiffe = spiffe or spiffe_workload(DOMAIN, "default", "shop")
        key = new_leaf_key(lambda n: b"k" * n)
        return request_svid(self.member, self.credentials[self.member.id], spiffe, key, at).encode()

    def revocation(self, by: NodeIdentity, at: float = NOW, subject: str = SHOP) -> bytes:
        return request_revocation(by, self.credentials[by.id], subject, "lost", at).encode()

    def revoke(self, subject: str) -> None:
        ends = NOW + NODE_REVOCATION_S
        self.rules.revoked.add(revoke(self.authority, subject, reason="stolen", now=NOW, expires_at=ends))


@pytest.fixture
def bench() -> Bench:
    authority = SoleAuthority.from_seed(b"r" * 32, holder=bytes(16))
    governor, member = (NodeIdentity.from_seed(bytes([n]) * 32) for n in (1, 2))
    credentials = {}
    for identity, rights in ((governor, {}), (member, {"govern": False, "services": ("default/shop",)})):
        made = found(
            authority,
            identity,
            "node",
            trust_domain=DOMAIN,
            now=NOW - DAY_S,
            entropy=random.Random(1).randbytes,
        )
        changed = replace(made, **rights)
        credentials[identity.id] = changed.signed(authority.sign(changed.signing_bytes()))
    rules = Rules(
        root_public=authority.root_public, root_certificate=root_certificate(authority, DOMAIN, NOW - DAY_S),
        trust_domain=DOMAIN, revoked=RevocationSet(authority.root_public), ledger=TokenLedger(),
    )  # fmt: skip
    return Bench(authority, rules, governor, member, credentials)


# ------------------------------------------------------------------ what is granted


def test_what_signers_derive_from_an_order_is_what_was_asked_for(bench: Bench) -> None:
    root = bench.authority.root_public
    joined = decode_credential(bench.signed(bench.order(Kind.CREDENTIAL, bench.join())))
    verify_credential(joined, root, DOMAIN, NOW)
    assert (joined.services, joined.govern, joined.expires_at) == (
        ("default/shop",), False, NOW + CREDENTIAL_TTL_S,
    )  # fmt: skip
    renewed = decode_credential(bench.signed(bench.order(Kind.CREDENTIAL, bench.renew())))
    assert (renewed.node, renewed.issued_at) == (bench.member.id, NOW)
    svid = verify_svid(
        bench.signed(bench.order(Kind.SVID, bench.svid())), root_public=root, trust_domain=DOMAIN, now=NOW
    )
    assert (svid.spiffe, svid.node) == (spiffe_workload(DOMAIN, "default", "shop"), bench.member.id)
    revoked = decode_revocation(bench.signed(bench.order(Kind.REVOCATION, bench.revocation(bench.governor))))
    verify_revocation(revoked, root, DOMAIN)


def test_signers_with_other_clocks_and_ledgers_derive_the_same_bytes(bench: Bench) -> None:
    order = bench.order(Kind.CREDENTIAL, bench.join())
    messages = set()
    for late_s in (-ORDER_SKEW_S_MAX, 0, ORDER_SKEW_S_MAX):
        bench.now = NOW + late_s
        draft = bench.judge(order)
        messages.add(draft.message)
        assert draft.spend is not None
    bench.rules.ledger.record(draft.spend)
    again = bench.judge(order)
    assert (len(messages), again.message, again.spend) == (1, draft.message, None)


def test_a_coordinator_does_not_choose_the_serial(bench: Bench) -> None:
    order = bench.order(Kind.CREDENTIAL, bench.renew())
    others = [replace(order, entropy=b"f" * 16), replace(order, issued_at=NOW + 1), replace(order, ttl_s=60)]
    serials = {each.serial for each in (order, *others)}
    assert len(serials) == 4
    assert b"e" * 16 not in serials


def test_what_is_not_signed_by_the_root_is_not_assembled(bench: Bench) -> None:
    other = SoleAuthority.from_seed(b"o" * 32, holder=bytes(16))
    for order in (
        bench.order(Kind.CREDENTIAL, bench.renew()),
        bench.order(Kind.SVID, bench.svid()),
        bench.order(Kind.REVOCATION, bench.revocation(bench.governor)),
    ):
        draft = bench.judge(order)
        with pytest.raises(AuthorityError, match="does not verify under the mesh root"):
            draft.assemble(other.sign(draft.message))


# ------------------------------------------------------------------ what is refused


def wrong(case: str, bench: Bench) -> Order:
    """An order that no signer may sign."""
    match case:
        case "expired token":
            return bench.order(Kind.CREDENTIAL, bench.join(now=NOW - 700))
        case "token of another mesh":
            other = replace(bench, authority=SoleAuthority.from_seed(b"o" * 32, holder=bytes(16)))
            made = found(
                other.authority,
                bench.governor,
                "node",
                trust_domain=DOMAIN,
                now=NOW,
                entropy=bytes,
            )
            other.credentials = {bench.governor.id: made}
            return bench.order(Kind.CREDENTIAL, other.join())
        case "used token":
            first = bench.judge(bench.order(Kind.CREDENTIAL, bench.join(seed=8)))
            assert first.spend is not None
            bench.rules.ledger.record(first.spend)
            return bench.order(Kind.CREDENTIAL, bench.join(seed=9))
        case "another service":
            return bench.order(Kind.SVID, bench.svid(spiffe_workload(DOMAIN, "default", "bank")))
        case "another node":
            return bench.order(Kind.SVID, bench.svid(spiffe_node(DOMAIN, bench.governor.id)))
        case "foreign domain":
            return bench.order(Kind.SVID, bench.svid(spiffe_workload("other.example", "default", "shop")))
        case "long credential":
            return bench.order(Kind.CREDENTIAL, bench.renew(), ttl_s=CREDENTIAL_TTL_S + 1)
        case "long certificate":
            return bench.order(Kind.SVID, bench.svid(), ttl_s=SVID_TTL_S_MAX + 1)
        case "no life":
            return bench.order(Kind.SVID, bench.svid(), ttl_s=0)
        case "dated ahead":
            return bench.order(Kind.SVID, bench.svid(), issued_at=NOW + ORDER_SKEW_S_MAX + 1)
        case "dated back":
            return bench.order(Kind.SVID, bench.svid(), issued_at=NOW - ORDER_SKEW_S_MAX - 1)
        case "replayed":
            return bench.order(Kind.CREDENTIAL, bench.renew(NOW - ORDER_SKEW_S_MAX - 1))
        case "replayed certificate":
            return bench.order(Kind.SVID, bench.svid(at=NOW - ORDER_SKEW_S_MAX - 1))
        case "applicant revoked":
            bench.revoke(spiffe_node(DOMAIN, bench.member.id))
            return bench.order(Kind.CREDENTIAL, bench.renew())
        case "workload revoked":
            bench.revoke(spiffe_workload(DOMAIN, "default", "shop"))
            return bench.order(Kind.SVID, bench.svid())
        case "coordinator revoked":
            bench.revoke(spiffe_node(DOMAIN, b"c" * 16))
            return bench.order(Kind.SVID, bench.svid())
        case "signer revoked":
            bench.revoke(signer_subject(b"s" * 16))
            return bench.order(Kind.SVID, bench.svid())
        case "who does not govern":
            return bench.order(Kind.REVOCATION, bench.revocation(bench.member))
        case "revocation elsewhere":
            subject = spiffe_workload("other.example", "default", "shop")
            return bench.order(Kind.REVOCATION, bench.revocation(bench.governor, subject=subject))
        case "revocation with a life":
            return bench.order(Kind.REVOCATION, bench.revocation(bench.governor), ttl_s=60)
        case "expired too long ago":
            bench.now = NOW + CREDENTIAL_TTL_S + RENEWAL_GRACE_S
            return bench.order(Kind.CREDENTIAL, bench.renew(bench.now), issued_at=int(bench.now))
        case "altered":
            request = bytearray(bench.svid())
            request[-1] ^= 1
            return bench.order(Kind.SVID, bytes(request))
        case "kinds confused":
            return bench.order(Kind.CREDENTIAL, bench.svid())
        case "root again":
            return bench.order(Kind.ROOT, b"")
        case "founder too late":
            return bench.order(Kind.FOUNDER, request_founding(bench.member, "late", NOW).encode())
    raise AssertionError(case)


@pytest.mark.parametrize("subject", [signer_subject, lambda node: spiffe_node(DOMAIN, node)])
def test_no_revocation_is_signed_that_leaves_too_few_signers(bench: Bench, subject: Any) -> None:
    """Whoever coordinates: two who revoke at the same time see each a signer left that the other one revokes."""
    group = founded(3)[0].group
    one, two, three = (node_of(identifier) for identifier in group.identifiers)
    bench.rules = replace(bench.rules, group=lambda: group)

    def wanted(node: bytes) -> Order:
        return bench.order(Kind.REVOCATION, bench.revocation(bench.governor, subject=subject(node)))

    assert bench.signed(wanted(one))
    bench.revoke(subject(one))
    assert bench.signed(wanted(one)), "it changes nothing"
    for node in (two, three):
        with pytest.raises(TrustError, match="1 signers would be left and 2 are needed"):
            bench.judge(wanted(node))
    assert bench.signed(wanted(b"m" * 16)), "who is no signer"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("expired token", "expired"),
        ("token of another mesh", "another mesh|not signed|does not verify"),
        ("used token", "used by another host"),
        ("another service", "may not act as default/bank"),
        ("another node", "may not be issued the identity of another node"),
        ("foreign domain", "is not in trust domain"),
        ("long credential", "a credential lives for at most 7 days here"),
        ("long certificate", "a certificate lives for at most 1 day here"),
        ("no life", "0 s were asked for"),
        ("dated ahead", "the issuer's clock is 5 minutes away"),
        ("dated back", "the issuer's clock is 5 minutes away"),
        ("replayed", "the request is stamped 5 minutes away"),
        ("replayed certificate", "is stamped 5 minutes away"),
        ("applicant revoked", "has been revoked: stolen"),
        ("workload revoked", "has been revoked: stolen"),
        ("coordinator revoked", "has been revoked: stolen"),
        ("signer revoked", "signer:.* has been revoked"),
        ("who does not govern", "only nodes that govern may"),
        ("revocation elsewhere", "is not in trust domain"),
        ("revocation with a life", "a revocation has the lifetime of what it revokes"),
        ("expired too long ago", "too long to renew it"),
        ("altered", "is not signed by the key of"),
        ("kinds confused", "this is not a request to join or renew"),
        ("root again", "the mesh has its root certificate"),
        ("founder too late", "join it with a token"),
    ],
)
def test_wrong_orders_are_refused_with_the_reason(bench: Bench, case: str, words: str) -> None:
    order = wrong(case, bench)
    with pytest.raises(TrustError, match=words):
        bench.judge(order)


def test_a_signer_can_allow_less_than_the_mesh_does(bench: Bench) -> None:
    bench.rules = replace(bench.rules, svid_ttl_s_max=60)
    with pytest.raises(OrderError, match="at most 1 minute here, 3600 s were asked for"):
        bench.judge(bench.order(Kind.SVID, bench.svid()))


# ------------------------------------------------------------------ while a mesh is made


def test_founders_certify_one_another_and_nobody_else(bench: Bench) -> None:
    founders = frozenset({bench.governor.id, bench.member.id})
    bench.rules = replace(bench.rules, root_certificate=b"", founders=founders)
    root = bench.signed(bench.order(Kind.ROOT, b""))
    assert read_root(root, DOMAIN) == bench.authority.root_public
    for identity in (bench.governor, bench.member):
        request = request_founding(identity, "one", NOW)
        assert decode_founding(request.encode()) == request
        credential = decode_credential(bench.signed(bench.order(Kind.FOUNDER, request.encode())))
        verify_credential(credential, bench.authority.root_public, DOMAIN, NOW)
        assert (credential.node, credential.govern) == (identity.id, True)
    stranger = NodeIdentity.from_seed(b"x" * 32)
    cases = [
        (request_founding(stranger, "x", NOW), "is none of those who make this mesh"),
        (replace(request_founding(bench.member, "x", NOW), name="y"), "is not signed by the key of y"),
        (request_founding(bench.member, "x", NOW - ORDER_SKEW_S_MAX - 1), "stamped 5 minutes away"),
    ]
    for request, words in cases:
        with pytest.raises(TrustError, match=words):
            bench.judge(bench.order(Kind.FOUNDER, request.encode()))
    for order in (bench.order(Kind.ROOT, b"x"), bench.order(Kind.ROOT, b"", ttl_s=60)):
        with pytest.raises(OrderError, match="follows from the root alone"):
            bench.judge(order)
    request = request_founding(bench.member, "x", NOW)
    long = bench.order(Kind.FOUNDER, request.encode(), ttl_s=CREDENTIAL_TTL_S + 1)
    with pytest.raises(OrderError, match="lives for at most"):
        bench.judge(long)


# ------------------------------------------------------------------ the wire


def test_the_largest_order_fits_its_bound() -> None:
    order = Order(
        kind=Kind.CREDENTIAL, request=bytes(ORDER_REQUEST_BYTES_MAX), issued_at=NOW, entropy=bytes(ENTROPY_BYTES),
        ttl_s=CREDENTIAL_TTL_S,
    )  # fmt: skip
    assert decode_order(order.encode()) == order
    assert len(order.encode()) <= ORDER_BYTES_MAX
    with pytest.raises(OrderError):
        decode_order(replace(order, request=bytes(ORDER_REQUEST_BYTES_MAX + 1)).encode())
    with pytest.raises(OrderError, match="signs no 'wish'"):
        decode_order(order.encode().replace(b"\xaacredential", b"\xa4wish"))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_order_are_refused(data: bytes) -> None:
    with pytest.raises(OrderError):
        decode_order(data)


@given(st.sampled_from(list(Kind)), st.binary(max_size=300))
def test_requests_that_are_none_are_refused(kind: Kind, request: bytes) -> None:
    authority = SoleAuthority.from_seed(b"r" * 32, holder=bytes(16))
    rules = Rules(
        root_public=authority.root_public, root_certificate=b"", trust_domain=DOMAIN,
        revoked=RevocationSet(authority.root_public), ledger=TokenLedger(),
    )  # fmt: skip
    order = Order(kind=kind, request=request, issued_at=NOW, entropy=bytes(16), ttl_s=60)
    with pytest.raises(TrustError):
        derive(order, rules)
