"""The files given with `-f`: read, parsed and checked on this side, so that an error names file and field.

Invariant: either every document of every file is valid, or Failure names each fault with its file and nothing has
been sent to the peer.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from peer.commands.options import Failure
from peer.yamlfile import FILE_BYTES_MAX, YamlFileError, read_text

if TYPE_CHECKING:
    from proxy.resources import Resource, ServiceSpec

Document = Mapping[str, Any]

STDIN: Final = "-"
FILES_HELP: Final = "File of resources, directory, or - for standard input; repeatable."
FILES_MAX: Final = 1000
_SUFFIXES: Final = (".yaml", ".yml", ".json")  # JSON is YAML


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The documents of one file, not yet checked."""

    name: str
    documents: Sequence[Document]

    @property
    def holds_services(self) -> bool:
        return bool(self.documents) and all(
            "service" in each and "kind" not in each for each in self.documents
        )


def read_files(arguments: Sequence[str]) -> list[SourceFile]:
    """Every file named: "-" is standard input, a directory is its YAML and JSON files in order of name."""
    from proxy.resources import ResourceError, load_yaml

    if arguments.count(STDIN) > 1:
        raise Failure("standard input can be read only once", code=2)
    files: list[SourceFile] = []
    problems: list[str] = []
    for argument in arguments:
        for name, text in _texts(argument, problems):
            if len(files) >= FILES_MAX:
                raise Failure(f"more than {FILES_MAX} files", code=2)
            try:
                files.append(SourceFile(name, load_yaml(text, name)))
            except ResourceError as error:
                problems += error.problems
    if problems:
        raise Failure(*problems, code=2)
    return files


def read_resources(files: Sequence[SourceFile]) -> "list[Resource]":
    """The valid resources of the files, each at most once."""
    from proxy.resources import ResourceError, parse_documents

    resources: dict[str, tuple[str, Resource]] = {}
    problems: list[str] = []
    for file in files:
        if file.holds_services:
            problems.append(
                f"{file.name}: holds services; register them with: gossamer service register -f {file.name}"
            )
            continue
        try:
            found = parse_documents(file.documents, file.name)
        except ResourceError as error:
            problems += error.problems
            continue
        for resource in found:
            other, _ = resources.setdefault(resource.key, (file.name, resource))
            if other != file.name:
                problems.append(
                    f"{file.name}: {resource.kind} {resource.namespace}/{resource.name}: is in {other} too"
                )
    if problems:
        raise Failure(*problems, code=2)
    return [resource for _, resource in resources.values()]


def read_services(files: Sequence[SourceFile]) -> "list[ServiceSpec]":
    """The valid services of the files, each at most once."""
    from proxy.resources import ResourceError, parse_service_documents

    services: dict[str, tuple[str, ServiceSpec]] = {}
    problems: list[str] = []
    for file in files:
        if file.documents and all("kind" in each for each in file.documents):
            problems.append(f"{file.name}: holds resources; publish them with: gossamer apply -f {file.name}")
            continue
        try:
            found = parse_service_documents(file.documents, file.name)
        except ResourceError as error:
            problems += error.problems
            continue
        for service in found:
            other, _ = services.setdefault(service.key, (file.name, service))
            if other != file.name:
                problems.append(f"{file.name}: service {service.key}: is in {other} too")
    if problems:
        raise Failure(*problems, code=2)
    return [service for _, service in services.values()]


def source_of(files: Sequence[SourceFile]) -> str:
    """How the files are named to the peer."""
    names = ", ".join(file.name for file in files)
    return names if len(names) <= 1000 else f"{files[0].name} and {len(files) - 1} more files"


def _texts(argument: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    if argument == STDIN:
        yield from _standard_input(problems)
        return
    path = Path(argument)
    try:
        paths = (
            sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES) if path.is_dir() else [path]
        )
    except OSError as error:
        problems.append(f"{argument}: cannot be read: {error.strerror or error}")
        return
    if not paths:
        problems.append(f"{argument}: holds no YAML or JSON file")
    for each in paths:
        try:
            yield str(each), read_text(each)
        except YamlFileError as error:
            problems.append(str(error))


def _standard_input(problems: list[str]) -> Iterator[tuple[str, str]]:
    """Whatever it is, up to its end or the bound. Whoever sits at a terminal is told that it is waited for."""
    name = "standard input"
    if sys.stdin is None:  # closed by whoever started this
        problems.append(f"{name}: is closed")
        return
    if sys.stdin.isatty():
        click.echo("reading standard input, up to Ctrl-D", err=True)
    try:
        data = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        problems.append(f"{name}: cannot be read: {error.strerror or error}")
        return
    if len(data) > FILE_BYTES_MAX:
        problems.append(f"{name}: is larger than {FILE_BYTES_MAX // 1024} KiB")
        return
    yield name, data.decode("utf-8", "replace")
