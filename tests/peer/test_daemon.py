"""Whole peers in one process, on real sockets and disks, with a data plane that only takes notes."""

import asyncio
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

import peer.entering
import peer.memory
import peer.upkeep
from crdt.record import decode_record
from peer.api import ApiError
from peer.clock import Clock
from peer.config import Config, load_config
from peer.contacts import Contacts
from peer.daemon import Daemon
from peer.establish import establish
from peer.handover import Settled
from peer.io.keys import KeyFileError, Keys
from peer.io.store import Batch, Store, StoreError
from peer.lifecycle import DaemonError
from peer.lives import begin_life, open_store
from peer.operations import Operations
from peer.reactions import REGISTRATIONS
from peer.records import EPOCH, POLICY, SERVICE
from peer.rights import Reason
from proxy.plane import Applied, OldWorker, Rejected, Telemetry
from proxy.snapshot import Snapshot
from tests.loopback import network
from tests.trust.ceremony.network import outcome, reshare, shares_of

ROUTE = {
    "apiVersion": "gossamer.dev/v1",
    "kind": "TrafficPolicy",
    "metadata": {"name": "one"},
    "spec": {"targetRefs": [{"kind": "Service", "name": "shop"}], "timeouts": {"request": "5s"}},
}

CLOSED = {
    "apiVersion": "gossamer.dev/v1",
    "kind": "Capability",
    "metadata": {"name": "closed"},
    "spec": {"subjects": [], "namespaces": ["default"], "kinds": ["*"]},
}


