"""`token` and `ca`: who may join, and who certifies."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from peer.commands.options import (
    DURATION,
    CallsPeer,
    F,
    Failure,
    client_of,
    data_dir_option,
    duration,
    output_option,
)
from peer.render import Column, print_data, print_lines

_PHASES: Final = {
    "making": "the signers make a new root",
    "signing": "the old root is asked to name the new one",
    "announced": "both roots count, the old one signs",
    "overlap": "both roots count, the new one signs",
}
TOKEN_S: Final = 3600.0
BOOTSTRAP_S: Final = 86_400.0  # long enough to give it to all founders, in whatever way
_STATES: Final = {"alive": "green", "suspect": "yellow", "dead": "red", "left": "dim", "revoked": "red"}


@click.group()
def token() -> None:
    """Tokens that let a peer join the mesh."""


@token.command("create")
@click.option(
    "--service", "services", multiple=True, metavar="NAMESPACE/NAME",
    help='A service the peer may offer, with * for any part; repeatable (default "*/*").',
)  # fmt: skip
@click.option(
    "--ttl", type=duration("1s", "366d"), default=None,
    help="How long the token is good for (default 1h; 1d with --bootstrap).",
)  # fmt: skip
@click.option("--uses", type=click.IntRange(1, 1_000_000), metavar="N", help="Peers it admits (default 1).")
@click.option("--no-publish", is_flag=True, help="The peer may not publish routes and policies.")
@click.option("--no-invite", is_flag=True, help="The peer may not create tokens itself.")
@click.option(
    "--govern", is_flag=True, help="The peer governs, as this one does: all rights to publish are its."
)
@click.option(
    "--bootstrap", is_flag=True,
    help="A secret for peers that make a mesh together (--bootstrap-expect). Needs no peer.",
)  # fmt: skip
@data_dir_option
@output_option
def create(
    services: tuple[str, ...],
    ttl: float | None,
    uses: int | None,
    no_publish: bool,
    no_invite: bool,
    govern: bool,
    bootstrap: bool,
    data_dir: Path,
    output: str,
) -> None:
    """Create a join token. It is a secret; it is printed alone on standard output."""
    if bootstrap:
        if services or uses is not None or no_publish or no_invite or govern:
            raise Failure("--bootstrap says nothing of rights: give it with --ttl alone", code=2)
        from trust.bootstrap import new_bootstrap_secret

        lasts_s = BOOTSTRAP_S if ttl is None else ttl
        text = new_bootstrap_secret(secrets.token_bytes, int(time.time() + lasts_s)).text
        if output == "table":
            print_lines([text])
        else:
            print_data({"token": text}, output, [])
        return
    patterns = [name if "/" in name else f"default/{name}" for name in services] or ["*/*"]
    with CallsPeer():
        text = client_of(data_dir).token_create(
            services=patterns,
            ttl_s=TOKEN_S if ttl is None else ttl,
            uses=uses or 1,
            publish=not no_publish,
            invite=not no_invite,
            govern=govern,
        )
    if output == "table":
        print_lines([text])
    else:
        print_data({"token": text}, output, [])


@click.group()
def ca() -> None:
    """The mesh's certificate authority."""


@ca.command("status")
@data_dir_option
@output_option
def status(data_dir: Path, output: str) -> None:
    """Show the root, and who signs."""
    with CallsPeer():
        data = client_of(data_dir).ca_status()
    if output != "table":
        print_data(data, output, [])
        return
    margin = int(data.get("margin") or 0)
    print_lines(
        [
            f"mode:       {data.get('mode')}",
            f"root:       {data.get('root')}"
            + (f", called {name}" if (name := data.get("root_name")) else ""),
            f"epoch:      {data.get('epoch')}",
            f"threshold:  {data.get('threshold')} of {len(data.get('signers') or [])}",
            f"can issue:  {_issuing(bool(data.get('can_issue')), margin)}",
            f"revoked:    {data.get('revocations', 0)}",
            *_changing(data.get("ceremony")),
            *_rolling(data.get("rollover")),
            *_ordered(data.get("orders") or []),
            "",
        ]
    )
    print_data(
        data.get("signers") or [],
        output,
        [
            Column("SIGNER", "name"),
            Column("STATE", "state", colors=_STATES),
            Column("ANSWERS", lambda row: "yes" if row.get("answers") else "no"),
            Column("ID", "id", squeeze=True),
        ],
        empty="no signers known",
    )


@ca.command("issued")
@data_dir_option
@output_option
def issued(data_dir: Path, output: str) -> None:
    """List the certificates that are valid and that the signers have recorded, newest first."""
    with CallsPeer():
        rows = client_of(data_dir).ca_issued()
    print_data(
        rows,
        output,
        [
            Column("IDENTITY", "identity", fold=True),
            Column("ISSUED", lambda row: _moment(row.get("issuedAt"))),
            Column("EXPIRES", lambda row: _moment(row.get("notAfter"))),
            Column("BY", "by"),
            Column("RECORDED BY", "recordedBy"),
            Column("SERIAL", "serial", squeeze=True),
        ],
        empty="no certificate is recorded yet: signers write them down once a minute",
    )


