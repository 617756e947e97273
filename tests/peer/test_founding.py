"""N peers make a mesh over real streams: on time, with the wrong secret, one too many, and started again anywhere."""

import asyncio
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from peer.founder import Founded, Founder, FoundingError, LetIn, Site
from peer.founding import found_together
from peer.io.keys import KeyFile, Keys
from tests.loopback import network
from trust.bootstrap import BootstrapSecret
from trust.ceremony.growth import SignerRules
from trust.identity import NodeIdentity

pytestmark = pytest.mark.timeout(60)

SECRET = BootstrapSecret(b"s" * 32)
_hosts = itertools.count(1)


def address() -> str:
    """One that nothing had before."""
    return f"{network(2)}.{next(_hosts)}"


class Party:
    """Founders on addresses of their own, each with a disk; they can be ended and started again."""

    def __init__(self, directory: Path, count: int, port: int, *, expect: int | None = None) -> None:
        self.directory, self.count, self.port = directory, count, port
        self.expect = expect or count
        self.hosts = [address() for _ in range(count)]
        self.secrets: list[BootstrapSecret | None] = [SECRET] * count
        self.said: list[list[str]] = [[] for _ in range(count)]
        self.founders: dict[int, Founder] = {}
        self.tasks: dict[int, asyncio.Task[Founded | LetIn]] = {}

    def keys(self, number: int) -> Keys:
        return Keys.open(self.directory / str(number))

    def founder(self, number: int) -> Founder:
        identity = NodeIdentity.from_seed((number + 1).to_bytes(32, "big"))
        seeds = tuple((host, self.port) for host in self.hosts)
        site = Site(
            name=f"n{number}", bind=self.hosts[number], address=(self.hosts[number], self.port), seeds=seeds,
            expect=self.expect, secret=self.secrets[number], trust_domain="cluster.local", rules=SignerRules(),
        )  # fmt: skip
        say: Callable[[str], None] = self.said[number].append
        return Founder(site, self.keys(number), identity, time.time, say)

    def start(self, *numbers: int) -> None:
        for number in numbers or range(self.count):
            self.founders[number] = self.founder(number)
            self.tasks[number] = asyncio.create_task(found_together(self.founders[number]))

    async def end(self, number: int) -> None:
        task = self.tasks.pop(number)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def outcomes(self) -> list[Founded | LetIn]:
        return list(await asyncio.gather(*self.tasks.values()))


@pytest.fixture
async def party(tmp_path, free_port):
    parties: list[Party] = []

    def make(count: int, **options: int) -> Party:
        parties.append(Party(tmp_path / str(len(parties)), count, free_port, **options))
        return parties[-1]

    yield make
    for each in parties:
        for number in list(each.tasks):
            await each.end(number)


@pytest.fixture
def free_port() -> int:
    return 27946


def roots(outcomes) -> set[bytes]:
    return {outcome.membership.root_public for outcome in outcomes}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_founders_make_one_root_and_are_its_members(party, count):
    made = party(count)
    made.start()
    outcomes = await made.outcomes()
    assert len(roots(outcomes)) == 1
    assert {outcome.membership.credential.name for outcome in outcomes} == {f"n{n}" for n in range(count)}
    assert all(outcome.membership.credential.govern for outcome in outcomes)
    assert len({outcome.membership.root_certificate for outcome in outcomes}) == 1
    fingerprints = {line for said in made.said for line in said if line.startswith("founded")}
    assert len(fingerprints) == 1
    for number in range(count):
        names = {path.name for path in made.keys(number).directory.iterdir()}
        assert {"share-0000000000.key", "epochs", "root.der", "node.credential", "founder-since"} == names


async def test_of_two_root_certificates_all_keep_the_same(party, monkeypatch):
    monkeypatch.setattr("peer.founded.ROOT_RANK_S", 0.0)  # nobody waits for another one's
    made = party(3)
    made.start()
    outcomes = await made.outcomes()
    assert len({outcome.membership.root_certificate for outcome in outcomes}) == 1
    assert len({made.keys(number).read(KeyFile.ROOT_CERTIFICATE) for number in range(3)}) == 1


