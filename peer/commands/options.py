"""Options that many commands share, and what their values mean.

Invariant: `--data-dir` (GOSSAMER_DATA_DIR) on every command that talks to a peer, `-o` on every command that prints
data; both mean the same everywhere.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from peer.units import QuantityError, parse_address, parse_duration_s, parse_percent

if TYPE_CHECKING:
    from peer.admin.client import AdminClient

DATA_DIR_DEFAULT = "gossamer-data"
NAMESPACE_DEFAULT = "default"
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", int, float)


class Failure(click.ClickException):
    """A line for the user, or several where there are several faults, and the exit code to end with."""

    def __init__(self, *lines: str, code: int = 1) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.code = code


def _data_dir(text: str) -> Path:
    """As the peer itself reads it (`peer/config_keys.py`): `~` is the home directory here too."""
    if not text or "\0" in text:
        raise click.BadParameter("must be a path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise click.BadParameter(f"names a home directory that there is not: {text[:80]!r}") from error


def data_dir_option(function: F) -> F:
    return click.option(
        "--data-dir", type=_data_dir, envvar="GOSSAMER_DATA_DIR", default=DATA_DIR_DEFAULT,
        metavar="DIR", help="Data directory of the peer (GOSSAMER_DATA_DIR; default ./gossamer-data).",
    )(function)  # fmt: skip


def output_option(function: F) -> F:
    return click.option(
        "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
        help="How to print data.",
    )(function)  # fmt: skip


def namespace_option(function: F) -> F:
    return click.option("-n", "--namespace", metavar="NS", help="Namespace.")(function)


def split_name(name: str, namespace: str | None) -> tuple[str | None, str]:
    """(namespace, name) of "name", or of "namespace/name"; None where neither it nor -n says one."""
    before, slash, after = name.rpartition("/")
    if not name or namespace == "":
        raise Failure("a name is empty" if not name else "-n: a namespace is empty", code=2)
    if not slash:
        return namespace, name
    if not before or not after or (namespace is not None and namespace != before):
        raise Failure(
            f"{name!r} is not a name in namespace {namespace}" if namespace else f"{name!r} is no name",
            code=2,
        )
    return before, after


def client_of(data_dir: Path) -> "AdminClient":
    from peer.admin.client import AdminClient

    return AdminClient(data_dir)


class CallsPeer:
    """Turns the peer's refusals into failures of the command: `with CallsPeer(): client.members()`."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        from peer.admin.client import ClientError

        if isinstance(error, ClientError):
            raise Failure(str(error), code=error.code) from error


def _quantity(name: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A click type from a reader that raises QuantityError; help calls it by that name."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except QuantityError as error:
            raise click.BadParameter(str(error)) from error

    convert.__name__ = name
    return convert


def duration(low: str, high: str) -> Callable[[str], Any]:
    """A click type: seconds from `low` to `high`, all written like 45s."""

    def read(text: str) -> float:
        seconds = parse_duration_s(text)
        if not parse_duration_s(low) <= seconds <= parse_duration_s(high):
            raise QuantityError(f"must be from {low} to {high}, is {text.strip()}")
        return seconds

    return _quantity("duration", read)


def numbers(text: str, read: Callable[[str], N]) -> tuple[N, ...]:
    """What is written like 1,2,3; `read` is `int` or `float`. Raises click.BadParameter."""
    try:
        return tuple(read(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text}: numbers with commas between them") from error


def _address_text(text: str) -> str:
    parse_address(text, GOSSIP_PORT)
    return text


GOSSIP_PORT = 7946
DURATION = _quantity("duration", parse_duration_s)
PERCENT = _quantity("percent", parse_percent)
ADDRESS = _quantity("address", _address_text)
