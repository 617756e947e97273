"""Who may sign: members with a credential, since when they have been here, and who is revoked."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from peer.candidates import Candidates
from tests.trust.ceremony.network import founded
from trust.ceremony.growth import SETTLE_S, SignerRules
from trust.identity import node_id, spiffe_node
from trust.revocation import REVOCATION_S, RevocationSet, revoke, signer_subject

DOMAIN = "cluster.local"


@dataclass
class Seen:
    id: bytes
    live: bool = True


@dataclass
class Scene:
    world: Any
    now: float = 1000.0
    members: list[Seen] = field(default_factory=list)
    credentials: dict[bytes, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.revocations = RevocationSet(self.world.mesh.authority.root_public)
        self.candidates = Candidates(
            seen=lambda: self.members, credentials=self.credentials, revocations=self.revocations,
            trust_domain=DOMAIN, rules=SignerRules(), now=lambda: self.now,
            me=self.world.mesh.member(0)[0].id, joined=lambda credential: credential.issued_at,
        )  # fmt: skip

    def join(self, number: int) -> Seen:
        identity, credential = self.world.mesh.member(number)
        self.credentials[identity.id] = credential
        self.members.append(Seen(identity.id))
        return self.members[-1]

    def revoke(self, subject: str) -> None:
        ends = int(self.world.now + REVOCATION_S)
        entry = revoke(self.world.mesh.authority, subject, reason="", now=self.world.now, expires_at=ends)
        self.revocations.add(entry)


@pytest.fixture
def scene(world: Any) -> Scene:
    return Scene(world)


def test_since_counts_from_coming_and_from_going(scene):
    one = scene.join(1)
    assert scene.candidates.look()[one.id].since == 1000
    scene.now = 1050
    assert scene.candidates.look()[one.id].since == 1000
    one.live = False
    gone = scene.candidates.look()[one.id]
    assert (gone.alive, gone.since) == (False, 1050)
    scene.now = 1060
    one.live = True
    back = scene.candidates.look()[one.id]
    assert (back.alive, back.since) == (True, 1060)


def test_who_has_no_credential_here_and_who_has_been_forgotten_is_no_candidate(scene):
    one = scene.join(1)
    scene.members.append(Seen(bytes(16)))
    assert set(scene.candidates.look()) == {one.id}
    scene.members.clear()
    assert scene.candidates.look() == {}
    scene.now = 2000
    scene.members.append(one)
    assert scene.candidates.look()[one.id].since == 2000


def test_the_revoked_are_barred(scene):
    one, two, three = scene.join(1), scene.join(2), scene.join(3)
    scene.revoke(signer_subject(one.id))
    scene.revoke(spiffe_node(DOMAIN, two.id))
    members = scene.candidates.members(None)
    assert members.barred == {one.id, two.id}
    assert members.known == {three.id}


def test_a_revoked_signer_that_no_list_has_any_more_still_goes(scene):
    record, _, signers = founded(3)
    for each in signers:
        credential = replace(scene.join(each.id[0]) and next(iter(scene.credentials.values())))
        scene.credentials[each.id] = replace(credential, public_key=each.public_key)
    scene.members[:] = [Seen(each.id) for each in signers[1:]]
    scene.candidates.look()
    scene.now += SETTLE_S
    assert scene.candidates.wish(record) is None
    scene.revoke(signer_subject(signers[0].id))
    assert scene.candidates.wish(record) == tuple(
        sorted((each.public_key for each in signers[1:]), key=node_id)
    )
    assert signers[0].id in scene.candidates.members(record).barred


def test_an_elector_sees_who_is_away_gone_ripe_and_older(scene):
    record, _, signers = founded(3)
    for each in signers:
        credential = replace(scene.join(each.id[0] or 1) and next(iter(scene.credentials.values())))
        scene.credentials[each.id] = replace(credential, public_key=each.public_key)
    scene.members[:] = [Seen(each.id) for each in signers]
    early, late = scene.join(7), scene.join(8)
    ages = {early.id: 100, late.id: 300}
    scene.candidates.joined = lambda credential: ages.get(credential.node, 50)
    scene.candidates.me = early.id
    scene.candidates.look()
    scene.members[0].live = False
    members = scene.candidates.members(record)
    assert (members.away, members.gone, members.ripe) == ({signers[0].id}, frozenset(), frozenset())
    assert members.known == {each.id for each in [*signers, early, late]}
    scene.now += SETTLE_S
    members = scene.candidates.members(record)
    assert members.ripe == {early.id, late.id}
    assert members.rank[signers[1].id] == members.rank[early.id] == 100, (
        "who was here before this node is alike to it"
    )
    assert members.rank[late.id] == 300
    scene.now += scene.candidates.rules.gone_s
    assert scene.candidates.members(record).gone == {signers[0].id}


def test_the_seat_of_a_signer_that_an_epoch_went_on_without_is_held_while_it_is_away(scene):
    record, _, signers = founded(3)
    without = replace(record, value=replace(record.value, keys=record.value.keys[1:]))
    out = next(each for each in signers if each.public_key == record.value.keys[0])
    credential = scene.join(5) and next(iter(scene.credentials.values()))
    for each in signers:
        scene.credentials[each.id] = replace(credential, public_key=each.public_key)
    scene.members[:] = [Seen(each.id, live=each is not out) for each in signers]
    assert scene.candidates.members(without).held == 0, "this node has not seen it sign"
    scene.candidates.members(record)
    assert scene.candidates.members(without).held == 1
    scene.members[[each.id for each in scene.members].index(out.id)].live = True
    assert scene.candidates.members(without).held == 0
    scene.members[[each.id for each in scene.members].index(out.id)].live = False
    assert scene.candidates.members(without).held == 1
    scene.now += scene.candidates.rules.gone_s
    assert scene.candidates.members(without).held == 0
