"""`members`, `join`, `leave`, `check`, `stat`, `edges`: the mesh as this peer sees it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from peer.commands.options import ADDRESS, CallsPeer, Failure, client_of, data_dir_option, output_option
from peer.render import Column, Row, print_data, print_notes

# Draining takes as long as the peer's drain_timeout_s, an hour at most.
LEAVE_TIMEOUT_S: Final = 3700.0


@click.command()
@data_dir_option
@output_option
def members(data_dir: Path, output: str) -> None:
    """Show the peers of the mesh."""
    with CallsPeer():
        rows = client_of(data_dir).members()
    print_data(
        rows,
        output,
        [
            Column("NAME", "name"),
            Column(
                "STATE", "state", colors={"alive": "green", "suspect": "yellow", "dead": "red", "left": "dim"}
            ),
            Column("ADDRESS", "address"),
            Column("ZONE", "zone", drop=1),
            Column("INCARNATION", "incarnation", right=True, drop=2),
            Column("BOOT", "boot", right=True, drop=3),
            Column("ID", "id", squeeze=True),
        ],
        empty="no members",
    )


@click.command()
@click.argument("seeds", nargs=-1, required=True, type=ADDRESS, metavar="HOST:PORT...")
@data_dir_option
@output_option
def join(seeds: tuple[str, ...], data_dir: Path, output: str) -> None:
    """Contact peers, after a partition or with new seeds."""
    with CallsPeer():
        result = client_of(data_dir).join(seeds)
    failed: dict[str, str] = result.get("failed") or {}
    contacted: list[str] = result.get("contacted") or []
    if output != "table":
        print_data(result, output, [])
    else:
        print_notes([f"contacted {seed}" for seed in contacted])
    if failed:
        words = "; ".join(f"{seed}: {reason}" for seed, reason in failed.items())
        raise Failure(f"could not contact {words}")


@click.command()
@click.option("--revoke", is_flag=True, help="For good: this node's key is void from now on, everywhere.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who see the revocation.")
@data_dir_option
@output_option
def leave(revoke: bool, reason: str, data_dir: Path, output: str) -> None:
    """Drain this peer, say good-bye to the mesh, and stop it.

    Returns when the peer has stopped.
    """
    if reason and not revoke:
        raise Failure("--reason is said of a --revoke", code=2)
    from peer.io.datadir import holder, wait_ended

    pid = holder(data_dir)
    with CallsPeer():
        result = client_of(data_dir).leave(revoke=revoke, reason=reason)
    if pid is not None and not wait_ended(pid, timeout_s=LEAVE_TIMEOUT_S):
        raise Failure(f"the peer (process {pid}) was told to leave, but has not stopped yet")
    if output != "table":
        print_data(result, output, [])
    else:
        print_notes(["left the mesh; the peer has stopped"])


@click.command()
@data_dir_option
@output_option
def check(data_dir: Path, output: str) -> None:
    """Check this peer and its view of the mesh.

    Exit code 1 if any check fails.
    """
    with CallsPeer():
        rows = client_of(data_dir).check()
    print_data(
        rows,
        output,
        [
            Column("CHECK", "check", fold=True),
            Column("STATUS", "status", colors={"ok": "green", "warn": "yellow", "fail": "red"}),
            Column("DETAIL", "detail", fold=True),
        ],
        empty="nothing to check",
    )
    failed = [str(row.get("check")) for row in rows if row.get("status") == "fail"]
    if failed:
        raise Failure(f"{len(failed)} of {len(rows)} checks failed: {', '.join(failed)}")


@click.command()
@data_dir_option
@output_option
def stat(data_dir: Path, output: str) -> None:
    """Show who calls whom, how well and how fast.

    Counts and latencies are since the peer started, RPS is over the last ten seconds, as this host saw it.
    """
    with CallsPeer():
        rows = client_of(data_dir).stat()
    print_data(
        rows,
        output,
        [
            Column("SOURCE", "source"),
            Column("DESTINATION", "destination"),
            Column("REQUESTS", "requests", right=True),
            Column("SUCCESS", _success, right=True),
            Column("RPS", _number("rps", 1), right=True),
            Column("P50", _milliseconds("p50_ms"), right=True),
            Column("P95", _milliseconds("p95_ms"), right=True),
            Column("P99", _milliseconds("p99_ms"), right=True),
            Column("SEEN BY", "reporter", drop=1),
        ],
        empty="no requests yet",
    )


@click.command()
@data_dir_option
@output_option
def edges(data_dir: Path, output: str) -> None:
    """Show who calls whom as whom, and whether mutual TLS protects it.

    Counts are since the peer started, as this host saw it. Between services of one host nothing is encrypted, and the
    same policies hold.
    """
    with CallsPeer():
        rows = client_of(data_dir).edges()
    print_data(
        rows,
        output,
        [
            Column("SOURCE", "source"),
            Column("DESTINATION", "destination"),
            Column("CALLS AS", "source_identity", squeeze=True),
            Column("ANSWERS AS", "destination_identity", squeeze=True),
            Column("SECURITY", "security", colors={"mutual_tls": "green", "none": "yellow"}),
            Column("REQUESTS", "requests", right=True),
            Column("SEEN BY", "reporter", drop=1),
        ],
        empty="no requests yet",
    )


def _success(row: Row) -> str:
    rate = row.get("success_rate")
    if rate is None:
        return "-"
    # 99.995 % must not read as a clean 100 %.
    percent = float(rate) * 100
    return "100%" if percent == 100 else f"{min(percent, 99.99):.2f}%"


def _number(key: str, digits: int) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        value = row.get(key)
        return "-" if value is None else f"{value:.{digits}f}"

    return show


def _milliseconds(key: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        value = row.get(key)
        if value is None:
            return "-"
        return f"{value:.1f}ms" if value < 100 else f"{value:.0f}ms"

    return show
