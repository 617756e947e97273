"""`diff` and `history`: what applying files would change, and what has changed so far."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from peer.commands.files import FILES_HELP, read_files, read_resources
from peer.commands.kinds import read_key
from peer.commands.options import (
    CallsPeer,
    Failure,
    client_of,
    data_dir_option,
    namespace_option,
    output_option,
)
from peer.commands.policy import author_of
from peer.render import Column, print_data, print_diff, print_lines, print_notes, unified

if TYPE_CHECKING:
    from proxy.resources import Resource

EXIT_DIFFERENT: Final = 1
EXIT_FAILED: Final = 2


@click.command()
@click.option("-f", "--file", "arguments", multiple=True, required=True, metavar="FILE", help=FILES_HELP)
@data_dir_option
@output_option
def diff(arguments: tuple[str, ...], data_dir: Path, output: str) -> None:
    """Show what applying files would change.

    Each resource is compared with what the mesh holds, as this peer knows it. Exit code 0: nothing would change; 1:
    something would; 2: the files are invalid or the peer could not be asked.
    """
    resources = read_resources(read_files(arguments))
    keys = [(resource.kind, resource.namespace, resource.name) for resource in resources]
    try:
        with CallsPeer():
            found = client_of(data_dir).find(keys)
    except Failure as failure:  # 1 is a difference here, as with diff(1) and kubectl
        raise Failure(*failure.lines, code=EXIT_FAILED) from failure
    rows = [_row(resource, held) for resource, held in zip(resources, found, strict=True)]
    if output != "table":
        print_data(rows, output, [])
    else:
        _show(rows)
    if any(row["action"] != "unchanged" for row in rows):
        raise click.exceptions.Exit(EXIT_DIFFERENT)


@click.command()
@click.argument("kind")
@click.argument("name")
@click.option("--diff", "with_diff", is_flag=True, help="Show what each version changed.")
@namespace_option
@data_dir_option
@output_option
def history(
    kind: str, name: str, with_diff: bool, namespace: str | None, data_dir: Path, output: str
) -> None:
    """Show the versions of a resource, the latest first.

    They are those this peer has seen and still remembers (the last ten that were replaced): a peer that joined
    later, or was away, has seen fewer. -o json and -o yaml have the documents.
    """
    key = read_key(kind, name, namespace)
    with CallsPeer():
        rows = client_of(data_dir).history(*key)
    if with_diff:
        rows = _with_diffs(rows, "/".join(key))
    if output != "table":
        print_data(rows, output, [])
    elif with_diff:
        for row in rows:
            print_lines([_title(row)])
            print_diff(row["diff"])
    else:
        print_data(rows, output, _HISTORY)


_HISTORY: Final = [
    Column("WRITTEN", "writtenAt"),
    Column("AUTHOR", author_of, squeeze=True),
    Column("ACTION", "action", colors={"deleted": "red"}),
    Column("STATE", "state", colors={"current": "green", "conflicting": "yellow", "ignored": "red"}),
    Column("VERSION", "version", squeeze=True),
    Column("REPLACED", "replaced", squeeze=True, drop=1),
]


def _with_diffs(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Each with what it changed in the first version it replaced of which the document is known."""
    documents = {row["version"]: row["document"] for row in rows}
    compared = []
    for row in rows:
        before = next((each for each in row["replaced"] if documents.get(each) is not None), None)
        text = unified(
            documents[before] if before is not None else None,
            row["document"],
            (f"{name}@{before}", f"{name}@{row['version']}"),
        )
        compared.append(row | {"diff": text})
    return compared


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['action']} by {author_of(row)} at {row['writtenAt']}, {row['state']}: {row['version']}"


def _row(resource: "Resource", held: Mapping[str, Any] | None) -> dict[str, Any]:
    name = f"{resource.kind}/{resource.namespace}/{resource.name}"
    status = held.get("status") if held is not None else None
    conflict = isinstance(status, Mapping) and bool(status.get("conflict"))
    there = None if held is None else {key: value for key, value in held.items() if key != "status"}
    text = unified(there, dict(resource.document), (f"mesh/{name}", f"file/{name}"))
    changed = "changed" if text or conflict else "unchanged"
    return {
        "kind": resource.kind,
        "namespace": resource.namespace,
        "name": resource.name,
        "action": "created" if held is None else changed,
        "conflict": conflict,
        "diff": text,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print_diff(row["diff"])
        if row["conflict"]:
            name = f"{row['kind']} {row['namespace']}/{row['name']}"
            words = "compared with the one in force; applying the file settles them"
            print_notes([f"{name} has concurrent edits in the mesh: {words}"])
    counts = Counter(row["action"] for row in rows)
    print_notes([", ".join(f"{counts[word]} {word}" for word in ("created", "changed", "unchanged"))])
