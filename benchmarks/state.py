"""The journal: what it costs to find out that two replicas agree, to bring a fresh one up to date, and to hold it all.

    python -m benchmarks.state [--records 100000] [--writers 1000] [--peers 30] [--seed 1] [-o table|json]

Records of 100 bytes of payload, spread evenly over their writers, signed with Ed25519 by writers whose credentials the
mesh root signed. Exchanges are those of two `peer.Node`s, frame by frame, without a network in between; the fresh
node's database is a real one (SQLite, WAL, synchronous=FULL) in a temporary directory. The last row
is of real peers, started and watched as by `benchmarks.gossip`.

Progress goes to standard error, the result to standard output.
"""

import argparse
import asyncio
import gc
import json
import platform
import random
import shlex
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.gossip_measures import updates
from benchmarks.gossip_systems import Gossamer
from crdt.journal import Accept, Journal
from crdt.reconcile import Reconciliation
from crdt.record import Record, decode_record, encode_record
from gossip.config import lan
from peer.disk import joined
from peer.io.store import Batch, Store
from peer.messages import JoinSeeds, Output, Persist, SendFrame, StreamFrame, StreamOpened
from peer.node import Node
from peer.records import Registry
from trust.admission import found
from trust.authority import SoleAuthority
from trust.credential import Credential
from trust.identity import NodeIdentity
from trust.revocation import RevocationSet

