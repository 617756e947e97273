"""The mesh root in shares: who signs, who cannot, and what of that is noticed."""

import pytest

from simulations.authority import LATE, RESHARED, WANTING, Authority
from simulations.host import Host, Keeps
from simulations.invariants import Rule
from simulations.network import apart
from simulations.thresholds import Thresholds
from simulations.world import World
from trust.ceremony.growth import SignerRules
from trust.credential import verify_credential
from trust.polynomial import random_coefficients

TTL_S = 40


class Signed:
    """A warm mesh whose root is held in shares."""

    def __init__(self, *, nodes: int = 5, signers: int = 3, seed: int = 1, ttl_s: int = TTL_S) -> None:
        self.world = World(seed=seed, config="lan", size=nodes, ttl_s=ttl_s, digest=True)
        self.hosts = [self.world.add(seeds=tuple(range(min(2, index)))) for index in range(nodes)]
        self.authority = Authority(self.world, signers=signers, ttl_s=ttl_s)
        self.thresholds = Thresholds(self.world, self.authority)
        self.granted: list[str] = []
        self.issued: list[str] = []
        self.authority.on_granted.append(lambda host, _message: self.granted.append(host.name))
        self.authority.on_issued.append(lambda host, _message, _signature: self.issued.append(host.name))
        self.root = self.authority.group.public
        self.world.start_warm(self.hosts)

    def valid(self, host: Host) -> bool:
        """Whether the host's certificate is the root's, and still counts."""
        verify_credential(host.credential, self.root, host.credential.trust_domain, host.credential.issued_at)
        return host.credential.expires_at > self.world.now

    def kill(self, *names: str) -> None:
        for host in self.hosts:
            if host.name in names:
                self.world.crash(host)


def test_everybody_renews_with_a_majority_of_the_signers() -> None:
    signed = Signed()
    signed.world.run(3 * TTL_S)
    assert all(signed.valid(host) for host in signed.hosts)
    assert set(signed.issued) == {"n0", "n1", "n2", "n3", "n4"}
    assert set(signed.granted) == {"n0", "n1", "n2"}
    assert len(signed.granted) >= 2 * len(signed.issued)
    assert signed.thresholds.found == []
    assert signed.world.converged()


def test_one_signer_of_three_signs_nothing_and_two_sign_again() -> None:
    signed = Signed()
    signed.kill("n0", "n2")
    signed.world.run(1.5 * TTL_S)
    assert signed.issued == []
    assert signed.authority.counts[WANTING] > 0
    assert [host.name for host in signed.authority.overdue()] == ["n1", "n3", "n4"]
    assert not signed.authority.able()
    assert signed.thresholds.settled(), "nobody can be asked to have what cannot be had"
    signed.world.restart(signed.hosts[2])
    assert not signed.thresholds.settled()
    signed.world.run(10)
    assert signed.authority.overdue() == []
    assert signed.authority.counts[LATE] == 4
    signed.thresholds.final()
    assert signed.thresholds.found == []


def test_a_host_that_is_cut_off_from_all_signers_cannot_renew_until_it_is_not() -> None:
    signed = Signed()
    signed.world.network.cut("wall", apart([[4]]))
    signed.world.run(1.5 * TTL_S)
    assert signed.authority.overdue() == [signed.hosts[4]]
    signed.world.network.heal("wall")
    signed.world.run(15)
    assert signed.authority.overdue() == []
    assert signed.world.converged()


def test_lost_frames_are_late_and_where_all_are_lost_nobody_can_be_reached() -> None:
    signed = Signed()
    signed.world.network.set_loss(0.4)
    signed.world.run(TTL_S)
    assert signed.authority.overdue() == []
    before = len(signed.issued)
    signed.world.network.set_loss(1.0)
    signed.world.run(2 * TTL_S)
    assert {"n0", "n1", "n2", "n3", "n4"} == {host.name for host in signed.authority.overdue()}
    assert len(signed.issued) - before < 5


def test_a_stopped_signer_answers_when_it_goes_on() -> None:
    signed = Signed(signers=1)
    signed.world.stop(signed.hosts[0])
    signed.world.run(0.75 * TTL_S)
    assert signed.issued == []
    signed.world.resume(signed.hosts[0])
    signed.world.run(0.25 * TTL_S - 1)
    assert set(signed.issued) >= {"n1", "n2", "n3", "n4"}