class Plane:
    """Serves whatever it is given."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.calls: list[str] = []
        self.judge: Callable[[Snapshot], str] = lambda _: ""

    async def start(self) -> None:
        self.calls.append("start")

    async def apply(self, snapshot: Snapshot, _sockets: Mapping[str, socket.socket]) -> Applied | Rejected:
        self.snapshots.append(snapshot)
        reason = self.judge(snapshot)
        if reason:
            fault: Any = "deadly" if reason == "deadly" else "snapshot"
            return Rejected(version=snapshot.version, reason=reason, fault=fault)
        return Applied(version=snapshot.version)

    def watch(self, ended: Callable[[int], None]) -> None:
        self.ended = ended

    def observations(self) -> Telemetry:
        return Telemetry(series={}, counters={}, ejections=(), connections=0)

    async def drain(self, timeout_s: float) -> None:
        self.calls.append(f"drain {timeout_s:g}")

    async def stop(self) -> None:
        self.calls.append("stop")

    def processes(self) -> tuple[int, ...]:
        return ()

    async def bequeath(self) -> tuple[OldWorker, ...]:
        return ()

    async def adopt(self, workers: Sequence[OldWorker], drain_s: float) -> None:
        """There is nobody to adopt."""


class Host:
    """One machine: its directory, its address, and the peer that runs on it."""

    def __init__(self, directory: Any, number: int) -> None:
        self.directory = directory / f"host-{number}"
        self.address = f"{network(0)}.{number}"
        self.number = number
        self.plane = Plane()
        self.daemon: Daemon | None = None
        self.operations: Operations | None = None

    def config(self, **overrides: Any) -> Config:
        base = {
            "data_dir": str(self.directory), "name": f"host-{self.number}", "bind": self.address, "profile": "local",
            "drain_timeout_s": 0,
        }  # fmt: skip
        return load_config(None, {}, base | overrides)

    async def start(self, **overrides: Any) -> Daemon:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        config = self.config(**overrides)
        keys, clock = Keys.open(config.data_dir), Clock()
        contacts = Contacts.of(config.data_dir)
        store = open_store(config.data_dir, keys)
        try:
            established = await establish(config, keys, clock.now, contacts.load())
        except BaseException:
            store.close()
            raise
        if established.met and not contacts.load():
            contacts.keep(established.met)
        self.plane = Plane()
        self.daemon = Daemon(
            config=config,
            established=established,
            keys=keys,
            store=store,
            boot=begin_life(keys, store, int(clock.now() * 1000)),
            plane=self.plane,
            clock=clock,
        )
        await self.daemon.start()
        self.operations = Operations(self.daemon)
        return self.daemon

    async def ready(self, **overrides: Any) -> Daemon:
        daemon = await self.start(**overrides)
        async with asyncio.timeout(10):
            await daemon.ready.wait()
        return daemon

    async def stop(self, *, graceful: bool = False) -> None:
        if self.daemon is not None:
            await self.daemon.stop(drain_s=None if graceful else 0.0)
            self.daemon = None

    async def token(self, **rights: Any) -> str:
        assert self.operations is not None
        fields = {"services": (), "ttl_s": 600, "uses": 10, "publish": True, "invite": False} | rights
        return await self.operations.token_create(**fields)

    async def checked(self, name: str) -> tuple[str, str]:
        """Status and detail of the row of that name in `check`."""
        assert self.operations is not None
        [row] = [row for row in await self.operations.check() if row["check"] == name]
        return row["status"], row["detail"]


@pytest.fixture
async def hosts(tmp_path: Any) -> Any:
    async with AsyncExitStack() as stack:

        def make(number: int) -> Host:
            host = Host(tmp_path, number)
            stack.push_async_callback(host.stop)
            return host

        yield make


async def pair(hosts: Any) -> tuple[Host, Host]:
    """A founder and a peer that joined it."""
    one, two = hosts(1), hosts(2)
    await one.ready(bootstrap=True)
    await two.ready(token=await one.token(), seeds=(f"{one.address}:7946",))
    return one, two


def service(name: str = "shop", **fields: Any) -> dict[str, Any]:
    return {"service": {"name": name, "port": 8080} | fields}


# ------------------------------------------------------------------ starting and stopping


async def test_a_founder_is_ready_alone_and_leaves_nothing_open(hosts: Any) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    assert daemon.memory.alone
    assert one.operations.health()["ready"] is True
    await one.stop(graceful=True)
    assert one.plane.calls == ["start", "drain 0", "stop"]
    with socket.socket() as again, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((one.address, 7946))
        datagrams.bind((one.address, 7946))


@pytest.mark.parametrize(
    ("kind", "port", "words"),
    [
        (socket.SOCK_STREAM, 7946, "gossip port .*:7946 cannot be opened"),
        (socket.SOCK_DGRAM, 7946, "gossip port .*:7946 cannot be opened"),
        (socket.SOCK_STREAM, 15006, "inbound port 15006"),
        (socket.SOCK_STREAM, 15001, "outbound port 15001"),
    ],
)
async def test_a_port_in_use_is_named_and_nothing_stays_open(
    hosts: Any, kind: int, port: int, words: str
) -> None:
    one = hosts(1)
    with socket.socket(type=kind) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        taken.bind((one.address, port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(DaemonError, match=f"{words}.*Address already in use"):
            await one.start(bootstrap=True)
    await one.stop()
    await one.ready(bootstrap=True)  # nothing of the first attempt is in the way


async def test_a_part_that_fails_ends_the_peer_and_is_named(hosts: Any, monkeypatch: Any) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)

    async def broken() -> None:
        raise KeyError("a fault")

    daemon.spawn(broken(), "a part")
    await asyncio.wait_for(daemon.stop_asked.wait(), 5)
    assert daemon.failed == "a part: KeyError('a fault')"


async def test_a_node_that_broke_ends_the_peer(hosts: Any, monkeypatch: Any) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)

    def fault(_now: float, _event: Any) -> Any:
        raise KeyError("a fault")

    monkeypatch.setattr(daemon.node, "step", fault)
    with pytest.raises(KeyError):
        await daemon.write([])
    assert daemon.failed == "the node broke"
    with pytest.raises(ApiError, match="stopping"):
        await daemon.write([])


async def test_something_that_cannot_be_closed_keeps_nothing_else_open(hosts: Any, monkeypatch: Any) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)

    async def stuck() -> None:
        raise OSError("a worker does not go")

    monkeypatch.setattr(one.plane, "stop", stuck)
    with pytest.raises(OSError, match="does not go"):
        await daemon.stop(drain_s=0.0)
    monkeypatch.undo()
    one.daemon = None
    await one.ready()


async def test_stopping_twice_and_after_a_failed_start_is_harmless(hosts: Any) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    await daemon.stop(drain_s=0.0)
    await daemon.stop()
    with pytest.raises(ApiError, match="stopping"):
        await one.operations.apply([ROUTE], "f.yaml")


# ------------------------------------------------------------------ full disks


async def test_a_full_disk_refuses_changes_tells_why_and_the_peer_goes_on(
    hosts: Any, monkeypatch: Any
) -> None:
    one, two = await pair(hosts)
    store, files = one.daemon.disk._store, one.daemon.reactions.registrations

    def full(*_: Any) -> None:
        raise StoreError("cannot write to store.db: the disk is full")

    monkeypatch.setattr(store, "commit", full)
    with pytest.raises(ApiError, match="disk is full"):
        await one.operations.apply([ROUTE], "f.yaml")
    with pytest.raises(ApiError, match="disk is full"):
        await one.operations.register([service()], "f.yaml")
    assert await one.operations.services() == []
    assert files.read() == "[]"
    status, words = await one.checked("disk")
    assert status == "fail"
    assert "disk is full" in words

    # what others write is served here all the same, and stored when there is room
    await two.operations.apply([ROUTE], "f.yaml")
    async with asyncio.timeout(10):
        while not await one.operations.get("all", None, None) or not one.daemon.disk._owed:
            await asyncio.sleep(0.01)
    monkeypatch.undo()
    await one.operations.register([service()], "f.yaml")
    assert not one.daemon.disk._owed
    kinds = [decode_record(row).kind for row in store.load().records]
    assert kinds.count(SERVICE) + kinds.count(POLICY) == 2
    assert (await one.checked("disk"))[0] == "ok"


async def test_registrations_that_cannot_be_remembered_are_refused(hosts: Any, monkeypatch: Any) -> None:
    one = hosts(1)
    await one.ready(bootstrap=True)

    def full(*_: Any) -> None:
        raise KeyFileError(f"{REGISTRATIONS}: cannot be written: No space left on device")

    monkeypatch.setattr("peer.io.statefile.write_private", full)
    with pytest.raises(ApiError, match=r"registrations\.json: cannot be written"):
        await one.operations.register([service()], "f.yaml")
    assert await one.operations.services() == []
    assert list(one.daemon.journal.records("service")) == []


async def test_a_disk_full_at_the_start_does_not_keep_a_peer_from_serving(
    hosts: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(peer.upkeep, "UNTOLD_RETRY_S", 0.01)
    one = hosts(1)
    await one.ready(bootstrap=True)
    await one.operations.register([service()], "f.yaml")
    await one.stop()
    (one.directory / REGISTRATIONS).write_text('[{"service": {"name": "shop", "port": 9090}}]')
    commit = Store.commit
    room: list[bool] = []

    def full(self: Store, batch: Any) -> None:
        if not room:
            raise StoreError("the disk is full")
        commit(self, batch)

    monkeypatch.setattr(Store, "commit", full)
    await one.ready()
    assert "services_untold" in caplog.text
    room.append(True)
    async with asyncio.timeout(10):
        while not one.daemon.local._told:
            await asyncio.sleep(0.01)
        while one.daemon.journal.heads != {one.daemon.identity.id: 2}:
            await asyncio.sleep(0.01)


async def test_a_renewed_credential_that_cannot_be_saved_ends_nothing(
    hosts: Any, monkeypatch: Any, caplog: Any
) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)

    def full(*_: Any) -> None:
        raise KeyFileError("node.credential: cannot be written: No space left on device")

    monkeypatch.setattr(Keys, "write", full)
    await daemon.certifier._attempt("credential")
    assert "credential_unsaved" in caplog.text
    assert daemon.certifier.failures == {}
    assert not daemon.stop_asked.is_set()
    me = daemon.node.engine.member(daemon.identity.id)
    assert me is not None
    assert me.credential == daemon.certifier.member.credential


# ------------------------------------------------------------------ coming back


async def test_services_and_their_certificates_come_back_before_any_file_was_read(
    hosts: Any, monkeypatch: Any
) -> None:
    for module in (peer.entering, peer.memory):
        monkeypatch.setattr(module, "FIRST_SYNC_S_MAX", 0.1)
    one, two = await pair(hosts)
    directory = two.daemon.config.services_dir
    directory.mkdir()
    (directory / "a.yaml").write_text("service: {name: filed, port: 8081}")
    await two.daemon.files.read()
    await two.operations.register([service()], "f.yaml")
    async with asyncio.timeout(10):
        while len(two.daemon.certifier.held) < 3:
            await asyncio.sleep(0.01)
    held = dict(two.daemon.certifier.held)
    await two.stop()
    await one.stop()  # the only signer
    daemon = await two.ready()
    assert dict(daemon.certifier.held) == held
    assert daemon.certifier.failures == {}
    assert {name for _, name in daemon.local.services} == {"filed", "shop"}


async def test_a_peer_whose_database_is_gone_serves_nothing_before_it_knows_the_policies(hosts: Any) -> None:
    one, two = await pair(hosts)
    await one.operations.apply([ROUTE], "f.yaml")
    await two.operations.register([service()], "f.yaml")
    own = two.daemon.journal.heads[two.daemon.identity.id]
    async with asyncio.timeout(10):
        while (
            not (two.directory / "contacts.json").exists() or not (one.directory / "contacts.json").exists()
        ):
            await asyncio.sleep(0.02)
    await two.stop()
    await one.stop()
    (two.directory / "store.db").unlink()
    daemon = await two.start()
    async with asyncio.timeout(10):
        while daemon.outlook.node_spiffe not in daemon.certifier.held:
            await asyncio.sleep(0.01)
    assert daemon.memory.blank
    assert two.plane.snapshots == []
    assert "no other peer has told" in two.operations.health()["detail"]
    await one.ready()
    async with asyncio.timeout(20):
        await daemon.ready.wait()
    served = two.plane.snapshots[0].inbound  # the first snapshot holds the service with its policy, and …
    assert {(each.service, each.request_timeout_s) for each in served} == {("shop", 5.0)}
    assert [r["metadata"]["name"] for r in await two.operations.get("all", None, None)] == ["one"]
    assert daemon.journal.heads[daemon.identity.id] == own  # … nothing was written that was known already
    await two.operations.apply([{**ROUTE, "metadata": {"name": "two"}}], "f.yaml")
    assert daemon.journal.heads[daemon.identity.id] == own + 1


async def test_registrations_nobody_can_read_are_named_and_kept(hosts: Any) -> None:
    one = hosts(1)
    await one.ready(bootstrap=True)
    await one.stop()
    path = one.directory / REGISTRATIONS
    path.write_text("[{")
    with pytest.raises(DaemonError, match=rf"{path}: registered services cannot be restored"):
        await one.start()
    assert path.read_text() == "[{"


async def test_registrations_that_were_lost_are_withdrawn_by_name(hosts: Any, caplog: Any) -> None:
    one = hosts(1)
    await one.ready(bootstrap=True)
    await one.operations.register([service()], "f.yaml")
    await one.stop()
    await one.ready()
    assert "services_withdrawn" not in caplog.text
    await one.stop()
    (one.directory / REGISTRATIONS).unlink()
    await one.ready()
    (said,) = [record for record in caplog.records if record.message == "services_withdrawn"]
    assert said.fields == {"services": "default/shop"}
    assert await one.operations.services() == []


async def test_tokens_that_have_expired_are_forgotten_on_disk_and_in_memory(hosts: Any, until: Any) -> None:
    one = hosts(1)
    await one.ready(bootstrap=True)
    await one.stop()
    store = Store.open(one.directory)
    store.commit(Batch(spent=[(b"old", b"n" * 16, 5), (b"new", b"n" * 16, 2**40)]))
    store.close()
    daemon = await one.ready()
    daemon.upkeep.prune()
    assert len(daemon.issuer.rules.ledger) == 1
    await until(lambda: {row[0] for row in daemon.disk._store.load().spent} == {b"new"})


# ------------------------------------------------------------------ together


def heard_of_the_signers(one: Any, two: Any) -> None:
    """The second host knows the epochs that the first one does."""
    for record in one.daemon.custody.chain.records:
        two.daemon.custody.learn(record)


async def test_two_peers_hold_enforce_and_show_the_same(hosts: Any) -> None:
    one, two = await pair(hosts)
    (result,) = await two.operations.apply([ROUTE], "f.yaml", wait_percent=100)
    assert result["action"] == "created"
    (again,) = await one.operations.apply([ROUTE], "f.yaml", wait_percent=100)
    assert (again["action"], again["version"]) == ("unchanged", result["version"])
    assert [m["state"] for m in await one.operations.members()] == ["alive", "alive"]
    heard_of_the_signers(one, two)
    status = await two.operations.ca_status()
    assert (status["can_issue"], [s["name"] for s in status["signers"]]) == (True, ["host-1"])
    assert {row["status"] for row in await two.operations.check()} == {"ok"}


async def test_a_member_that_knows_the_signers_has_its_certificates_signed_by_them(
    hosts: Any, until: Any
) -> None:
    one, two = await pair(hosts)
    heard_of_the_signers(one, two)
    assert two.daemon is not None
    assert one.daemon is not None
    certifier, name = two.daemon.certifier, two.daemon.outlook.node_spiffe
    held, given = certifier.held[name], one.daemon.cosigner.statistics().signer.granted
    certifier._due[name] = 0.0
    certifier._wake.set()
    await until(lambda: certifier.held[name] is not held)
    assert two.daemon.signing.statistics().completed == 1
    assert one.daemon.cosigner.statistics().signer.granted == given + 1
    text = two.operations.metrics().decode()
    for line in (
        "gossamer_ca_signatures_total 1.0",
        'gossamer_ca_signatures_failed_total{reason="unreachable"} 0.0',
        "gossamer_ca_epoch 0.0",
        "gossamer_ca_threshold 1.0",
        "gossamer_ca_signers_reachable 1.0",
        "gossamer_ca_shares_total 0.0",
        "gossamer_ca_tokens_settled_epoch -1.0",
    ):
        assert line in text
    assert "gossamer_ca_tokens_settled_epoch 0.0" in one.operations.metrics().decode()


async def test_a_node_says_that_it_signs_as_soon_as_it_does(hosts: Any, until: Any) -> None:
    one, two = await pair(hosts)
    heard_of_the_signers(one, two)
    three = [each.daemon.identity for each in (one, two)]
    record, shares = one.daemon.custody.record, {one.daemon.identity.id: one.daemon.custody.shares[0]}
    network, _ = reshare(record, shares, three[:1], three)
    assert network.run(60)
    await asyncio.to_thread(two.daemon.custody.take, outcome(network), shares_of(network)[three[1].id])

    def told() -> bool:
        member = one.daemon.node.engine.member(two.daemon.identity.id)
        return bool(member.meta.get("signer"))

    await until(told)


async def test_the_status_of_the_authority_says_who_answers_and_how_many_more_may_go(
    hosts: Any, until: Any
) -> None:
    one, two = await pair(hosts)
    heard_of_the_signers(one, two)
    for host in (one, two):
        status = await host.operations.ca_status()
        (signer,) = status["signers"]
        assert (signer["name"], signer["state"], signer["answers"]) == ("host-1", "alive", True)
        assert (status["can_issue"], status["answering"], status["margin"]) == (True, 1, 0)
        assert status["revocations"] == 0
    with pytest.raises(ApiError, match="0 signers would be left and 1 are needed"):
        await one.operations.revoke("signer", "host-1", "")
    with pytest.raises(ApiError, match="0 signers would be left and 1 are needed"):
        await one.operations.leave(revoke=True)
    await one.stop()
    status = await two.operations.ca_status()
    assert [signer["answers"] for signer in status["signers"]] == [False]
    assert (status["can_issue"], status["answering"], status["margin"]) == (False, 0, -1)


async def test_a_signer_that_cannot_do_its_part_says_why(hosts: Any, until: Any) -> None:
    one, two = await pair(hosts)
    heard_of_the_signers(one, two)

    handover = one.daemon.handover
    await until(lambda: handover.unsettled == "")
    assert await one.checked("signer") == ("ok", "nothing is in the way of its part")
    assert await two.checked("signer") == ("ok", "this peer is none")
    handover._settled = Settled()
    assert await one.checked("signer") == (
        "warn", "it lets nobody new in, and signs all else: the signers before it have not been heard yet",
    )  # fmt: skip
    handover._told[0] = "1 of 2 ledgers are here"
    _, words = await one.checked("signer")
    assert words == "it lets nobody new in, and signs all else: 1 of 2 ledgers are here"
    one.daemon.custody._held.clear()
    status, words = await one.checked("signer")
    assert status == "warn"
    assert words.startswith("its share of the root is lost")


async def test_who_may_not_write_is_told_at_its_own_peer_and_ignored_by_the_others(
    hosts: Any, until: Any, caplog: Any
) -> None:
    one, two = await pair(hosts)
    await two.operations.apply([ROUTE], "f.yaml", wait_percent=100)  # nothing was closed then
    await one.operations.apply([CLOSED], "f.yaml", wait_percent=100)
    with pytest.raises(ApiError, match="host-2 may not write TrafficPolicy in namespace default") as refusal:
        await two.operations.apply([{**ROUTE, "metadata": {"name": "two"}}], "f.yaml")
    assert refusal.value.code == 1
    for host in (one, two):
        assert [row["kind"] for row in await host.operations.get("all", None, None)] == ["Capability"]
        assert host.daemon.dataplane.statuses.keys() == {"Capability/gossamer-system/closed"}
        assert (
            'gossamer_policies_refused{reason="namespace_closed"} 1.0' in host.operations.metrics().decode()
        )
        host.daemon.upkeep.tell_of_refusals()
        host.daemon.upkeep.tell_of_refusals()
    told = [each.fields for each in caplog.records if each.message == "policy_ignored"]
    assert [(each["why"], each["policies"]) for each in told] == [("namespace_closed", 1)] * 2
    await two.stop()
    await two.ready()  # and so it is after a start
    with pytest.raises(ApiError, match="is ignored: host-2 may not write"):
        await two.operations.describe("trafficpolicy", "default", "one")


async def test_of_many_who_are_ignored_a_few_at_a_time_are_named(
    hosts: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(peer.upkeep, "REFUSALS_TOLD_MAX", 2)
    monkeypatch.setattr(peer.upkeep, "REFUSALS_KEPT_MAX", 3)
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    daemon.folder.refused |= {(bytes([n]) * 16, Reason.WITHHELD): (1, "it may not") for n in range(5)}
    counts = []
    for _ in range(3):
        caplog.clear()
        daemon.upkeep.tell_of_refusals()
        counts.append(sum(each.message == "policy_ignored" for each in caplog.records))
    assert counts[:2] == [2, 2]
    assert len(daemon.upkeep._told) <= 3


async def test_describe_tells_who_holds_and_who_enforces_it(hosts: Any) -> None:
    one, two = await pair(hosts)
    await one.operations.apply([ROUTE], "f.yaml", wait_percent=100)
    described = await two.operations.describe("trafficpolicy", "default", "one")
    assert described["members"]["live"] == described["members"]["asked"] == 2
    assert [(each["node"], each["state"]) for each in described["members"]["nodes"]] == [
        ("host-1", "enforced"),
        ("host-2", "enforced"),
    ]
    assert described["status"]["accepted"] is True
    assert [each["authorName"] for each in described["versions"]] == ["host-1"]
    await two.daemon.channels._server.close()  # it still gossips, and answers nobody
    described = await one.operations.describe("trafficpolicy", "default", "one")
    states = {each["node"]: each["state"] for each in described["members"]["nodes"]}
    assert states == {"host-1": "enforced", "host-2": "unreachable"}
    with pytest.raises(ApiError, match="there is no TrafficPolicy default/two"):
        await one.operations.describe("trafficpolicy", "default", "two")


async def test_history_survives_a_restart_and_a_peer_that_came_later_has_seen_less(hosts: Any) -> None:
    one, two = hosts(1), hosts(2)
    daemon = await one.ready(bootstrap=True)
    async with asyncio.timeout(10):  # a later record of its own would let the tombstone go
        while not list(daemon.journal.records(EPOCH)):
            await asyncio.sleep(0.01)
    for seconds in (1, 2, 3):
        spec = ROUTE["spec"] | {"timeouts": {"request": f"{seconds}s"}}
        await one.operations.apply([ROUTE | {"spec": spec}], "f.yaml")
    await one.operations.delete([("TrafficPolicy", "default", "one")])
    before = await one.operations.history("TrafficPolicy", "default", "one")
    assert [row["action"] for row in before] == ["deleted", "written", "written", "written"]
    await one.stop()
    await one.ready()
    assert await one.operations.history("TrafficPolicy", "default", "one") == before
    await two.ready(token=await one.token(), seeds=(f"{one.address}:7946",))
    (row,) = await two.operations.history("TrafficPolicy", "default", "one")
    assert row["version"] == before[0]["version"]


async def test_a_leave_is_told_even_when_there_is_no_time_to_drain(hosts: Any) -> None:
    one, two = await pair(hosts)
    await two.stop(graceful=True)
    async with asyncio.timeout(10):
        while [m["state"] for m in await one.operations.members()] != ["alive", "left"]:
            await asyncio.sleep(0.01)


async def test_an_upstream_port_in_use_changes_nothing(hosts: Any) -> None:
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((one.address, 9190))
        taken.listen()
        wanted = service(upstreams=[{"service": "cart", "local_port": 9190}])
        with pytest.raises(ApiError, match="upstream port 9190 cannot be opened"):
            await one.operations.register([wanted], "f.yaml")
    assert await one.operations.services() == []
    assert list(daemon.journal.records(SERVICE)) == []
    assert daemon.reactions.registrations.read() is None
    await one.operations.register([wanted], "f.yaml")
    assert [row["name"] for row in await one.operations.services()] == ["shop"]


async def test_joining_names_who_could_not_be_joined(hosts: Any) -> None:
    one = hosts(1)
    await one.ready(bootstrap=True)
    nobody = hosts(9).address
    with pytest.raises(ApiError, match=rf"{re.escape(nobody)}:7946: cannot connect .* Connection refused"):
        await one.operations.join([nobody])
    with pytest.raises(ApiError, match="does not resolve"):
        await one.operations.join(["no-such-host.invalid"])
    with pytest.raises(ApiError, match="is this peer itself"):
        await one.operations.join([one.address])
    with pytest.raises(ApiError, match="seed") as refusal:
        await one.operations.join(["127.0.0.1:99999"])
    assert refusal.value.code == 2


async def test_a_seed_whose_name_does_not_resolve_yet_is_tried_again(
    hosts: Any, monkeypatch: Any, until: Any
) -> None:
    monkeypatch.setattr(peer.entering, "RESOLVE_S_MIN", 0.01)
    one, two = await pair(hosts)
    await two.stop()
    (two.directory / "contacts.json").write_text("[]")
    asked: list[Any] = []

    async def resolve(seeds: Any) -> Any:
        asked.append(list(seeds))
        if len(asked) < 4:
            return (), dict.fromkeys(seeds, "the name does not resolve: try again")
        return ((one.address, 7946),), {}

    monkeypatch.setattr(peer.entering, "resolve", resolve)
    daemon = await two.start(seeds=("seed.example:7946",))
    await until(daemon.driver.synced.is_set)
    assert asked[:4] == [[("seed.example", 7946)]] * 4


async def test_every_gauge_can_be_read(hosts: Any) -> None:
    one, two = await pair(hosts)
    await two.operations.apply([ROUTE], "f.yaml", wait_percent=100)
    text = one.operations.metrics().decode()
    for line in (
        'gossamer_members{state="alive"} 2.0', "gossamer_ready 1.0", "gossamer_disk_failing 0.0",
        "gossamer_streams_refused_total 0.0", "gossamer_renewals_failing 0.0", 'gossamer_policies{accepted="true"} 1.0',
    ):  # fmt: skip
        assert line in text
    for gauge in (
        "journal_records",
        "certificate_expiry_seconds",
        "gossip_bytes_sent_total",
        "gossip_doubt",
        'gossip_dropped_total{queue="records"}',
        "process_late_seconds_total",
        "snapshot_version",
        "oversized_datagrams_total",
    ):
        assert f"\ngossamer_{gauge}" in text


# ------------------------------------------------------------------ policies that are not in force


async def test_a_quarantine_is_known_everywhere_and_taken_back_when_it_ends(
    hosts: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(peer.upkeep, "QUARANTINE_TOLD_S", 0.05)
    one, two = await pair(hosts)
    assert one.operations is not None
    assert two.operations is not None
    await one.operations.register([service()], "test")

    def judge(snapshot: Snapshot) -> str:
        return "no" if any(d.request_timeout_s == 7.0 for d in snapshot.destinations) else ""

    two.plane.judge = judge
    bad = {**ROUTE, "spec": ROUTE["spec"] | {"timeouts": {"request": "7s"}}}

    async def elsewhere() -> list[str]:
        described = await one.operations.describe("TrafficPolicy", "default", "one")
        return [f"{each['node']}: {each['reason']}" for each in described["status"]["notInForceAt"]]

    async def becomes(wanted: list[str]) -> None:
        async with asyncio.timeout(10):
            while await elsewhere() != wanted:
                await asyncio.sleep(0.01)

    await one.operations.apply([ROUTE], "test", wait_percent=100)
    assert await one.checked("policies elsewhere") == ("ok", "no other peer has set one aside")
    await one.operations.apply([bad], "test")
    await becomes(["host-2: RejectedByDataPlane"])
    assert await one.checked("policies elsewhere") == (
        "warn", "not in force: TrafficPolicy/default/one at host-2",
    )  # fmt: skip
    assert await one.checked("policies") == ("ok", "all in force")
    assert await two.checked("policies") == ("warn", "not in force: TrafficPolicy/default/one")
    assert await two.checked("policies elsewhere") == ("ok", "no other peer has set one aside")
    assert b'gossamer_policies_quarantined{reason="RejectedByDataPlane"} 1.0' in two.operations.metrics()
    [shown] = await two.operations.get("TrafficPolicy", None, None)
    assert shown["status"]["accepted"] is False
    assert "stays in force" in shown["status"]["conditions"][0]["message"]
    await one.operations.apply([ROUTE], "test")
    await becomes([])
    assert two.daemon is not None
    async with asyncio.timeout(10):
        while two.daemon.folder.notices_of(two.daemon.identity.id):
            await asyncio.sleep(0.01)


async def test_what_ended_workers_stays_in_quarantine_over_a_restart(hosts: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(peer.upkeep, "QUARANTINE_TOLD_S", 0.05)
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    await one.operations.register([service()], "test")
    key = "TrafficPolicy/default/one"

    def deadly(snapshot: Snapshot) -> str:
        return "deadly" if any(d.request_timeout_s == 5.0 for d in snapshot.destinations) else ""

    one.plane.judge = deadly
    await one.operations.apply([ROUTE], "test")
    assert daemon.dataplane.statuses[key].reason == "EndedDataPlaneWorkers"
    async with asyncio.timeout(10):
        while not daemon.folder.notices_of(daemon.identity.id):
            await asyncio.sleep(0.01)
    await one.stop()
    again = await one.ready()
    assert again.dataplane.statuses[key].reason == "EndedDataPlaneWorkers"
    assert all(d.request_timeout_s != 5.0 for each in one.plane.snapshots for d in each.destinations)


async def test_what_was_told_in_an_earlier_life_is_taken_back(hosts: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(peer.upkeep, "QUARANTINE_TOLD_S", 0.05)
    one = hosts(1)
    daemon = await one.ready(bootstrap=True)
    await one.operations.register([service()], "test")
    one.plane.judge = lambda snapshot: (
        "no" if any(d.request_timeout_s == 5.0 for d in snapshot.destinations) else ""
    )
    await one.operations.apply([ROUTE], "test")
    async with asyncio.timeout(10):
        while not daemon.folder.notices_of(daemon.identity.id):
            await asyncio.sleep(0.01)
    await one.stop()
    again = await one.ready()  # this plane takes it
    async with asyncio.timeout(10):
        while again.folder.notices_of(again.identity.id):
            await asyncio.sleep(0.01)
    assert again.dataplane.statuses["TrafficPolicy/default/one"].accepted
