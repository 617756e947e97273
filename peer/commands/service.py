"""`service`: what this host offers to the mesh, and what the mesh offers."""

from collections.abc import Mapping
from pathlib import Path

import click

from peer.commands.files import read_files, read_services, source_of
from peer.commands.options import (
    NAMESPACE_DEFAULT,
    CallsPeer,
    client_of,
    data_dir_option,
    namespace_option,
    output_option,
    split_name,
)
from peer.render import Column, Row, print_data, print_lines


@click.group()
def service() -> None:
    """Services of this host and of the mesh."""


@service.command("register")
@click.option(
    "-f", "--file", "arguments", multiple=True, required=True, metavar="FILE",
    help="Service file, directory, or - for standard input; repeatable.",
)  # fmt: skip
@data_dir_option
@output_option
def register(arguments: tuple[str, ...], data_dir: Path, output: str) -> None:
    """Register services that run on this host: all of the files' or none."""
    files = read_files(arguments)
    read_services(files)
    documents = [document for file in files for document in file.documents]
    with CallsPeer():
        rows = client_of(data_dir).register(documents, source_of(files))
    if output != "table":
        print_data(rows, output, [])
        return
    print_lines([f"service {row.get('namespace')}/{row.get('name')} registered" for row in rows])


@service.command("deregister")
@click.argument("name")
@namespace_option
@data_dir_option
@output_option
def deregister(name: str, namespace: str | None, data_dir: Path, output: str) -> None:
    """Remove a service that was registered with `service register`."""
    where, name = split_name(name, namespace)
    with CallsPeer():
        row = client_of(data_dir).deregister(where or NAMESPACE_DEFAULT, name)
    if output != "table":
        print_data(row, output, [])
        return
    print_lines([f"service {where or NAMESPACE_DEFAULT}/{name} deregistered"])


@service.command("list")
@namespace_option
@data_dir_option
@output_option
def list_services(namespace: str | None, data_dir: Path, output: str) -> None:
    """Show the services of the mesh and where they run."""
    with CallsPeer():
        rows = client_of(data_dir).services()
    if namespace is not None:
        rows = [row for row in rows if row.get("namespace") == namespace]
    print_data(
        rows,
        output,
        [
            Column("NAMESPACE", "namespace"),
            Column("NAME", "name"),
            Column("NODE", "node", squeeze=True),
            Column("ADDRESS", "address"),
            Column("PORTS", _ports, squeeze=True),
            Column("HEALTH", "health", colors={"passing": "green", "failing": "red", "unknown": "yellow"}),
            Column("LABELS", "labels", squeeze=True, drop=1),
        ],
        empty="no services",
    )


def _ports(row: Row) -> str:
    """`80/http,db:5432/tcp`."""
    ports = row.get("ports")
    if not isinstance(ports, list):
        return "-"
    words = []
    for port in ports:
        if isinstance(port, Mapping):
            name = f"{port['name']}:" if port.get("name") else ""
            words.append(f"{name}{port.get('port')}/{port.get('protocol')}")
    return ",".join(words) or "-"
