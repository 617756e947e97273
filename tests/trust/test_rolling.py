"""Another root, from the request to a line of two: who may ask, what the ceremony makes, and that both roots sign the
same terms whoever coordinates."""

import random
from dataclasses import dataclass, replace
from functools import cache

import pytest

from tests.trust.ceremony.network import Network, founded, outcome, reshare, shares_of
from tests.trust.rolled import authority, first_certificate, rollover, terms
from trust.admission import TokenLedger, found
from trust.authority import root_certificate
from trust.credential import Credential
from trust.epoch import Chain, EpochRecord
from trust.errors import CredentialError, EpochError, OrderError, RevokedError, RolloverError
from trust.groupkey import KeyShare
from trust.held import HeldAuthority
from trust.identity import NodeIdentity
from trust.order import Kind, Order, Rolling, Rules, derive
from trust.revocation import NODE_REVOCATION_S, RevocationSet, revoke
from trust.rolling import (
    ROOTS_AT_ONCE_MAX,
    RolloverRequest,
    decode_rollover_request,
    judge_request,
    request_rollover,
    rolling_electorate,
    rolling_rules,
    terms_of,
)
from trust.rollover import Rollover, complete
from trust.roots import Roots

DOMAIN = "cluster.local"
NOW = 1_800_000_000
DAY_S = 86_400


@dataclass
class Mesh:
    """A root of 2-of-3, one node that governs, one that does not, and the line of roots."""

    before: EpochRecord
    shares: dict[bytes, KeyShare]
    signers: list[NodeIdentity]
    credentials: dict[bytes, Credential]
    roots: Roots

    @property
    def old(self) -> HeldAuthority:
        return HeldAuthority(self.shares.values(), random.Random(5).randbytes)

    def request(self, who: int = 0, **changes: object) -> RolloverRequest:
        signer = self.signers[who]
        fields = {"overlap_s": DAY_S, "now": NOW, **changes}
        return request_rollover(signer, self.credentials[signer.id], self.before, **fields)

    def judge(self, request: RolloverRequest, now: float = NOW, **changes: object) -> None:
        fields = {"record": self.before, "root": self.roots, "revoked": RevocationSet(self.roots), **changes}
        judge_request(decode_rollover_request(request.encode()), now=now, trust_domain=DOMAIN, **fields)


@cache
def made() -> Mesh:
    record, shares, signers = founded(3)
    authority = HeldAuthority(shares.values(), random.Random(4).randbytes)
    credentials = {}
    for signer in signers:
        credential = found(
            authority, signer, "node", trust_domain=DOMAIN, now=NOW, entropy=random.Random(3).randbytes
        )
        if signer is signers[1]:
            plain = replace(credential, govern=False)
            credential = plain.signed(authority.sign(plain.signing_bytes()))
        credentials[signer.id] = credential
    certificate = root_certificate(authority, DOMAIN, NOW)
    return Mesh(record, shares, signers, credentials, Roots(certificate, DOMAIN))


def dealt(
    mesh: Mesh, request: RolloverRequest, present: int = 3
) -> tuple[EpochRecord, dict[bytes, KeyShare]]:
    """What the ceremony of `request` makes, when so many of the signers are there."""
    network = Network(7)
    for each in mesh.signers[:present]:
        network.add(each, rolling_electorate(request, mesh.before), rules=rolling_rules(mesh.before))
    assert network.run(60)
    return outcome(network), shares_of(network)


def whole(mesh: Mesh, request: RolloverRequest) -> tuple[Rollover, EpochRecord]:
    after, shares = dealt(mesh, request)
    terms = terms_of(request, mesh.before, after, DOMAIN)
    new = HeldAuthority(shares.values(), random.Random(6).randbytes)
    rollover = complete(
        Rollover(terms=terms),
        by_old=mesh.old.sign(terms.old_bytes()),
        by_new=new.sign(terms.new_bytes()),
        certificate=root_certificate(new, DOMAIN, terms.issued_at),
    )
    return rollover, after


# ------------------------------------------------------------------ who may ask


def test_a_node_that_governs_may_ask_and_nobody_else() -> None:
    mesh = made()
    mesh.judge(mesh.request())
    with pytest.raises(RolloverError, match="only nodes that govern"):
        mesh.judge(mesh.request(1))


def test_a_request_is_of_one_root_one_epoch_and_a_time() -> None:
    mesh, request = made(), made().request()
    with pytest.raises(RolloverError, match=r"stamped .* ahead"):
        mesh.judge(request, now=NOW - 400)
    mesh.judge(request, now=NOW + DAY_S / 2 - 1)
    with pytest.raises(RolloverError, match="half of the overlap"):
        mesh.judge(request, now=NOW + DAY_S / 2)
    network, _ = reshare(mesh.before, mesh.shares, mesh.signers, mesh.signers)
    assert network.run(30)
    with pytest.raises(RolloverError, match="other signers than today's"):
        mesh.judge(request, record=outcome(network))