def test_a_signer_whose_clock_is_an_hour_wrong_is_of_use_to_nobody() -> None:
    signed = Signed()
    signed.world.set_clock(signed.hosts[1], offset_s=3600)
    signed.world.run(0.9 * TTL_S)
    assert set(signed.issued) == {"n0", "n2", "n3", "n4"}, "the others refuse what it asks for itself"
    assert signed.thresholds.found == []
    signed.kill("n2")
    signed.issued.clear()
    signed.world.run(TTL_S)
    assert signed.issued == []


def test_who_is_barred_runs_out_and_nobody_else() -> None:
    signed = Signed()
    signed.authority.barred.add(3)
    signed.world.run(1.5 * TTL_S)
    assert signed.authority.overdue() == [signed.hosts[3]]
    signed.thresholds.final()
    assert [found.rule for found in signed.thresholds.found] == [Rule.ISSUED]


def test_a_share_goes_with_the_identity_and_stays_with_the_database_gone() -> None:
    signed = Signed()
    signed.world.restart(signed.hosts[0], Keeps.IDENTITY)
    assert signed.authority.seats == (0, 1, 2)
    signed.world.restart(signed.hosts[1], Keeps.NOTHING)
    assert signed.authority.seats == (0, 2)
    signed.world.run(TTL_S)
    assert signed.authority.overdue() == []


def test_a_revoked_signer_loses_its_seat_and_the_root_stays() -> None:
    signed = Signed(nodes=6, signers=5)
    signed.authority.revoke(signed.hosts[:2])
    assert signed.authority.seats == (2, 3, 4)
    assert signed.authority.group.threshold == 2
    assert signed.authority.group.public == signed.root
    signed.world.run(1.5 * TTL_S)
    assert signed.authority.overdue() == []
    assert not {"n0", "n1"} & set(signed.granted)
    assert signed.thresholds.found == []


def test_a_revocation_waits_for_a_threshold_of_those_that_stay() -> None:
    signed = Signed()
    signed.kill("n1", "n2")
    signed.authority.revoke(signed.hosts[:1])
    signed.world.run(5)
    assert signed.authority.group.epoch == 1
    for index in (1, 2):
        signed.world.restart(signed.hosts[index])
    signed.world.run(5)
    assert signed.authority.group.epoch == 2
    assert signed.authority.seats == (1, 2)
    assert signed.authority.counts[RESHARED] == 1


def test_a_threshold_one_too_low_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    threshold_of = SignerRules.threshold_of
    monkeypatch.setattr(
        SignerRules, "threshold_of", lambda self, count: max(1, threshold_of(self, count) - 1)
    )
    signed = Signed()
    signed.world.run(TTL_S)
    words = [found.what for found in signed.thresholds.found]
    assert {found.rule for found in signed.thresholds.found} == {Rule.THRESHOLD}
    assert words[0] == "1 of 3 shares give the root, 2 are demanded"
    assert any("got a certificate from 1 signers, 2 are demanded" in each for each in words)


def test_a_polynomial_too_short_is_found_though_the_key_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def short(count: int, entropy: object) -> tuple[bytes, ...]:
        assert callable(entropy)
        return (*random_coefficients(count - 1, entropy), bytes(32))

    monkeypatch.setattr("simulations.authority.random_coefficients", short)
    assert [found.what for found in Signed().thresholds.found] == [
        "1 of 3 shares give the root, 2 are demanded"
    ]


def test_a_certificate_of_another_root_is_found() -> None:
    signed = Signed()
    signed.authority.on_issued[0](signed.hosts[0], b"anything", bytes(64))
    assert {found.rule for found in signed.thresholds.found} == {Rule.ONE_ROOT, Rule.THRESHOLD}


def test_the_same_seed_gives_the_same_story() -> None:
    digests = []
    for _ in range(2):
        signed = Signed(seed=7)
        signed.world.crash(signed.hosts[1])
        signed.world.run(TTL_S)
        digests.append(signed.world.digest())
    assert digests[0] == digests[1]