START: Final = 1_800_000_000.0
PAYLOAD_BYTES: Final = 100
KIND: Final = "note"  # kept and passed on unread
DOMAIN: Final = "cluster.local"
ADDRESS: Final = ("10.0.0.1", 7946)


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured, beside its goal."""

    name: str
    value: float
    unit: str
    goal: str
    detail: str = ""


class Writers:
    """So many members of one mesh, and what each has written."""

    def __init__(self, count: int, seed: int) -> None:
        self.authority = SoleAuthority.from_seed(b"r" * 32, holder=bytes(16))
        self.rng = random.Random(seed)
        self.identities = [NodeIdentity.from_seed(self.rng.randbytes(32)) for _ in range(count)]
        self.credentials = [self._credential(number) for number in range(count)]
        self._journals = [Journal(verify=_believe) for _ in range(count)]

    def _credential(self, number: int) -> Credential:
        return found(
            self.authority,
            self.identities[number],
            f"writer-{number}",
            trust_domain=DOMAIN,
            now=int(START),
            entropy=self.rng.randbytes,
        )

    def write(self, number: int, key: str) -> Record:
        """The next record of that writer."""
        identity = self.identities[number]
        record = self._journals[number].draft(
            writer=identity.id,
            kind=KIND,
            key=key,
            payload=self.rng.randbytes(PAYLOAD_BYTES),
            now_ms=int(START * 1000),
            sign=identity.sign,
        )
        self._journals[number].merge([record], int(START * 1000))
        return record

    def write_all(self, records: int) -> list[Record]:
        """So many records, in turn over the writers."""
        count = len(self.identities)
        return [self.write(number % count, f"k{number // count}") for number in range(records)]

    def registry(self) -> Registry:
        return Registry(
            root=self.authority.root_public,
            trust_domain=DOMAIN,
            drift_ms=5000,
            revocations=RevocationSet(self.authority.root_public),
        )

    def journal(self, records: Sequence[Record]) -> Journal:
        """A replica that holds these."""
        journal = Journal(verify=_believe)
        journal.merge(records, int(START * 1000))
        for identity, credential in zip(self.identities, self.credentials, strict=True):
            journal.introduce(identity.id, credential.encode())
        return journal


def _believe(_record: Record, _now_ms: int) -> Accept:
    return Accept()


# ---------------------------------------------------------------------- two replicas


def exchange(one: Journal, other: Journal) -> tuple[int, int, float]:
    """Reconcile the two; (bytes both ways, frames, round trips until both have everything)."""
    sides = Reconciliation(one, initiator=True), Reconciliation(other, initiator=False)
    journals = one, other
    frames, sent, count, turn, last = sides[0].start(), 0, 0, 1, 0
    while frames:
        answers: list[bytes] = []
        for frame in frames:
            sent += len(frame)
            count += 1
            step = sides[turn].receive(frame)
            answers += step.send
            for delta, _ in step.deltas:
                journals[turn].absorb(delta, int(START * 1000))
                last = count
        frames, turn = answers, 1 - turn
    assert one.fingerprint() == other.fingerprint(), "the replicas do not agree"
    return sent, count, last / 2


def agreement(writers: int, seed: int) -> Iterator[Figure]:
    """What it costs to agree: where nothing differs, and where twenty records do."""
    mesh = Writers(writers, seed)
    records = mesh.write_all(10_000)
    one, other = mesh.journal(records), mesh.journal(records)
    sent, frames, _ = exchange(one, other)
    yield Figure("in sync, 10,000 records of 1,000 writers", sent, "bytes", "<= 64", f"{frames} frames")
    fresh = [mesh.write(number, "new") for number in mesh.rng.sample(range(writers), 20)]
    one.merge(fresh[:10], int(START * 1000))
    other.merge(fresh[10:], int(START * 1000))
    sent, frames, trips = exchange(one, other)
    detail = f"{frames} frames, {trips:g} round trips until both have all; "
    detail += f"the records themselves are {sum(map(_size, fresh)):,} bytes"
    yield Figure(
        "20 records different, 10 on each side", sent, "bytes", "<= 25,000, <= 3 round trips", detail
    )


def _size(record: Record) -> int:
    return len(encode_record(record))


# ---------------------------------------------------------------------- a fresh replica


def fresh_node(mesh: Writers, records: Sequence[Record]) -> Iterator[Figure]:
    """All of it to a node that has nothing: verified, merged and stored."""
    source = _node(mesh, 0, mesh.journal(records))
    registry = mesh.registry()
    target = _node(mesh, 1, Journal(verify=registry.judge), registry)
    with tempfile.TemporaryDirectory(prefix="gossamer-bench-") as directory:
        store = Store.open(Path(directory) / "data")
        spent = {"receiving": 0.0, "storing": 0.0, "sending": 0.0}
        began, wall = time.process_time(), time.perf_counter()
        source.step(START, StreamOpened(stream=2, node=target.identity.id, inbound=True))
        to_target: list[bytes] = []
        target.step(START, JoinSeeds(request=1, seeds=(ADDRESS,)))
        to_source = _frames(
            target.step(START, StreamOpened(stream=1, node=source.identity.id, inbound=False))
        )
        while to_source or to_target:
            for frame in to_source:
                at = time.process_time()
                to_target += _frames(source.step(START, StreamFrame(stream=2, data=frame)))
                spent["sending"] += time.process_time() - at
            to_source = []
            for frame in to_target:
                at = time.process_time()
                outputs = target.step(START, StreamFrame(stream=1, data=frame))
                spent["receiving"] += time.process_time() - at
                at = time.process_time()
                to_source += _frames(outputs)
                batches = [_batch(output) for output in outputs if isinstance(output, Persist)]
                if batches:
                    store.commit(joined(batches))
                spent["storing"] += time.process_time() - at
            to_target = []
        assert target.journal.fingerprint() == source.journal.fingerprint(), "the fresh node lacks something"
        took = time.process_time() - began - spent["sending"]
        wall_s = time.perf_counter() - wall
        store.close()
    detail = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items())
    detail += f"; {len(records) / took:,.0f} records/s; on the wall {wall_s:.1f} s, with the sending and every fsync"
    yield Figure(f"a fresh node takes in {len(records):,} records", took, "CPU s", "<= 30", detail)


def _node(mesh: Writers, number: int, journal: Journal, registry: Registry | None = None) -> Node:
    return Node(
        identity=mesh.identities[number],
        credential=mesh.credentials[number],
        registry=registry or mesh.registry(),
        journal=journal,
        config=lan(),
        address=ADDRESS if number == 0 else ("10.0.0.2", 7946),
        boot=1,
        zone="",
        meta={},
        rng=random.Random(number),
        now=START,
    )


def _frames(outputs: Sequence[Output]) -> list[bytes]:
    return [output.data for output in outputs if isinstance(output, SendFrame)]


def _batch(output: Persist) -> Batch:
    return Batch(
        put=tuple((r.writer, r.kind, r.key, r.seq, encode_record(r)) for r in output.put),
        delete=tuple((r.writer, r.kind, r.key) for r in output.delete),
        heads=output.heads,
        introductions=output.introductions,
    )


def merging(records: Sequence[Record]) -> Iterator[Figure]:
    """Merge without signatures, and what the records take in memory."""
    rates = []
    for _ in range(3):
        journal = Journal(verify=_believe)
        gc.collect()
        at = time.process_time()
        for start in range(0, len(records), 1000):
            journal.merge(records[start : start + 1000], int(START * 1000))
        rates.append(len(records) / (time.process_time() - at))
        assert len(journal.heads) > 0
    yield Figure("merge without signature checks", statistics.median(rates), "records/s", ">= 50,000")
    encoded = [encode_record(record) for record in records[:20_000]]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    journal = Journal(verify=_believe)
    journal.merge([decode_record(data) for data in encoded], int(START * 1000))
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    yield Figure(
        "memory of a record of 100 bytes", grown / len(encoded), "bytes", "<= 1,000", "decoded and held"
    )


# ---------------------------------------------------------------------- real peers


async def enforced(peers: int, edits: int, seed: int) -> list[Figure]:
    """Seconds from handing a policy to one peer until the last of all enforces it."""
    system = Gossamer(peers)
    async with system:
        await system.start()
        spread = await updates(system, edits, random.Random(seed))
    took = sorted(each.last_s for each in spread)
    name = f"applied at one of {peers} real peers, enforced at the last"
    return [
        Figure(name, statistics.median(took), "s", "<= 0.5", f"most {took[-1]:.2f} s of {edits}, profile lan")
    ]


def told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measured(options: argparse.Namespace) -> Iterator[Figure]:
    """All figures, one after the other."""
    yield from agreement(options.writers, options.seed)
    told(f"  {options.records:,} records are being written")
    mesh = Writers(options.writers, options.seed)
    records = mesh.write_all(options.records)
    yield from fresh_node(mesh, records)
    yield from merging(records)
    if options.peers:
        yield from asyncio.run(enforced(options.peers, options.edits, options.seed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--writers", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=30, help="real peers; 0 leaves them out")
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    figures = []
    for figure in measured(options):
        told(f"  {figure.name}: {figure.value:,.4g} {figure.unit}")
        figures.append(figure)
    if options.output == "json":
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
        return
    print("| figure | measured | goal | |\n| --- | ---: | ---: | --- |")
    for each in figures:
        value = f"{each.value:,.2f}" if each.value < 100 else f"{each.value:,.0f}"
        print(f"| {each.name} | {value} {each.unit} | {each.goal} | {each.detail} |")
    words = shlex.join(["python", "-m", "benchmarks.state", *sys.argv[1:]])
    print(f"\n`{words}`, {time.strftime('%Y-%m-%d')}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