def test_a_request_is_not_altered_and_not_of_a_revoked_node() -> None:
    mesh, request = made(), made().request()
    with pytest.raises(RolloverError, match="not signed by the key"):
        mesh.judge(replace(request, compromised=True, overlap_s=600))
    revoked = RevocationSet(mesh.roots)
    subject = mesh.credentials[mesh.signers[0].id].spiffe
    revoked.add(revoke(mesh.old, subject, reason="gone", now=NOW, expires_at=NOW + NODE_REVOCATION_S))
    with pytest.raises(RevokedError):
        mesh.judge(request, revoked=revoked)
    forged = replace(mesh.credentials[mesh.signers[1].id], govern=True)
    with pytest.raises(CredentialError):
        mesh.judge(replace(request, credential=forged.encode()))
    with pytest.raises(RolloverError, match="an overlap"):
        mesh.request(overlap_s=1)


def test_whom_only_a_compromised_root_vouches_for_asks_in_vain() -> None:
    """Whoever stole the root before could make one that governs."""
    mesh, thief = made(), authority(0)
    agreed = replace(terms(0, 1, compromised=True, overlap_s=600), new=mesh.before.group.public)
    step = complete(
        Rollover(terms=agreed),
        by_old=thief.sign(agreed.old_bytes()),
        by_new=mesh.old.sign(agreed.new_bytes()),
        certificate=root_certificate(mesh.old, DOMAIN, NOW),
    )
    line = Roots(first_certificate(), DOMAIN, [step])
    me = mesh.signers[0]
    forged = found(thief, me, "node", trust_domain=DOMAIN, now=NOW, entropy=random.Random(3).randbytes)
    request = request_rollover(me, forged, mesh.before, NOW, overlap_s=DAY_S)
    mesh.judge(request, root=line, carries=lambda credential: credential == forged)
    with pytest.raises(CredentialError, match="not known as a member then"):
        mesh.judge(request, root=line, carries=lambda _credential: False)


def test_nobody_asks_twice_of_one_root() -> None:
    mesh = made()
    step, _ = whole(mesh, mesh.request())
    line = Roots(mesh.roots.certificate(mesh.roots.first), DOMAIN, [step])
    with pytest.raises(RolloverError, match="followed by another one"):
        mesh.judge(mesh.request(), root=line)


def test_there_is_an_end_to_how_many_roots_count_at_once() -> None:
    mesh = made()
    line = Roots(first_certificate(), DOMAIN)
    group = replace(mesh.before.group, public=authority(ROOTS_AT_ONCE_MAX - 1).root_public)
    record = replace(mesh.before, value=replace(mesh.before.value, group=group))
    request = replace(mesh.request(), old=group.public, before=record.digest)
    for number in range(ROOTS_AT_ONCE_MAX - 1):
        line.add(rollover(number, number + 1, issued_at=NOW, overlap_s=DAY_S))
    with pytest.raises(RolloverError, match="4 roots count at this moment"):
        mesh.judge(request, root=line, record=record)
    with pytest.raises(CredentialError):  # a day later it fails for nothing but what it shows
        mesh.judge(replace(request, requested_at=NOW + DAY_S), now=NOW + DAY_S, root=line, record=record)


# ------------------------------------------------------------------ what the ceremony makes


def test_the_signers_that_are_there_make_another_root_of_the_same_threshold() -> None:
    mesh, request = made(), made().request()
    after, shares = dealt(mesh, request)
    assert after.group.public != mesh.before.group.public
    assert (after.group.threshold, len(shares), after.epoch) == (2, 3, mesh.before.epoch + 1)
    fewer, held = dealt(mesh, request, present=2)
    assert (fewer.group.threshold, len(held)) == (2, 2)


def test_each_request_has_a_ceremony_of_its_own_and_none_is_that_of_the_next_epoch() -> None:
    mesh = made()
    first, second = mesh.request(), mesh.request(now=NOW + 1)
    network, next_epoch = reshare(mesh.before, mesh.shares, mesh.signers, mesh.signers)
    assert network.nodes
    names = {rolling_electorate(each, mesh.before).ceremony for each in (first, second)}
    assert len(names | {next_epoch.ceremony}) == 3
    after, _ = dealt(mesh, first)
    terms_of(first, mesh.before, after, DOMAIN)
    with pytest.raises(RolloverError, match="not of the ceremony"):
        terms_of(second, mesh.before, after, DOMAIN)


# ------------------------------------------------------------------ what is signed


