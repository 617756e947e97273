"""The log of certificates between running peers: all that is issued gets there, and is judged there."""

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import pytest

from peer import awaiting
from peer.daemon import Daemon
from peer.issuelog import ISSUANCE, encode_page
from peer.messages import Draft
from peer.recording import Recording
from tests.peer.test_daemon import Host, hosts, pair, service  # noqa: F401  # a fixture is used by its name
from tests.peer.test_sightings import denials, misissued, use
from trust.identity import format_id, spiffe_workload
from trust.issuance import request_svid
from trust.issued import issued_of, leaf_of
from trust.order import Draft as OrderDraft
from trust.order import Kind, Order, derive
from trust.svid import new_leaf_key


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes takes a second."""
    monkeypatch.setattr("peer.issuances.Recording", lambda: Recording(written_s=0.2))
    monkeypatch.setattr("peer.issuances.LOOK_S", 0.05)
    monkeypatch.setattr(awaiting, "CROWD_S", 0.0)
    monkeypatch.setattr(awaiting, "SHOWN_AGAIN_S", 1.0)


@pytest.fixture
def until() -> Any:
    """As that of the other tests, with the patience that five things in a row take on a busy machine."""

    async def wait(holds: Any) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.005)

    return wait


async def identities(host: Host) -> set[str]:
    assert host.operations is not None
    return {row["identity"] for row in await host.operations.ca_issued()}


async def test_every_certificate_gets_into_the_log_and_everybody_can_read_it(
    hosts: Any,  # noqa: F811
    until: Any,
) -> None:
    one, two = await pair(hosts)
    await two.operations.register([service("cart")], source="")
    await until(lambda: len(two.daemon.certifier.held) == 2)
    held = {*one.daemon.certifier.held, *two.daemon.certifier.held}
    for host in (one, two):
        await until(lambda host=host: len(host.daemon.issuances.log) == 3)
        assert await identities(host) == held
        assert await host.checked("issuance log") == ("ok", "every certificate in use is recorded")
    row = next(row for row in await two.operations.ca_issued() if row["identity"].endswith("/sa/cart"))
    assert (row["node"], row["recordedBy"], row["epoch"]) == ("host-2", "host-1", 0)
    assert row["by"] in ("host-1", "host-2")  # who asks may coordinate, or whom it asks next
    # A renewal is another leaf, and gets there too; nobody is alarmed by any of it.
    name = row["identity"]
    two.daemon.certifier._due[name] = 0.0
    two.daemon.certifier._wake.set()
    await until(lambda: len(one.daemon.issuances.log) == 4)
    assert denials(one) == denials(two) == []


async def test_a_certificate_that_its_coordinator_keeps_quiet_about_gets_there_by_the_signers_and_is_denied(
    hosts: Any,  # noqa: F811
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(awaiting, "SIGNED_AGAIN_S", 0.5)
    one, two = await pair(hosts)
    daemon: Daemon = two.daemon
    await until(lambda: daemon.signing.ready)
    key, clock = new_leaf_key(secrets.token_bytes), daemon.clock
    uri = spiffe_workload(daemon.membership.trust_domain, "default", "cart")
    # Whoever stole the node's key asks in its name, as a member may, and shows what it gets to nobody.
    request = request_svid(daemon.identity, daemon.certifier.member.credential, uri, key, clock.now())
    order = Order(
        kind=Kind.SVID, request=request.encode(), issued_at=int(clock.now()), entropy=secrets.token_bytes(16),
        ttl_s=3600,
    )  # fmt: skip
    der = await daemon.signing.sign(order, derive(order, daemon.issuer.rules))
    leaf = leaf_of(daemon.bundle.read_peer(der))
    await until(lambda: one.daemon.issuances.log.find(leaf) is not None)
    await until(lambda: denials(one) == denials(two) == [(daemon.identity.id, uri)])
    assert (await one.checked("misissuance"))[0] == "fail"
    told = [record for record in caplog.records if record.message == "issuance_withheld"]
    assert format_id(daemon.identity.id) in {vars(record)["fields"]["coordinator"] for record in told}


async def test_a_share_whose_order_grew_old_is_told_of_and_given_up(
    hosts: Any,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    old = int(daemon.clock.now() - awaiting.FRESH_S - 1)
    order = Order(kind=Kind.SVID, request=b"", issued_at=old, entropy=b"e" * 16, ttl_s=60)
    draft = OrderDraft(message=b"", root_public=daemon.custody.root, finish=lambda signature: signature)
    daemon.issuances.awaiting.shared(b"leaf", b"n" * 16, order, draft, b"c" * 16, old)
    await daemon.issuances.look()
    assert [r.message for r in caplog.records if r.message.startswith("issuance")] == ["issuance_unrecorded"]
    assert b"leaf" not in dict(daemon.issuances.awaiting.to_sign(lambda _: None, float("inf")))


async def test_a_certificate_met_without_a_record_is_told_of_and_denied_when_its_node_is_back(
    hosts: Any,  # noqa: F811
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(awaiting, "MET_S", 0.3)
    one, two = await pair(hosts)
    await until(lambda: len(one.daemon.issuances.log) == 2)
    svid, _ = misissued(one, two)
    victim = two.daemon.identity.id
    await two.stop()  # nobody can be asked whether it asked for that
    await use(one, svid)
    await until(lambda: len(one.daemon.issuances.log) == 3)
    await until(lambda: len(one.daemon.issuances.unrecorded()) == 1)
    status, words = await one.checked("issuance log")
    assert status == "warn"
    assert f"no signer has recorded the certificate of {svid.identity}" in words
    await two.ready()
    await until(lambda: denials(two) == denials(one) == [(victim, svid.identity)])


async def test_nobody_can_put_into_the_log_what_the_root_did_not_sign(
    hosts: Any,  # noqa: F811
    until: Any,
) -> None:
    one, two = await pair(hosts)
    await until(lambda: len(two.daemon.issuances.log) == 2)
    _, der = misissued(one, one)
    member = one.daemon.membership
    entry = issued_of(one.daemon.bundle.read_peer(der), der, member.root_certificate, member.trust_domain)
    false = replace(entry, signature=b"f" * 64)
    await two.daemon.write([Draft(kind=ISSUANCE, key="0", payload=encode_page(0, (entry, false)))])
    await until(lambda: one.daemon.issuances.log.liars == {two.daemon.identity.id})
    status, words = await one.checked("issuance log")
    assert status == "warn"
    assert "host-2 has recorded certificates that the root did not sign" in words
    assert denials(one) == []
    assert one.daemon.issuances.log.find(entry.leaf) is None  # what is true beside it does not count either


async def test_only_signers_write_down_what_others_show(
    hosts: Any,  # noqa: F811
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = await pair(hosts)
    await until(lambda: len(two.daemon.issuances.log) == 2)
    _, der = misissued(one, one)
    await one.daemon.sightings.show(two.daemon.identity.id, der)  # not a signer, nor in its name
    assert len(two.daemon.issuances.recording) == 0
    await two.daemon.sightings.show(one.daemon.identity.id, der)
    await until(lambda: len(two.daemon.issuances.log) == 3)
    rows = await two.operations.ca_issued()
    assert {(row["by"], row["recordedBy"]) for row in rows if row["node"] == "host-1"} == {
        ("host-1", "host-1"),
        ("host-2", "host-1"),
    }
    monkeypatch.setattr("peer.issuances.LISTED_MAX", 2)
    assert len(await two.operations.ca_issued()) == 2