async def test_without_a_secret_it_is_said_loudly(party):
    made = party(2)
    made.secrets = [None, None]
    made.start()
    await made.outcomes()
    assert all(any(line.startswith("warning: no bootstrap token") for line in said) for said in made.said)


async def test_the_wrong_secret_is_refused_with_the_reason(party, monkeypatch, caplog):
    monkeypatch.setattr("peer.settling.HOPELESS_S", 0.5)
    made = party(3)
    made.secrets[2] = BootstrapSecret(b"o" * 32)
    made.start()
    with pytest.raises(FoundingError, match="another bootstrap secret"):
        await made.tasks[2]
    assert not made.tasks[0].done()
    assert not made.tasks[1].done()
    assert "founder_refused" in caplog.text
    del made.tasks[2]
    made.secrets[2] = SECRET
    made.start(2)
    assert len(roots(await made.outcomes())) == 1


async def test_who_is_stopped_says_what_it_waited_for(party, until, monkeypatch):
    monkeypatch.setattr("peer.founded.PART_S", 60.0)
    monkeypatch.setattr("peer.founded.ALONE_S", 60.0)
    three = party(3)
    three.start(0, 1)
    await until(lambda: len(three.founders[0].meeting.met) == 2)
    await three.end(0)
    began = "stopped before this peer entered the mesh: "
    words = "waiting for 1 more of 3 founders; here: n0, n1"
    assert three.said[0] == [f"{began}{words}; started again, it goes on"]
    two = party(2)
    two.start()
    await until(lambda: two.founders[0].member)
    await two.end(1)
    await two.end(0)
    assert (
        two.said[0][-1] == f"{began}waiting until the other founders are members; started again, it goes on"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_peer_that_waits_for_founders_ends_with_a_word(tmp_path, number, code):
    bind, other = address(), address()
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "peer.cli", "peer", "--data-dir", str(tmp_path), "--name", "a"),
            *("--bind", bind, "--bootstrap-expect", "2", "--seed", other),
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    with child, child.stderr:
        while not child.stderr.readline().startswith("warning: no bootstrap token is given"):
            assert child.poll() is None
        child.send_signal(number)
        lines = child.stderr.read().splitlines()
        assert child.wait(20) == code
    (line,) = lines
    assert line.startswith(
        "stopped before this peer entered the mesh: waiting for 1 more of 2 founders; here: a; "
    )


async def test_who_is_started_later_is_waited_for(party):
    made = party(3)
    made.start(0, 1)
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in made.tasks.values())
    made.start(2)
    assert len(roots(await made.outcomes())) == 1


FILES = [
    "founder-since",
    "founders",
    "ceremony-0000000000.key",
    "share-0000000000.key",
    "root.der",
    "node.credential",
]


@pytest.mark.parametrize("file", FILES)
async def test_a_founder_that_ends_at_any_point_goes_on(party, file, until, monkeypatch):
    monkeypatch.setattr("peer.founded.ALONE_S", 1.0)
    made = party(3)
    made.start()
    path = made.keys(0).directory / file
    await until(path.exists)
    await made.end(0)
    made.start(0)
    outcomes = await made.outcomes()
    assert len(roots(outcomes)) == 1


# A connection that is accepted in the moment in which its listener is cancelled is closed by the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("file", FILES)
async def test_all_founders_end_at_once_and_go_on(party, file, until, monkeypatch):
    monkeypatch.setattr("peer.founded.ALONE_S", 1.0)
    made = party(3)
    made.start()
    path = made.keys(1).directory / file
    await until(path.exists)
    for number in range(3):
        await made.end(number)
    made.start()
    outcomes = await made.outcomes()
    assert len(roots(outcomes)) == 1


async def test_a_port_in_use_is_told(party):
    made = party(1)
    server = await asyncio.start_server(lambda _r, _w: None, made.hosts[0], made.port)
    async with server:
        made.start()
        with pytest.raises(FoundingError, match="cannot be opened"):
            await made.tasks[0]


async def test_a_broken_list_of_founders_is_refused_by_name(party):
    made = party(2)
    made.keys(0).write(KeyFile.FOUNDERS, b"garbage")
    made.start(0)
    with pytest.raises(FoundingError, match="founders: this is not a list"):
        await made.tasks[0]
