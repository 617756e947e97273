"""A certificate nobody asked for: whoever uses it is found out, and the proof convinces everybody."""

import secrets
import ssl
from typing import Any

import pytest

from peer import sightings
from peer.api import ApiError
from peer.daemon import Daemon
from peer.io.stream import ALPN, ASK, SEEN, StreamError, connect, greet
from peer.messages import Draft
from peer.records import DENIAL
from tests.peer.test_daemon import Host, hosts, pair  # noqa: F401  # a fixture is used by its name
from trust.bundle import ANY_NODE, TrustBundle
from trust.held import HeldAuthority
from trust.identity import spiffe_node
from trust.issuance import issue_svid, request_svid
from trust.svid import KeyedSvid, keyed, new_leaf_key
from trust.tls import Caller
from trust.transparency import denial_key, read_denial


def misissued(holder: Host, victim: Host, identity: str = "") -> tuple[KeyedSvid, bytes]:
    """A certificate for the victim, made with the root key on the signer's host and without the victim's knowledge.

    (The victim's own key signs the request here, for that is how the policy makes a certificate of the right shape; who
    holds the root key writes the same bytes without.)
    """
    assert holder.daemon is not None
    assert victim.daemon is not None
    key, clock = new_leaf_key(secrets.token_bytes), victim.daemon.clock
    member = victim.daemon.certifier.member
    spiffe = identity or spiffe_node(member.trust_domain, victim.daemon.identity.id)
    request = request_svid(victim.daemon.identity, member.credential, spiffe, key, clock.now())
    authority = HeldAuthority(holder.daemon.custody.shares, secrets.token_bytes)
    der = issue_svid(
        authority, member.root_certificate, request, trust_domain=member.trust_domain,
        now=int(clock.now()), entropy=secrets.token_bytes, revoked=holder.daemon.revocations,
    )  # fmt: skip
    root = member.root_public
    return keyed(der, key, root_public=root, trust_domain=member.trust_domain, now=clock.now()), der


def context(host: Host, svid: KeyedSvid) -> ssl.SSLContext:
    assert host.daemon is not None
    member = host.daemon.membership
    bundle = TrustBundle(member.trust_domain, [member.root_certificate])
    return Caller(certificate=svid, bundle=bundle, alpn=(ALPN,)).expecting(ANY_NODE)


async def use(at: Host, svid: KeyedSvid) -> None:
    """Speak to a member as somebody one is not."""
    stream = await connect((at.address, 7946), context(at, svid))
    await greet(stream, ASK)
    await stream.closed()


def denials(host: Host) -> list[tuple[bytes, str]]:
    assert host.daemon is not None
    return [(node, svid.spiffe) for node, svid in host.daemon.sightings.standing()]


async def test_a_certificate_that_was_not_asked_for_is_found_out_when_it_is_used(
    hosts: Any,  # noqa: F811
    until: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two = await pair(hosts)
    for host in (one, two):
        assert await host.checked("misissuance") == ("ok", "no certificate that nobody asked for")
    svid, der = misissued(one, two)
    await use(one, svid)
    await until(lambda: len(denials(one)) == 1 and len(denials(two)) == 1)
    for host in (one, two):
        status, words = await host.checked("misissuance")
        assert status == "fail"
        assert f"host-2 did not ask for the certificate of {svid.identity}" in words
        assert "gossamer_certificate_denials 1.0" in host.operations.metrics().decode()
    assert "certificate_misissued" in caplog.text
    # the record convinces whoever knows the root, by itself
    (record,) = one.daemon.journal.records(DENIAL)
    member = one.daemon.membership
    denied = read_denial(
        record.payload,
        root_public=member.root_public,
        trust_domain=member.trust_domain,
        writer=two.daemon.identity.id,
    )
    assert (record.payload, denied.spiffe, denial_key(denied)) == (der, svid.identity, record.key)
    # and it is not forgotten with a restart, nor written twice
    await two.stop()
    await two.ready()
    assert len(denials(two)) == 1


async def test_certificates_that_were_asked_for_alarm_nobody(hosts: Any, until: Any) -> None:  # noqa: F811
    one, two = await pair(hosts)
    shown = two.daemon.certifier.held[two.daemon.outlook.node_spiffe]
    await use(one, shown)
    await until(lambda: not one.daemon.sightings._waiting)
    two.daemon.certifier._due[shown.identity] = 0.0  # a renewal
    two.daemon.certifier._wake.set()
    await until(lambda: two.daemon.certifier.held[shown.identity] is not shown)
    await use(one, two.daemon.certifier.held[shown.identity])
    await until(lambda: not one.daemon.sightings._waiting)
    assert denials(one) == denials(two) == []


async def test_only_members_show_certificates_and_only_true_ones_are_looked_at(
    hosts: Any,  # noqa: F811
    until: Any,
) -> None:
    one, two = await pair(hosts)
    _, foreign = misissued(one, one)  # not made out to the one it is shown to
    strange = misissued(one, two)[1]
    for shown in (b"junk", foreign, strange[:-1] + bytes([strange[-1] ^ 1])):
        stream = await connect((two.address, 7946), one.daemon.channels.context_for(None))
        await greet(stream, SEEN)
        stream.write(shown)
        try:
            assert await stream.read() == b""
        except StreamError:
            pass  # cut off
        await stream.closed()
    assert two.daemon.sightings.denied == {}
    with pytest.raises(ApiError, match="made out to"):
        await two.daemon.write([Draft(kind=DENIAL, key="x", payload=foreign)])
    with pytest.raises(ApiError, match="key and certificate differ"):
        await two.daemon.write([Draft(kind=DENIAL, key="x", payload=strange)])


async def test_what_is_remembered_and_what_waits_is_bounded(
    hosts: Any,  # noqa: F811
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = await pair(hosts)
    await until(lambda: not one.daemon.sightings._waiting)
    monkeypatch.setattr(sightings, "MET_MAX", 2)
    monkeypatch.setattr(sightings, "WAITING_MAX", 0)
    monkeypatch.setattr(sightings, "DENIALS_PER_NODE_MAX", 1)
    for _ in range(4):
        await use(one, misissued(one, two)[0])
    assert len(one.daemon.sightings._met) == 2
    assert one.daemon.sightings.untold >= 4
    for _ in range(3):
        der = misissued(one, two)[1]
        two.daemon.sightings._judge(two.daemon.bundle.read_peer(der), der)
    assert len(two.daemon.sightings.denied) == 1


async def test_a_denial_goes_long_after_the_certificates_end(
    hosts: Any,  # noqa: F811
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = await pair(hosts)
    await use(one, misissued(one, two)[0])
    await until(lambda: len(denials(two)) == 1)
    daemon: Daemon = two.daemon
    ends = daemon.clock.now() + 3600 + sightings.DENIED_KEPT_S
    assert daemon.sightings.over(ends - 60) == []
    assert len(daemon.sightings.over(ends + 60)) == 1
    monkeypatch.setattr(daemon.clock, "now", lambda: ends + 60)
    assert denials(two) == []
