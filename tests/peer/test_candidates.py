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