def _moment(unix_s: Any) -> str:
    return datetime.fromtimestamp(int(unix_s or 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _changing(ceremony: dict[str, Any] | None) -> list[str]:
    if ceremony is None:
        return []
    awaited = ", ".join(ceremony.get("awaited") or [])
    words = f"to epoch {ceremony.get('epoch')}, {ceremony.get('stage')}, attempt {ceremony.get('attempt')}"
    lines = [f"changing:   {words}" + (f", waiting for {awaited}" if awaited else "")]
    if refused := ceremony.get("refused"):
        lines.append(f"refused:    what was proposed by {refused}")
    return lines


def _ordered(orders: list[dict[str, Any]]) -> list[str]:
    return [f"ordered:    {', '.join(each.get('signers') or [])}, at {each.get('by')}" for each in orders]


def _rolling(rollover: dict[str, Any] | None) -> list[str]:
    if rollover is None:
        return []
    phase = rollover.get("phase")
    lines = [f"rollover:   {_PHASES.get(str(phase), str(phase))}"]
    if rollover.get("problem"):
        lines.append(f"            {rollover['problem']}")
    if rollover.get("awaited"):
        lines.append(f"            waiting for {', '.join(rollover['awaited'])}")
    if rollover.get("endsAt"):
        left_s = max(0.0, float(rollover["endsAt"]) - time.time())
        lines.append(
            f"            {rollover.get('old')} ends in {_span(left_s)}, {rollover.get('new')} follows"
        )
    if count := int(rollover.get("waitingCount") or 0):
        lines.append(f"            not heard of at {count}: {', '.join(rollover.get('waiting') or [])}")
    return lines


def _span(seconds: float) -> str:
    from trust.errors import span

    return span(seconds)


def _issuing(can: bool, margin: int) -> str:
    if not can:
        return f"no: {max(-margin, 1)} more must answer"
    return (
        f"yes, and still if {margin} more were gone" if margin > 0 else "yes, but not if one more were gone"
    )


def _timeout_option(default: str) -> Callable[[F], F]:
    return click.option(
        "--timeout", type=duration("100ms", "1h"), default=default, show_default=True,
        help="How long to wait for it.",
    )  # fmt: skip


@ca.command("reshare")
@click.argument("signers", nargs=-1, metavar="[PEER]...")
@_timeout_option("30s")
@data_dir_option
@output_option
def reshare(signers: tuple[str, ...], timeout: float, data_dir: Path, output: str) -> None:
    """Give the root's shares to these peers, by name or id; the root stays the same.

    Without peers: to whom the signers think right, or to the same ones, which makes every share that leaked before
    worthless. The peer asked must be a signer.

    Signers carry out by themselves what they see a reason for: seats that are free, signers that are revoked or gone.
    Whatever goes further (a signer that serves is to go, somebody is to be preferred) takes the same order at as many
    signers as the threshold says; until then this ends with status 3 and the reason.
    """
    with CallsPeer():
        result = client_of(data_dir).ca_reshare(signers, timeout)
    if output != "table":
        print_data(result, output, [])
        return
    names = result.get("signers") or []
    lines = [f"epoch {result.get('epoch')}: {result.get('threshold')} of {len(names)}: {', '.join(names)}"]
    if not result.get("as_wished"):
        lines.append("not all that were wished for: the others did not take part in time")
    print_lines(lines)


@ca.command("rollover")
@click.option(
    "--overlap",
    type=DURATION,
    help="How long the old root counts beside the new one (default: ca.rollover_overlap_s).",
)
@click.option("--compromised", is_flag=True, help="Somebody else may hold the old root.")
@_timeout_option("60s")
@data_dir_option
@output_option
def rollover(overlap: float | None, compromised: bool, timeout: float, data_dir: Path, output: str) -> None:
    """Go over to a new root: the signers make another key, and the old one names it as its successor.

    Both count for the overlap. When all members have heard of the new root it signs, and everything that the old one
    signed is renewed; then the old one ends, and its shares are erased. Who was away for all of it comes back by
    itself. The peer asked must govern the mesh.

    With --compromised the overlap is a quarter of an hour at most, and older roots that count still end with it. Only
    nodes that are members now are carried over. Who is away at that time must join again with a new token, for whoever
    stole the root could name a successor too; and join tokens made so far are void. Look at the members, and revoke
    whom you do not know.
    """
    with CallsPeer():
        result = client_of(data_dir).ca_rollover(overlap, compromised, timeout)
    if output != "table":
        print_data(result, output, [])
        return
    print_lines([f"the root {result.get('new')} follows on {result.get('old')}", *_rolling(result)])


@ca.command("revoke")
@click.argument("kind", type=click.Choice(["node", "workload", "certificate", "signer"]))
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who see the revocation.")
@data_dir_option
@output_option
def revoke(kind: str, name: str, reason: str, data_dir: Path, output: str) -> None:
    """Believe a node, a workload, a certificate or a signer no more.

    NAME is a node's name or id, a workload's NAMESPACE/ACCOUNT, or a certificate's serial in hex. The peer asked must
    govern the mesh. What is revoked cannot be taken back; it spreads with the gossip, and live connections close.
    """
    with CallsPeer():
        result = client_of(data_dir).revoke(kind, name, reason)
    if output != "table":
        print_data(result, output, [])
    else:
        was = "was revoked before" if result.get("action") == "unchanged" else "is revoked"
        print_lines([f"{result.get('subject')} {was}"])