def rules(mesh: Mesh, after: EpochRecord | None) -> Rules:
    rolling = None if after is None else Rolling(before=mesh.before, after=after)
    return Rules(
        root_public=mesh.roots.first, root_certificate=mesh.roots.certificate(mesh.roots.first), trust_domain=DOMAIN,
        revoked=RevocationSet(mesh.roots), ledger=TokenLedger(), roots=mesh.roots, rolling=lambda: rolling,
    )  # fmt: skip


def order(kind: Kind, request: bytes, issued_at: int = NOW, ttl_s: int = 0) -> Order:
    return Order(kind=kind, request=request, issued_at=issued_at, entropy=b"e" * 16, ttl_s=ttl_s)


def test_each_root_signs_its_own_part_and_who_coordinates_when_does_not_matter() -> None:
    mesh, request = made(), made().request()
    after, shares = dealt(mesh, request)
    here = rules(mesh, after)
    there = here.under(after.group.public)
    terms = terms_of(request, mesh.before, after, DOMAIN)
    asked = request.encode()
    for at in (NOW, NOW + 250):
        assert derive(order(Kind.SUCCESSION, asked, at), here).message == terms.old_bytes()
        assert derive(order(Kind.ACCEPTANCE, asked, at), there).message == terms.new_bytes()
    assert derive(order(Kind.SUCCESSION, asked), here).successor == terms.new
    assert derive(order(Kind.ACCEPTANCE, asked), there).successor == b""
    new = HeldAuthority(shares.values(), random.Random(6).randbytes)
    drafts = {kind: derive(order(kind, asked), there) for kind in (Kind.ACCEPTANCE, Kind.SUCCESSOR)}
    signed = {kind: draft.assemble(new.sign(draft.message)) for kind, draft in drafts.items()}
    draft = derive(order(Kind.SUCCESSION, asked), here)
    complete(
        Rollover(terms=terms),
        by_old=draft.assemble(mesh.old.sign(draft.message)),
        by_new=signed[Kind.ACCEPTANCE],
        certificate=signed[Kind.SUCCESSOR],
    )


def test_a_signer_that_saw_no_new_root_made_signs_nothing_of_it() -> None:
    mesh, asked = made(), made().request().encode()
    with pytest.raises(OrderError, match="knows of no new root"):
        derive(order(Kind.SUCCESSION, asked), rules(mesh, None))
    with pytest.raises(OrderError, match="has not heard of that root"):
        rules(mesh, None).under(bytes(32))


def test_neither_root_does_the_others_part_nor_anything_else_before_it_is_announced() -> None:
    mesh, request = made(), made().request()
    after, _ = dealt(mesh, request)
    here = rules(mesh, after)
    there = here.under(after.group.public)
    for kind, held in ((Kind.SUCCESSION, there), (Kind.ACCEPTANCE, here), (Kind.SUCCESSOR, here)):
        with pytest.raises(OrderError, match="neither does the other's part"):
            derive(order(kind, request.encode()), held)
    for kind in (Kind.CREDENTIAL, Kind.SVID, Kind.REVOCATION, Kind.FOUNDER, Kind.ROOT):
        with pytest.raises(OrderError, match="signs nothing before"):
            derive(order(kind, b"", ttl_s=60), there)
    with pytest.raises(OrderError, match="lifetime that was asked for"):
        derive(order(Kind.SUCCESSION, request.encode(), ttl_s=60), here)


# ------------------------------------------------------------------ the chain of epochs goes on


def test_the_chain_crosses_to_the_new_root_and_goes_on_from_there() -> None:
    mesh = made()
    _, after = whole(mesh, mesh.request())
    chain = Chain(mesh.before.group.public)
    chain.add(mesh.before)
    with pytest.raises(EpochError):
        chain.add(after)  # no votes make another root
    assert chain.cross(mesh.before.digest, after)
    assert not chain.cross(mesh.before.digest, after)
    assert not chain.add(after)
    assert chain.latest == after
    assert chain.at(after.epoch) == after
    assert chain.known(after.digest)
    _, shares = dealt(mesh, mesh.request())
    network, _ = reshare(after, shares, mesh.signers, mesh.signers)
    assert network.run(30)
    assert chain.add(outcome(network))
    assert [each.epoch for each in chain.records] == [0, 1, 2]


def test_what_the_old_signers_decided_beside_the_crossing_counts_no_more() -> None:
    mesh = made()
    _, after = whole(mesh, mesh.request())
    network, _ = reshare(mesh.before, mesh.shares, mesh.signers, mesh.signers)
    assert network.run(30)
    chain = Chain(mesh.before.group.public)
    chain.add(mesh.before)
    assert chain.add(outcome(network))
    assert chain.cross(mesh.before.digest, after)
    assert chain.latest == after
    with pytest.raises(EpochError, match="not known here"):
        chain.cross(bytes(32), after)
    with pytest.raises(EpochError, match="begin with epoch"):
        chain.cross(after.digest, replace(after))
