"""`gossamer sim large`, `mistakes` and `validate`: the numpy tier from the command line.

`large` answers what the exact tier cannot at 100,000 nodes and more, `mistakes` how often healthy members accuse and
condemn each other where packets are lost (simulations/meanfield/mistakes.py), if wanted beside the node itself
(simulations/probed.py); `validate` asks both tiers the same questions where both can run, and draws the answers
(simulations/validation.py).

Invariant: standard output carries the table and nothing else.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from peer.commands.options import Failure, numbers

if TYPE_CHECKING:
    from simulations.meanfield.probing import Probing
    from simulations.probed import Probed

SIZES: Final = "1000,100000,1000000"
LOSSES: Final = (0.0, 0.3)
LOSSES_PROBED: Final = (0.05, 0.2, 0.3, 0.5)
LOSS_TYPICAL: Final = 0.05
EXACT_RUNS: Final = (100, 20, 4)
NODE_HOURS_MAX: Final = 1000.0


def _sizes(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    sizes = numbers(value, int)
    if min(sizes) < 32 or max(sizes) > 1_000_000:
        raise click.BadParameter("meshes have 32 to 1,000,000 nodes here")
    return sizes


_nodes: Callable[[Any], Any] = click.option(
    "--nodes", metavar="N,N,...", callback=_sizes, default=SIZES, show_default=True
)
_seed = click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)


@click.command("large")
@_nodes
@_seed
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True)
def large(nodes: tuple[int, ...], seed: int, runs: int) -> None:
    """Updates, deaths and the ends of long partitions in meshes of up to a million nodes, by the numpy tier. Prints
    Markdown."""
    try:
        import numpy as np

        from simulations.meanfield.detection import detection
        from simulations.meanfield.healing import healing
        from simulations.meanfield.parameters import Network
        from simulations.meanfield.spread import spread
    except ImportError as error:
        raise Failure(str(error)) from error
    from gossip.config import PROFILES

    began = time.process_time()
    rows: list[tuple[str, ...]] = []
    for size in nodes:
        for loss in LOSSES:
            for profile in ("lan", "memberlist"):
                update = spread(PROFILES[profile](), size, runs=runs, seed=seed, network=Network(loss=loss))
                seconds = [float(np.median(update.seconds(share))) for share in (0.5, 0.99, 1.0)]
                rounds = float(np.median(update.rounds(1.0)))
                rows.append(
                    (f"{size:,}", f"{loss:.0%}", profile, *(f"{s:.2f}" for s in seconds), f"{rounds:.0f}",
                     f"{rounds / np.log2(size):.2f}")
                )  # fmt: skip
    _print(
        ("nodes", "loss", "profile", "50 % (s)", "99 % (s)", "all (s)", "rounds, all", "rounds / log2 n"),
        rows,
    )
    rows = []
    for size in nodes:
        for profile in ("lan", "memberlist"):
            crash = detection(PROFILES[profile](), size, runs=runs, seed=seed)
            rows.append(
                (f"{size:,}", profile, f"{np.median(crash.first_verdict_s):.2f}", f"{np.median(crash.dead_at):.2f}",
                 f"{np.quantile(crash.dead_at, 0.99):.2f}", f"{crash.all_verdicts_s.max():.2f}")
            )  # fmt: skip
    _print(
        ("nodes", "profile", "first verdict (s)", "seen dead, p50 (s)", "p99 (s)", "by all, max (s)"), rows
    )
    rows = []
    for size in nodes:
        for loss in LOSSES:
            ends = [
                healing(PROFILES["lan"](), size, seed=seed + run, network=Network(loss=loss))
                for run in range(runs)
            ]
            seconds = [max(end.seconds(share) for end in ends) for share in (0.5, 1.0)]
            firsts = max(end.summoned_s for end in ends)
            rows.append((f"{size:,}", f"{loss:.0%}", "lan", f"{firsts:.2f}", *(f"{s:.2f}" for s in seconds)))
    _print(
        ("nodes", "loss", "profile", "first stream across (s)", "half healed (s)", "all healed, max (s)"),
        rows,
    )
    click.echo(f"{runs} runs each, seed {seed}, {time.process_time() - began:.0f} s of processor time")


def _print(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    _print_head(list(titles))
    for row in rows:
        _print_row(row)
    click.echo()


def _print_head(titles: Sequence[str]) -> None:
    _print_row(titles)
    click.echo("|" + " --- |" * len(titles))


def _print_row(row: Iterable[str]) -> None:
    click.echo("| " + " | ".join(row) + " |")


def _hours(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    hours = numbers(value, float)
    if len(hours) != len(LOSSES_PROBED) or not all(0 < each <= NODE_HOURS_MAX for each in hours):
        raise click.BadParameter(
            f"{len(LOSSES_PROBED)} numbers, more than 0 and at most {NODE_HOURS_MAX}: for a loss of "
            + ", ".join(f"{loss:.0%}" for loss in LOSSES_PROBED)
        )
    return hours


@click.command("mistakes")
@click.option("--nodes", type=click.IntRange(32, 4096), default=128, show_default=True)
@click.option("--hours", type=click.FloatRange(min=1.0), default=1e6, show_default=True, help="Node-hours.")
@click.option("--profile", type=click.Choice(["lan", "memberlist"]), default="lan", show_default=True)
@click.option(
    "--exact-hours", metavar="H,H,H,H", callback=_hours,
    help="Run the node itself too, for so many node-hours at 5, 20, 30 and 50 % loss, e.g. 10,8,4,1.",
)  # fmt: skip
@_seed
def mistakes(
    nodes: int, hours: float, profile: str, exact_hours: tuple[float, ...] | None, seed: int
) -> None:
    """Accusations and verdicts among healthy members at 5 % loss: scaled evidence. Prints Markdown."""
    try:
        from simulations.meanfield import mistakes as chain
        from simulations.meanfield.parameters import Network
        from simulations.meanfield.probing import probing
    except ImportError as error:
        raise Failure(str(error)) from error
    from gossip.config import PROFILES

    began = time.process_time()
    config = PROFILES[profile]()
    arrays = {loss: probing(config, Network(loss=loss), seed=seed) for loss in LOSSES_PROBED}
    exact: dict[float, Probed] = {}
    if exact_hours is not None:
        from simulations.probed import probed

        for loss, wanted in zip(LOSSES_PROBED, exact_hours, strict=True):
            exact[loss] = probed(config, Network(loss=loss), members=nodes, node_hours=wanted, seed=seed)
    _print_probing(arrays, exact)
    network = Network(loss=LOSS_TYPICAL)
    rate = arrays[LOSS_TYPICAL].expected
    found = chain.mistakes(config, nodes, network, accusations=max(100, round(rate * hours)), seed=seed)
    _print(
        ("accusers", "must be suspected for (s)", "there are so many",
         "members that suspect so long, at most, an accusation"),
        [
            (f"{place + 1}", f"{found.waits_s[place]:.2f}", f"{found.likely[place]:.3g}", f"{found.held[place]:.3g}")
            for place in range(3)
        ],
    )  # fmt: skip
    click.echo(
        f"Wrong verdicts at {LOSS_TYPICAL:.0%} loss, {nodes} members, profile {profile}: {found.played:,} accusations "
        f"were played, as many as in {found.hours_played:,.0f} node-hours. Of {found.suspecting * found.played:,.0f} "
        f"members that suspected a healthy one, {found.unended} still did when playing ended, after "
        f"{chain.SETTLED_S:g} s, the others for {found.longest_s:.2f} s at most. Upper bound of wrong verdicts in "
        f"{hours:,.0f} node-hours: {found.verdicts_per_hour * hours:.2g}."
    )
    click.echo(f"seed {seed}, {time.process_time() - began:.0f} s of processor time")


def _print_probing(arrays: "dict[float, Probing]", exact: "dict[float, Probed]") -> None:
    """How often members are accused, and what their probes ended with: of the arrays, and of the node where it ran."""
    titles = ["loss", "node-hours simulated", "pings unanswered", "probes failed", "these per node-hour",
              "accusations per node-hour, counted", "health, mean"]  # fmt: skip
    if exact:
        titles += ["the node itself, counted", "in node-hours", "its wrong verdicts"]
    rows, steps = [], []
    for loss, of in arrays.items():
        row = [f"{loss:.0%}", f"{of.node_hours:,.0f}", f"{of.unanswered:.4f}", f"{of.accuses:.3g}",
               f"{of.expected:.4g}", f"{of.accusations:.4g}", f"{of.health:.2f}"]  # fmt: skip
        if loss in exact:
            node = exact[loss]
            row += [
                f"{node.per_hour:.4g} ± {node.per_hour_error:.2g}"
                if node.accusations
                else f"0 (at most {node.per_hour_max:.2g})",
                f"{node.node_hours:g}",
                f"{node.verdicts}",
            ]
            shares = [node.share(count) for count in (*node.counts(), node.outrun)]
            steps.append((f"{loss:.0%}", "the node", *(f"{share:.4f}" for share in shares)))
        rows.append(row)
        shares = [1 - of.unanswered, of.second, of.relayed, of.streamed, of.failed, of.outrun]
        steps.append((f"{loss:.0%}", "arrays", *(f"{share:.4f}" for share in shares)))
    _print(titles, rows)
    _print(
        ("loss", "", "first ping", "second", "relay", "stream", "failed", "and outrun by a refutation"), steps
    )


def _runs(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    runs = numbers(value, int)
    if min(runs) < 1:
        raise click.BadParameter("one run or more at each size")
    return runs


@click.command("validate")
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--nodes", metavar="N,N,...", callback=_sizes, default="100,1000,10000", show_default=True)
@click.option("--runs", metavar="N,N,...", callback=_runs, help="Exact runs at each size.")
@click.option("--profile", type=click.Choice(["lan", "memberlist"]), default="lan", show_default=True)
@_seed
def validate(
    picture: Path, nodes: tuple[int, ...], runs: tuple[int, ...] | None, profile: str, seed: int
) -> None:
    """Ask the exact and the numpy tier the same questions, draw the answers to PICTURE (.png, .svg) and print how far
    the distributions overlap, as Markdown."""
    try:
        from simulations import validation
        from simulations.exact import EXACT
        from simulations.meanfield.parameters import Network
    except ImportError as error:
        raise Failure(str(error)) from error
    from gossip.config import PROFILES

    counts = EXACT_RUNS if runs is None else runs
    if len(counts) < len(nodes):
        raise click.BadParameter("one number for each of --nodes", param_hint="--runs")
    began = time.process_time()
    comparisons = validation.validate(
        EXACT,
        picture,
        config=PROFILES[profile](),
        network=Network(),
        sizes=nodes,
        exact_runs=counts[: len(nodes)],
        seed=seed,
        title=f"The node itself and the numpy tier, profile {profile}",
    )
    _print_head(validation.COLUMNS)
    for comparison in comparisons:  # each takes a while
        _print_row(comparison.row())
    click.echo()
    click.echo(f"seed {seed}, {time.process_time() - began:.0f} s of processor time")
