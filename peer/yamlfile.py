"""Reading a YAML file whose keys are known one by one: with line numbers, and without YAML's silent surprises.

PyYAML lets the last of two equal keys win and forgets where a value stood. Here the node tree is walked for the top
level and for known sections; values below are constructed by the safe loader.

Invariant: a returned entry has a unique name and the line it was written on; anything else raises YamlFileError
naming the file. Bounded: FILE_BYTES_MAX. Nothing but a regular file is opened for reading, so that nobody waits for a
pipe or a device whose other end nobody has; a pipe that was open when this process began has one.
"""

import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import yaml

FILE_BYTES_MAX: Final = 1024 * 1024


_KINDS: Final = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
}


class NotAFileError(OSError):
    """It is there, and no regular file. `strerror` says what it is."""


class YamlFileError(Exception):
    """The file cannot be read as a mapping; the message names it, with the line where there is one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: "name", or "section.name" for what stands in a section."""

    name: str
    value: Any
    line: int


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading; waits for no other end. Raises OSError, NotAFileError among them.

    `/dev/stdin` and `/dev/fd/N` may also be pipes, as of `-f <(...)` in a shell: somebody writes to them already."""
    if stat.S_ISFIFO(path.stat().st_mode) and _is_inherited(path):
        return path.open("rb")
    _check_regular(path.stat())  # opening a device may already do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(descriptor))  # what was opened, should the name mean another one by now
    except NotAFileError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _is_inherited(path: Path) -> bool:
    """It names a descriptor of this process, by /proc/self/fd or a link there, and no pipe in the file system."""
    named = path.readlink() if path.is_symlink() else path
    return Path("/proc/self/fd").resolve() in (path.parent.resolve(), named.parent.resolve())


def _check_regular(status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise NotAFileError(0, f"it is {_KINDS.get(kind, 'something else')} and not a file")


def read_text(path: Path, *, bytes_max: int = FILE_BYTES_MAX) -> str:
    """The text of a small UTF-8 file; one that is too large is not read. Raises YamlFileError."""
    try:
        with open_regular(path) as stream:
            large = os.fstat(stream.fileno()).st_size > bytes_max
            data = b"" if large else stream.read(bytes_max + 1)  # it may grow, or be of /proc and say no size
    except OSError as error:
        raise YamlFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if large or len(data) > bytes_max:
        raise YamlFileError(f"{path}: is larger than {bytes_max // 1024} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlFileError(f"{path}: is not UTF-8 text (byte {error.start})") from error


def read_mapping(path: Path, *, sections: Container[str]) -> tuple[Entry, ...]:
    """The entries of a YAML mapping; a key in `sections` that holds a mapping gives entries "section.key"."""
    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise YamlFileError(f"{path}: is not valid YAML: {_problem(error)}") from error
    try:
        root = loader.get_single_node()
        entries = tuple(_entries(loader, root, sections, path)) if root is not None else ()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise YamlFileError(f"{path}{line}: is not valid YAML: {_problem(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: the safe loader's own for impossible dates and numbers
        raise YamlFileError(f"{path}: is not valid YAML: {_problem(error)}") from error
    finally:
        loader.dispose()
    seen: dict[str, int] = {}
    for entry in entries:
        if entry.name in seen:
            first = seen[entry.name]
            raise YamlFileError(f"{path}:{entry.line}: {entry.name}: is given twice (first in line {first})")
        seen[entry.name] = entry.line
    return entries


def _entries(
    loader: yaml.SafeLoader, root: yaml.Node, sections: Container[str], path: Path
) -> Iterator[Entry]:
    for name, node, line in _items(root, path):
        if name in sections and isinstance(node, yaml.MappingNode):
            for key, value, key_line in _items(node, path):
                yield Entry(f"{name}.{key}", loader.construct_object(value, deep=True), key_line)
        else:
            value = loader.construct_object(node, deep=True)
            if not (name in sections and value is None):  # an empty section is no section
                yield Entry(name, value, line)


def _items(node: yaml.Node, path: Path) -> Iterator[tuple[str, yaml.Node, int]]:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise YamlFileError(f"{path}:{line}: must be a mapping of keys")
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlFileError(f"{path}:{line}: a key must be plain text")
        yield key.value, value, line


def _problem(error: Exception) -> str:
    problem = getattr(error, "problem", None)
    return str(problem or error).splitlines()[0] if str(problem or error) else type(error).__name__
