"""Table `spread`: how one record reaches everybody.

A node writes a record small enough for a datagram; each other node is watched until it takes it in (it hands it to
its disk). A round is a generation of the epidemic: the writer is 0, whoever has it from a node of generation g first is
g + 1, which is what the log2 n of the theory counts (Karp et al., FOCS 2000), however long a node keeps a thing
before it tells it on. Whom a node had it from is asked of its engine. What came by a stream, because the push
missed a node and the fingerprints told, has no generation; the table says how many had it so.

Invariant: a share p is reached when at least p of the other live nodes have the record.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from crdt.record import Record, encode_record
from peer.messages import Draft, Output, Persist, Written
from simulations.faults import NOTE
from simulations.host import Host
from simulations.randomness import stream
from simulations.tables.ground import warm
from simulations.tables.summary import largest, median, quantile
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table
from simulations.world import World

LOSSES: Final = (0.0, 0.3, 0.5)
# More nodes with loss only with --large: a lossy mesh is busy with suspicions, of n members at n members.
LOSSY_NODES_MAX: Final = {0.0: math.inf, 0.3: 1000, 0.5: 300}
UPDATES: Final = 5
WITHIN_S: Final = 120.0
REST_S: Final = 3.0
RECORD_BYTES: Final = 200
_DIGEST_BYTES: Final = 16  # gossip/conversation.py


@dataclass(slots=True)
class _Update:
    """One record on its way: seconds until each host has it."""

    record: Record | None = None
    seen: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Tally:
    """All updates of one mesh."""

    half: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    everybody: list[float] = field(default_factory=list)
    rounds_half: list[float] = field(default_factory=list)
    rounds_most: list[float] = field(default_factory=list)
    rounds_all: list[float] = field(default_factory=list)
    by_stream: int = 0
    missed: int = 0


def spread(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes((128, 1000), (10_000,)):
        for loss in LOSSES:
            if nodes > LOSSY_NODES_MAX[loss] and not options.large:
                continue
            for profile in options.profiles:
                yield _spread(options, nodes, loss, profile)


def _spread(options: Options, nodes: int, loss: float, profile: str) -> Row:
    tally = _Tally()
    with warm(nodes, profile=profile, seed=options.seed) as world:
        rng = stream(options.seed, "table spread", nodes)
        for number in range(options.times(UPDATES)):
            _update(world, world.hosts[rng.randrange(nodes)], number, loss, tally)
            world.run(REST_S + rng.random())
        gossip_interval_s = world.config.gossip_interval_s
    everybody, rounds = median(tally.everybody), median(tally.rounds_all)
    return {
        "nodes": nodes,
        "loss": f"{loss:.0%}",
        "profile": profile,
        "half": median(tally.half),
        "most": median(tally.most),
        "everybody": everybody,
        "everybody_max": largest(tally.everybody),
        "intervals": None if everybody is None else everybody / gossip_interval_s,
        "rounds_half": median(tally.rounds_half),
        "rounds_most": median(tally.rounds_most),
        "rounds_all": rounds,
        "log2": math.log2(nodes),
        "against": None if rounds is None else rounds / math.log2(nodes),
        "by_stream": tally.by_stream,
        "missed": tally.missed,
    }


def _update(world: World, writer: Host, number: int, loss: float, tally: _Tally) -> None:
    """Let one node write, with that loss from now until all have it."""
    update, others, since = _Update(), len(world.live()) - 1, world.now

    def took_in(host: Host, output: Output) -> None:
        if type(output) is not Persist or update.record is None or host is writer:
            return
        if any(record.dot == update.record.dot for record in output.put):
            update.seen.setdefault(host.index, world.now - since)

    def written(host: Host, answer: Written) -> None:
        if host is writer and answer.records:
            update.record = answer.records[0]

    world.network.set_loss(loss)
    world.on_output = took_in
    world.on_written.append(written)
    payload = b"." * RECORD_BYTES
    world.write(writer, Draft(kind=NOTE, key=f"update {number}", payload=payload))
    world.run_until(lambda: len(update.seen) == others, within_s=WITHIN_S, grain_s=0.02)
    world.on_written.remove(written)
    world.on_output = None
    world.network.set_loss(0.0)
    _count(world, writer, update, others, tally)


def _count(world: World, writer: Host, update: _Update, others: int, tally: _Tally) -> None:
    assert update.record is not None, "a record that was wanted is written at once"
    generations = _generations(world, writer, update.record)
    reached = [generations[index] for index in update.seen if index in generations]
    missing = [math.inf] * (others - len(update.seen))
    for share, seconds, rounds in (
        (0.5, tally.half, tally.rounds_half),
        (0.99, tally.most, tally.rounds_most),
        (1.0, tally.everybody, tally.rounds_all),
    ):
        at = quantile([*update.seen.values(), *missing], share)
        if at is not None and at < math.inf:
            seconds.append(at)
        generation = quantile(reached, share)
        if generation is not None:
            rounds.append(generation)
    tally.by_stream += len(update.seen) - len(reached)
    tally.missed += len(missing)


def _generations(world: World, writer: Host, record: Record) -> Mapping[int, int]:
    """The generation of each host that was pushed the record."""
    digest = blake2b(encode_record(record), digest_size=_DIGEST_BYTES).digest()
    by_id = {host.id: host for host in world.live()}
    tellers: dict[int, Host] = {}
    for host in by_id.values():
        assert host.node is not None, "live hosts have nodes"
        teller = host.node.engine._conversation._heard.get(digest)
        if teller is not None and host is not writer and teller in by_id:
            tellers[host.index] = by_id[teller]
    generations = {writer.index: 0}
    for index in tellers:
        _settle(index, tellers, generations)
    del generations[writer.index]
    return generations


def _settle(index: int, tellers: Mapping[int, Host], generations: dict[int, int]) -> None:
    """Follow who told whom up to one whose generation is known; one who had it by a stream begins anew from 0, and so
    is not known."""
    path = []
    while index not in generations:
        path.append(index)
        teller = tellers.get(index)
        if teller is None:
            return
        index = teller.index
    generation = generations[index]
    for each in reversed(path):
        generation += 1
        generations[each] = generation


SPREAD: Final = Table(
    name="spread",
    title="One update",
    about=(
        "A random node writes a record of 200 bytes; seconds from the request until so large a share of the others "
        "has it, and rounds. A round is a generation: who was told first by a node of generation g is g + 1, the "
        "writer is 0. Medians over the updates; the loss begins with the write."
    ),
    columns=(
        NODES,
        Column(key="loss", title="loss"),
        PROFILE,
        Column(key="half", title="50 % (s)", digits=2),
        Column(key="most", title="99 % (s)", digits=2),
        Column(key="everybody", title="all (s)", digits=2),
        Column(key="everybody_max", title="all, max (s)", digits=2),
        Column(key="intervals", title="all, in gossip intervals", digits=1),
        Column(key="rounds_half", title="rounds, 50 %"),
        Column(key="rounds_most", title="rounds, 99 %"),
        Column(key="rounds_all", title="rounds, all"),
        Column(key="log2", title="log2 n", digits=1),
        Column(key="against", title="rounds / log2 n", digits=2),
        Column(key="by_stream", title="had it by stream"),
        Column(key="missed", title="missed"),
    ),
    measure=spread,
    notes=("The rounds leave out the nodes that had the record by a stream, and those told by them.",),
)
