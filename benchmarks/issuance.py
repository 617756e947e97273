"""What it costs a mesh to record each certificate that its root signs, for several ways to do it.

    python -m benchmarks.issuance [--nodes 1000] [--identities 2] [--ttl-s 3600] [--seconds 120] [--seed 1]

The real node on the simulator's clock and network (profile `lan`, 0.2 to 0.5 ms, no loss), idle but for certificates:
each node renews each of its identities once per half-life, at random moments. Every way writes records of the size it
would have:

    certificate     each node a record for each of its certificates, with the certificate in it
    compact         the same, with only what a certificate does not share with all others
    batch           signers write them, as many in one record as datagrams carry
    page            one signer writes all of a minute in one record, which then travels in streams: what peers do

Bytes are what each node sends a second, above what it sends idle. Records are those that every node verifies and puts
on disk. Progress goes to standard error, the result to standard output.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from peer.issuelog import ENTRIES_MAX
from peer.messages import Draft
from simulations.randomness import stream
from simulations.tables.ground import warm
from simulations.world import World

CERTIFICATE_BYTES: Final = 505
COMPACT_BYTES: Final = 165  # tests/trust/test_issued.py holds it to that
BATCHED: Final = 5
SIGNERS: Final = 5
FLUSH_S: Final = 60.0
KIND: Final = "benchmark"  # unknown to every node, which keeps and passes on what it does not know
SETTLED_S: Final = 10.0
SPREAD_S: Final = 15.0  # the last ones are everywhere by then

Event = tuple[float, int, int]  # when, of which node, which of its identities
Record = tuple[float, int, str, int]  # when, by which node, its key, bytes of its payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way."""

    way: str
    records_per_s: float
    datagram_bytes_per_s: float
    stream_bytes_per_s: float
    streams_a_minute: float
    state_bytes: int  # of all certificates that are valid at one time, with records of their own or together


def renewals(nodes: int, identities: int, ttl_s: float, seconds: float, rng: random.Random) -> list[Event]:
    """Each identity is due once in half a life, at a moment that has nothing to do with the others."""
    due = ((rng.uniform(0.0, ttl_s / 2), node, each) for node in range(nodes) for each in range(identities))
    return sorted(event for event in due if event[0] < seconds)


def one_by_one(payload_bytes: int) -> Callable[[list[Event]], Iterator[Record]]:
    """Each certificate by its node, under a key that its next one replaces."""

    def records(events: list[Event]) -> Iterator[Record]:
        for at, node, identity in events:
            yield at, node, f"{identity}", payload_bytes

    return records


def in_batches(events: list[Event]) -> Iterator[Record]:
    """Each signer gets every SIGNERS-th certificate, and writes BATCHED of them as soon as it has them."""
    for signer in range(SIGNERS):
        waiting: list[float] = []
        written = 0
        for at, _, _ in events[signer::SIGNERS]:
            waiting.append(at)
            if len(waiting) == BATCHED or at - waiting[0] > FLUSH_S:
                yield at, signer, str(written), len(waiting) * COMPACT_BYTES
                waiting, written = [], written + 1


def in_pages(events: list[Event]) -> Iterator[Record]:
    """As peers do it (peer/issuances.py): one signer gets all of a minute, and writes it when that is over."""
    minutes = Counter(int(at // FLUSH_S) for at, _, _ in events)
    for minute, certificates in minutes.items():
        for begin in range(0, certificates, ENTRIES_MAX):
            size = min(certificates - begin, ENTRIES_MAX) * COMPACT_BYTES
            yield (minute + 1) * FLUSH_S, minute % SIGNERS, f"{minute}/{begin}", size


WAYS: Final[dict[str, Callable[[list[Event]], Iterator[Record]]]] = {
    "certificate": one_by_one(CERTIFICATE_BYTES),
    "compact": one_by_one(COMPACT_BYTES),
    "batch": in_batches,
    "page": in_pages,
}
STATE: Final = {"certificate": CERTIFICATE_BYTES + 170, "compact": COMPACT_BYTES + 170}


def sent(world: World) -> tuple[int, int, int]:
    """Bytes in datagrams, in streams, and streams, so far."""
    traffic = [host.traffic for host in world.hosts]
    return (
        sum(each.bytes_sent for each in traffic),
        sum(each.stream_bytes_sent for each in traffic),
        world.streams.opened,
    )


def measure(way: str, nodes: int, identities: int, ttl_s: float, seconds: float, seed: int) -> Row:
    """One mesh, idle first and then with certificates renewed."""
    events = renewals(nodes, identities, ttl_s, seconds, stream(seed, "benchmark issuance", nodes))
    records = sorted(record for record in WAYS[way](events) if record[0] <= seconds)
    entropy = stream(seed, "benchmark payloads", nodes)
    with warm(nodes, profile="lan", seed=seed, push_pull=False) as world:
        start = sent(world)
        world.run(SETTLED_S)
        idle = [(after - before) / SETTLED_S for before, after in zip(start, sent(world), strict=True)]
        before, begun = sent(world), world.now
        for at, node, key, size in records:
            world.run(max(0.0, begun + at - world.now))
            world.write(world.hosts[node], Draft(kind=KIND, key=key, payload=entropy.randbytes(size)))
        world.run(max(0.0, begun + seconds - world.now) + SPREAD_S)
        after = sent(world)
    rates = [
        (last - first - quiet * (seconds + SPREAD_S)) / seconds / nodes
        for first, last, quiet in zip(before, after, idle, strict=True)
    ]
    valid = 2 * nodes * identities
    each = STATE.get(way, COMPACT_BYTES + (170 // BATCHED if way == "batch" else 10))
    return Row(
        way=way,
        records_per_s=round(len(records) / seconds, 3),
        datagram_bytes_per_s=round(rates[0], 1),
        stream_bytes_per_s=round(rates[1], 1),
        streams_a_minute=round(rates[2] * 60, 3),
        state_bytes=valid * each,
    )


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what recording each certificate costs")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--identities", type=int, default=2)
    parser.add_argument("--ttl-s", type=float, default=3600.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    rows = []
    for way in options.ways.split(","):
        sys.stderr.write(f"{way} ... ")
        row = measure(way, options.nodes, options.identities, options.ttl_s, options.seconds, options.seed)
        sys.stderr.write(f"{row}\n")
        rows.append(row)
    if options.output == "json":
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    print("| way | records/s | datagrams (B/s) | streams (B/s) | streams a minute | state (kB) |")
    print("| :-- | --------: | --------------: | ------------: | ---------------: | ---------: |")
    for row in rows:
        print(
            f"| {row.way} | {row.records_per_s} | {row.datagram_bytes_per_s} | {row.stream_bytes_per_s} "
            f"| {row.streams_a_minute} | {row.state_bytes // 1000} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
