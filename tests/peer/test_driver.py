"""The driver: outputs become deeds in order, and what cannot be done is told to whoever waits."""

import asyncio
import random
from typing import Any

import pytest

from crdt.journal import Journal
from gossip.config import local
from peer.clock import Clock
from peer.disk import Disk
from peer.driver import Driver, DriverClosedError
from peer.io.store import Batch, Store, StoreError
from peer.messages import Draft, JoinSeeds, Lagged, SendDatagram, Tick, Write, Written
from peer.node import Node
from peer.records import POLICY, encode_policy

NEVER = 4e9  # in the year 2096


class FullStore:
    """Refuses commits while `full`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.full = False

    def commit(self, batch: Batch) -> None:
        if self.full:
            raise StoreError("the disk is full")
        self.store.commit(batch)

    def probe(self) -> None:
        self.commit(Batch())

    def close(self) -> None:
        self.store.close()


class Streams:
    def __init__(self) -> None:
        self.opened: list[Any] = []
        self.closed: list[int] = []

    def open(self, stream: int, address: Any, node: bytes | None) -> None:
        self.opened.append((stream, address, node))

    def send(self, stream: int, data: bytes) -> None: ...

    def close(self, stream: int) -> None:
        self.closed.append(stream)


class Run:
    """A node that runs on a real loop, with streams that go nowhere."""

    def __init__(self, live: Any, store: Any, **options: Any) -> None:
        identity, credential = live.member(1).identity, live.member(1).credential
        from peer.records import Registry
        from trust.revocation import RevocationSet

        root = live.authority.root_public
        registry = Registry(
            root=root, trust_domain="cluster.local", drift_ms=5000, revocations=RevocationSet(root)
        )
        self.clock = Clock()
        self.disk = Disk(store)
        self.node = Node(
            identity=identity,
            credential=credential,
            registry=registry,
            journal=Journal(verify=registry.judge),
            config=local(),
            address=("127.0.0.1", 7946),
            boot=1,
            zone="",
            meta={},
            rng=random.Random(1),
            now=self.clock.now(),
            **options,
        )
        self.driver = Driver(self.node, self.clock, self.disk)
        self.streams = self.driver.streams = Streams()

    async def write(self, name: str) -> Written:
        document = {"kind": "TrafficPolicy", "metadata": {"name": name, "namespace": "default"}, "spec": {}}
        draft = Draft(kind=POLICY, key=f"TrafficPolicy/default/{name}", payload=encode_policy(document))
        answer = await self.driver.ask(lambda request: Write(request=request, drafts=(draft,)))
        assert isinstance(answer, Written)
        return answer


@pytest.fixture
async def run(live: Any, tmp_path: Any) -> Any:
    made = Run(live, FullStore(Store.open(tmp_path)))
    yield made
    made.driver.close()
    await made.disk.close()


async def test_what_is_acknowledged_is_on_disk(run: Run) -> None:
    written = await run.write("one")
    assert written.error == ""
    assert len(run.disk._store.store.load().records) == 1
    assert run.disk._store.store.load().heads == {run.node.identity.id: 1}


async def test_many_writers_at_once_are_all_answered_with_numbers_of_their_own(run: Run) -> None:
    answers = await asyncio.gather(*(run.write(f"policy-{n}") for n in range(50)))
    assert sorted(answer.records[0].seq for answer in answers) == list(range(1, 51))
    assert run.disk._store.store.load().heads == {run.node.identity.id: 50}


async def test_a_full_disk_is_told_nothing_is_half_done_and_the_peer_goes_on(run: Run, live: Any) -> None:
    await run.write("before")
    run.disk._store.full = True
    failed = await asyncio.gather(*(run.write(f"lost-{n}") for n in range(3)))
    assert {answer.error for answer in failed} == {"the disk is full"}
    assert run.node.journal.heads == {run.node.identity.id: 1}
    run.disk._store.full = False
    after = await run.write("after")
    assert after.records[0].seq == 2
    assert run.disk._store.store.load().heads == {run.node.identity.id: 2}
    assert {record.key.rpartition("/")[2] for record in run.node.journal.records(POLICY)} == {
        "before",
        "after",
    }


async def test_whoever_waits_when_the_driver_closes_is_told(run: Run) -> None:
    asking = asyncio.create_task(
        run.driver.ask(lambda request: JoinSeeds(request=request, seeds=(("127.0.0.9", 1),)))
    )
    await asyncio.sleep(0)
    run.driver.close()
    with pytest.raises(DriverClosedError, match="stopping"):
        await asking
    with pytest.raises(DriverClosedError):
        await run.write("late")


async def test_somebody_who_stopped_waiting_leaves_nothing_behind(run: Run) -> None:
    asking = asyncio.create_task(
        run.driver.ask(lambda request: JoinSeeds(request=request, seeds=(("127.0.0.9", 1),)))
    )
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert run.driver._answers == {}
    assert (await run.write("one")).error == ""


async def test_a_fault_of_the_program_stops_the_node_and_says_so(run: Run, monkeypatch: Any) -> None:
    broken: list[bool] = []
    run.driver.on_broken = lambda: broken.append(True)

    def fault(_now: float, _event: Any) -> Any:
        raise KeyError("a fault")

    monkeypatch.setattr(run.node, "step", fault)
    with pytest.raises(KeyError):
        run.driver.feed(Tick())
    assert broken == [True]
    run.driver.feed(Tick())  # nothing more reaches the node
    assert broken == [True]


async def test_inputs_that_arise_from_outputs_wait_for_their_turn(run: Run) -> None:
    seen: list[str] = []

    class Datagrams:
        def send(self, address: Any, data: bytes) -> None:
            seen.append("sent")

    run.driver.datagrams = Datagrams()
    order: list[Any] = []
    inner = run.node.step

    class Echo(Node):
        """A node that sends two datagrams for each tick, and one of them feeds a tick."""

        def __init__(self) -> None:
            self.ticks = 0
            self.deadline = NEVER

        def step(self, now: float, event: Any) -> list[Any]:
            self.ticks += 1
            order.append(self.ticks)
            if self.ticks == 1:
                run.driver.feed(Tick())
                assert self.ticks == 1
            return [SendDatagram(address=("127.0.0.1", 1), data=b"")]

    run.driver.node = Echo()
    run.driver.feed(Tick())
    assert order == [1, 2]
    assert seen == ["sent", "sent"]
    assert inner is not None


async def test_the_timer_follows_the_deadline(run: Run, until: Any) -> None:
    class Alarm(Node):
        def __init__(self, at: float) -> None:
            self.at = self.deadline = at
            self.rang: list[float] = []

        def step(self, now: float, event: Any) -> list[Any]:
            if now >= self.at:
                self.rang.append(now)
                self.deadline = NEVER
            return []

    alarm = Alarm(run.clock.now() + 0.05)
    run.driver.node = alarm
    run.driver.feed(Tick())
    await until(lambda: alarm.rang != [])
    assert 0 <= alarm.rang[0] - alarm.at < 5


async def test_a_late_timer_is_told_to_the_node_counted_and_logged_once_a_minute(
    run: Run, monkeypatch: Any, caplog: Any
) -> None:
    driver, now = run.driver, run.clock.now()
    feed, fed = driver.feed, list[Any]()
    monkeypatch.setattr(run.clock, "now", lambda: now)
    monkeypatch.setattr(driver, "feed", lambda event: (fed.append(event), feed(event)))

    def late(by_s: float) -> int:
        nonlocal now
        driver._timer_at = run.node.deadline
        now = run.node.deadline + by_s
        fed.clear()
        driver._tick()
        return run.node.engine.statistics().health

    def told() -> list[tuple[str, int, float]]:
        return [
            (record.message, record.fields["times"], record.fields["most_s"]) for record in caplog.records
        ]

    assert late(0.05) == 0
    assert fed == [Tick()]
    assert (driver.lateness.count, driver.lateness.seconds) == (0, 0.0)
    assert [late(0.5), late(0.7)] == [1, 2]
    assert [type(event) for event in fed] == [Lagged, Tick]
    assert fed[0].lag_s == pytest.approx(0.7)
    assert driver.lateness.count == 2
    assert driver.lateness.seconds == pytest.approx(1.2)
    assert told() == [("process_late", 1, 0.5)]
    late(60.2)
    assert [times for _, times, _ in told()] == [1, 2]
    late(0.2)  # not so late that anybody need know
    late(0.3)
    assert len(told()) == 2
