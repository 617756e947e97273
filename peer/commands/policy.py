"""`apply`, `get`, `describe`, `delete`, `validate`: routes and policies."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from peer.commands.author import sign_resources
from peer.commands.files import FILES_HELP, read_files, read_resources, read_services, source_of
from peer.commands.kinds import ALL, read_key, read_kind
from peer.commands.options import (
    CallsPeer,
    Failure,
    client_of,
    data_dir_option,
    namespace_option,
    output_option,
    split_name,
)
from peer.commands.waiting import follow, wait_options
from peer.render import Column, print_data, print_documents, print_lines
from peer.units import format_age

_COLORS = {
    "active": "green",
    "accepted": "green",
    "conflict": "yellow",
    "quarantined": "red",
    "rejected": "red",
}


@click.command()
@click.option("-f", "--file", "arguments", multiple=True, required=True, metavar="FILE", help=FILES_HELP)
@wait_options
@click.option(
    "--author-key", type=click.Path(path_type=Path), metavar="FILE",
    help="Sign with this key (see `gossamer author`): the author's rights count, not this peer's.",
)  # fmt: skip
@data_dir_option
@output_option
def apply(
    arguments: tuple[str, ...],
    wait: float | None,
    timeout: float,
    author_key: Path | None,
    data_dir: Path,
    output: str,
) -> None:
    """Publish routes and policies.

    All of the files' are published or none, and they are on this peer's disk when the command returns. With
    --wait, exit code 3 means that they are published but that too few enforce them yet. All live peers are asked; of
    more than 300 a random sample, and the share of all is an estimate, told with its 95 % interval.
    """
    files = read_files(arguments)
    resources = read_resources(files)
    documents: Sequence[Mapping[str, Any]] = [resource.document for resource in resources]
    client = client_of(data_dir)
    if author_key is not None:
        with CallsPeer():
            status = client.ca_status()
            root = bytes.fromhex(status.get("mesh") or status["root"])
            documents = sign_resources(resources, author_key, root)
    follow(
        lambda progress: client.apply(
            documents, source_of(files), wait_percent=wait, timeout_s=timeout, progress=progress
        ),
        wait,
        lambda rows: _show_actions(rows, output),
    )


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@namespace_option
@data_dir_option
@output_option
def get(kind: str, name: str | None, namespace: str | None, data_dir: Path, output: str) -> None:
    """Show resources of a KIND, or `all`.

    They are of every namespace unless -n names one. With -o yaml they are printed as `apply -f -` takes them back.
    """
    wanted = read_kind(kind, several=True)
    if name is not None:
        namespace, name = split_name(name, namespace)
    with CallsPeer():
        rows = client_of(data_dir).get(wanted, namespace, name)
    if name is not None and not rows:
        raise Failure(f"there is no {wanted if wanted != ALL else 'resource'} {_where(namespace, name)}")
    if output != "table":
        print_documents(rows, output)
        return
    columns = [
        Column("NAMESPACE", lambda row: _metadata(row, "namespace")),
        Column("NAME", lambda row: _metadata(row, "name")),
        Column("STATUS", _status, squeeze=True, colors=_COLORS),
        Column("AUTHOR", lambda row: author_of(_status_of(row)), squeeze=True),
        Column("AGE", _age, right=True),
    ]
    if wanted == ALL:
        columns.insert(0, Column("KIND", "kind"))
    where = f" in namespace {namespace}" if namespace else ""
    print_data(rows, output, columns, empty=f"no {'resources' if wanted == ALL else wanted}{where}")


@click.command()
@click.argument("kind")
@click.argument("name")
@namespace_option
@data_dir_option
@output_option
def describe(kind: str, name: str, namespace: str | None, data_dir: Path, output: str) -> None:
    """Show one resource: author, status here, conflicts, and which peers hold and enforce it.

    Every live peer is asked (of more than 300 a random sample); one that does not answer in two seconds is unreachable.
    """
    key = read_key(kind, name, namespace)
    with CallsPeer():
        row = client_of(data_dir).describe(*key)
    if output == "table":
        print_data(_grouped(row), "yaml", [])
    else:
        print_data(row, output, [])


@click.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("-f", "--file", "arguments", multiple=True, metavar="FILE", help=FILES_HELP)
@wait_options
@namespace_option
@data_dir_option
@output_option
def delete(
    kind: str | None,
    name: str | None,
    arguments: tuple[str, ...],
    wait: float | None,
    timeout: float,
    namespace: str | None,
    data_dir: Path,
    output: str,
) -> None:
    """Delete a resource by KIND and NAME, or those in files.

    All that are there are deleted at once, in one write. Those that are not are named, and the exit code is 1.
    """
    keys: list[tuple[str, str, str]] = []
    if arguments:
        if kind is not None:
            raise Failure("give either KIND and NAME, or -f", code=2)
        resources = read_resources(read_files(arguments))
        keys = [(resource.kind, resource.namespace, resource.name) for resource in resources]
    elif kind is None or name is None:
        raise Failure("what to delete? give KIND and NAME, or -f FILE", code=2)
    else:
        keys = [read_key(kind, name, namespace)]
    client = client_of(data_dir)
    rows = follow(
        lambda progress: client.delete(keys, wait_percent=wait, timeout_s=timeout, progress=progress),
        wait,
        lambda rows: _show_actions([row for row in rows if row.get("action") != "absent"], output),
    )
    absent = [row for row in rows if row.get("action") == "absent"]
    if absent:  # the rest is deleted: what is gone already must not keep it alive
        raise Failure(
            *(f"there is no {row.get('kind')} {row.get('namespace')}/{row.get('name')}" for row in absent)
        )


@click.command()
@click.option("-f", "--file", "arguments", multiple=True, required=True, metavar="FILE", help=FILES_HELP)
@output_option
def validate(arguments: tuple[str, ...], output: str) -> None:
    """Check files of resources or services without a peer."""
    files = read_files(arguments)
    services = [file for file in files if file.holds_services]
    others = [file for file in files if not file.holds_services]
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    try:
        rows += [
            {"kind": each.kind, "namespace": each.namespace, "name": each.name}
            for each in read_resources(others)
        ]
    except Failure as error:
        problems += error.lines
    try:
        rows += [
            {"kind": "service", "namespace": each.namespace, "name": each.name}
            for each in read_services(services)
        ]
    except Failure as error:
        problems += error.lines
    if problems:
        raise Failure(*problems, code=2)
    if output != "table":
        print_data([row | {"valid": True} for row in rows], output, [])
    else:
        print_lines([f"{row['kind']} {row['namespace']}/{row['name']} is valid" for row in rows])


def _grouped(row: Mapping[str, Any]) -> dict[str, Any]:
    """For people: names of members by how far they are."""
    members = row.get("members")
    if not isinstance(members, Mapping):
        return dict(row)
    groups: dict[str, list[str]] = {}
    for each in members.get("nodes") or []:
        groups.setdefault(str(each.get("state")), []).append(str(each.get("node")))
    shown = {key: value for key, value in members.items() if key != "nodes"}
    return dict(row) | {"members": shown | groups}


def _show_actions(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    if output != "table":
        print_data(rows, output, [])
    else:
        print_lines([_action(row) for row in rows])


def _action(row: Mapping[str, Any]) -> str:
    return f"{row.get('kind')} {row.get('namespace')}/{row.get('name')} {row.get('action')}"


def _where(namespace: str | None, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _metadata(row: Mapping[str, Any], key: str) -> str:
    metadata = row.get("metadata")
    return str(metadata.get(key, "-")) if isinstance(metadata, Mapping) else "-"


def _status_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    status = row.get("status")
    return status if isinstance(status, Mapping) else {}


def _status(row: Mapping[str, Any]) -> str:
    """`conflict` (two edits that do not know each other, settled by the next one), `rejected`, `accepted`, or
    `pending` while this host has not compiled it; with the reason of the first condition that does not hold."""
    status = _status_of(row)
    if status.get("conflict"):
        return "conflict"
    conditions = status.get("conditions") or []
    broken = [each for each in conditions if isinstance(each, Mapping) and each.get("status") == "False"]
    accepted = status.get("accepted")
    word = "pending" if accepted is None else "accepted" if accepted else "rejected"
    return f"{word} ({broken[0].get('reason')})" if broken else word


def author_of(status: Mapping[str, Any]) -> str:
    """A node by its name, a person by the key that Capabilities name her by."""
    return str(status.get("authorName") or status.get("authorKey") or status.get("author") or "-")


def _age(row: Mapping[str, Any]) -> str:
    try:
        written_at = datetime.fromisoformat(str(_status_of(row).get("writtenAt")))
    except ValueError:
        return "-"
    return format_age((datetime.now(UTC) - written_at.astimezone(UTC)).total_seconds())
