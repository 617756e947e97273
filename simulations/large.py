"""`gossamer sim large` and `gossamer sim validate`: the numpy tier from the command line.

`large` answers what the exact tier cannot at 100,000 nodes and more; `validate` asks both tiers the same questions
where both can run, and draws the answers (simulations/validation.py).

Invariant: standard output carries the table and nothing else.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import click

from peer.commands.options import Failure

SIZES: Final = "1000,100000,1000000"
LOSSES: Final = (0.0, 0.3)
EXACT_RUNS: Final = (100, 20, 4)


def _sizes(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(word) for word in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value}: numbers with commas between them") from error
    if not sizes or min(sizes) < 10 or max(sizes) > 1_000_000:
        raise click.BadParameter("meshes have 10 to 1,000,000 nodes here")
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
    """Updates and deaths in meshes of up to a million nodes, by the numpy tier. Prints Markdown."""
    try:
        import numpy as np

        from simulations.meanfield.detection import detection
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
    click.echo(f"{runs} runs each, seed {seed}, {time.process_time() - began:.0f} s of processor time")


def _print(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    titles = list(titles)
    click.echo("| " + " | ".join(titles) + " |")
    click.echo("|" + " --- |" * len(titles))
    for row in rows:
        click.echo("| " + " | ".join(row) + " |")
    click.echo()


@click.command("validate")
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--nodes", metavar="N,N,...", callback=_sizes, default="100,1000,10000", show_default=True)
@click.option("--runs", metavar="N,N,...", help="Exact runs at each size.")
@click.option("--profile", type=click.Choice(["lan", "memberlist"]), default="lan", show_default=True)
@_seed
def validate(picture: Path, nodes: tuple[int, ...], runs: str | None, profile: str, seed: int) -> None:
    """Ask the exact and the numpy tier the same questions, draw the answers to PICTURE (.png, .svg) and print how far
    the distributions overlap."""
    try:
        from simulations import validation
        from simulations.exact import EXACT
        from simulations.meanfield.parameters import Network
    except ImportError as error:
        raise Failure(str(error)) from error
    from gossip.config import PROFILES

    counts = EXACT_RUNS if runs is None else tuple(int(word) for word in runs.split(","))
    if len(counts) < len(nodes):
        raise Failure("--runs: one number for each of --nodes", code=2)
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
    for comparison in comparisons:
        click.echo(str(comparison))
    click.echo(f"seed {seed}, {time.process_time() - began:.0f} s of processor time")
