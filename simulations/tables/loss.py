"""Table `loss`: nobody is slow or dead, the network loses that share of all datagrams, and segments of streams.

Invariant: every suspicion and verdict counted is about a member that runs and is not slow.
"""

from collections.abc import Iterator
from typing import Final

from gossip.member import State
from simulations.tables.ground import warm
from simulations.tables.table import NODES, PROFILE, Column, Options, Row, Table
from simulations.tables.watch import Watch

NODES_LOSSY: Final = 128
LOSSES: Final = (0.05, 0.3, 0.5)
LASTS_S: Final = 20.0
RUNS: Final = 1


def loss(options: Options) -> Iterator[Row]:
    """The rows of the table."""
    for nodes in options.sizes((NODES_LOSSY,)):
        for share in LOSSES:
            for profile in options.profiles:
                yield _lossy(options, nodes, share, profile)


def _lossy(options: Options, nodes: int, share: float, profile: str) -> Row:
    runs = options.times(RUNS)
    hours = runs * nodes * LASTS_S / 3600
    verdicts = accused = refuted = 0
    sent = 0
    for run in range(runs):
        with warm(nodes, profile=profile, seed=options.seed + run) as world:
            everybody = {host.id for host in world.hosts}
            before = sum(host.traffic.bytes_sent for host in world.hosts)
            world.network.set_loss(share)
            with Watch(world) as watch:
                world.run(LASTS_S)
            verdicts += watch.count(State.DEAD, everybody)
            accused += watch.accusations(everybody)
            refuted += sum(
                host.node.engine.statistics().refutations for host in world.hosts if host.node is not None
            )
            sent += sum(host.traffic.bytes_sent for host in world.hosts) - before
    return {
        "nodes": nodes,
        "loss": f"{share:.0%}",
        "profile": profile,
        "node_hours": hours,
        "verdicts": verdicts,
        "accused": accused,
        "accused_per_hour": accused / hours,
        "refuted_per_hour": refuted / hours,
        "bytes_per_s": sent / (runs * nodes * LASTS_S),
    }


LOSS: Final = Table(
    name="loss",
    title="Loss, and nobody slow",
    about="Uniform loss of datagrams, and of segments of streams, for 20 s; every member is healthy all the time.",
    columns=(
        NODES,
        Column(key="loss", title="loss"),
        PROFILE,
        Column(key="node_hours", title="node-hours", digits=2),
        Column(key="verdicts", title="false verdicts"),
        Column(key="accused", title="suspicions"),
        Column(key="accused_per_hour", title="suspicions per node-hour", digits=2),
        Column(key="refuted_per_hour", title="refutations per node-hour", digits=2),
        Column(key="bytes_per_s", title="UDP bytes/s per node", digits=0),
    ),
    measure=loss,
    notes=(
        "A false verdict is counted at every member that reaches it; a suspicion once, however many hear of it.",
    ),
)
