"""The `gossamer` command: one table of commands, loaded when they run, and one place where every error ends.

Starting quickly matters more than anything a command line does, so this module imports click and little else: a
command's module is imported when the command is run (or its help is shown), and modules import what is
heavy inside the command. Other packages add command groups through the entry points `gossamer.commands`.

Invariant: the process ends with 0 done, 1 failed, 2 wrong use or invalid input, 3 not converged in time (or 130 and
141 for an interrupt and a closed pipe, as shells have it), and with at most one line `error: ...` on standard
error; a traceback is shown only with --debug or GOSSAMER_DEBUG=1.
"""

import contextlib
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from peer.commands.options import EXIT_INTERRUPTED, Failure
from peer.render import safe

COMMANDS: Final = {
    "peer": "peer.commands.daemon:peer",
    "demo": "peer.commands.daemon:demo",
    "token": "peer.commands.trust:token",
    "ca": "peer.commands.trust:ca",
    "author": "peer.commands.author:author",
    "members": "peer.commands.mesh:members",
    "join": "peer.commands.mesh:join",
    "leave": "peer.commands.mesh:leave",
    "upgrade": "peer.commands.daemon:upgrade",
    "check": "peer.commands.mesh:check",
    "stat": "peer.commands.mesh:stat",
    "edges": "peer.commands.mesh:edges",
    "service": "peer.commands.service:service",
    "apply": "peer.commands.policy:apply",
    "get": "peer.commands.policy:get",
    "describe": "peer.commands.policy:describe",
    "diff": "peer.commands.compare:diff",
    "history": "peer.commands.compare:history",
    "delete": "peer.commands.policy:delete",
    "validate": "peer.commands.policy:validate",
}
ENTRY_POINTS: Final = "gossamer.commands"
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_PIPE: Final = 141  # 128 + SIGPIPE


class _ClosedPipeError(Exception):
    """Whoever read standard output has stopped reading."""


class Commands(click.Group):
    """The root group: commands by name, loaded when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = COMMANDS.get(cmd_name)
        if target is None:
            return _load_plugin(cmd_name)
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(unknown_command(name, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:  # --help is printed here already
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            raise _ClosedPipeError from error  # click would end the process with 1

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ClosedPipeError from error


def unknown_command(name: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "see gossamer --help"
    return f"there is no command {name!r} ({hint})"


def _plugins() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in COMMANDS}


def _load_plugin(name: str) -> click.Command | None:
    entry = _plugins().get(name)
    if entry is None:
        return None
    try:
        command = entry.load()
    except (ImportError, AttributeError) as error:
        raise click.ClickException(f"command {name} ({entry.value}) cannot be loaded: {error}") from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"command {name} ({entry.value}) is not a click command")
    return command


def _version() -> str:
    from importlib.metadata import version

    return version("gossamer-mesh")


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"gossamer {_version()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
@click.option("--debug", is_flag=True, help="Show tracebacks of errors (or GOSSAMER_DEBUG=1).")
def cli(debug: bool) -> None:
    """Gossamer: a service mesh with no control plane.

    Every host runs one peer. Commands talk to the local one through its data directory, named by --data-dir or
    GOSSAMER_DATA_DIR (default ./gossamer-data).
    """
    if debug:
        os.environ["GOSSAMER_DEBUG"] = "1"


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and say the exit code; every error has been told by then."""
    try:
        result = cli.main(args=arguments, prog_name="gossamer", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except (_ClosedPipeError, BrokenPipeError):
        _silence_stdout()
        return EXIT_PIPE
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except Failure as failure:
        _debug_traceback()
        return _tell(failure.lines, failure.code)
    except click.ClickException as error:
        _debug_traceback()
        return _tell([_one_line(error)], error.exit_code)
    except (
        Exception
    ) as error:  # the last resort: whatever is wrong, a user gets one line, and --debug the rest
        if _debug_traceback():
            return EXIT_FAILED
        if isinstance(error, OSError) and _stdout_fails():
            _silence_stdout()
            return _tell([f"standard output cannot be written: {error.strerror or error}"], EXIT_FAILED)
        detail = f"{type(error).__name__}: {error}".rstrip(": ")
        return _tell([f"internal error: {detail} (run with --debug to see where)"], EXIT_FAILED)
    return result if isinstance(result, int) else 0


def main() -> None:
    """Console script."""
    open_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name is no error
    sys.exit(run())


def open_standard_descriptors() -> None:
    """Streams that whoever started this has closed (`>&-`) lead nowhere. Else the next file opened would get their
    number, and a peer would write its access log into its own state. `sys.stdin` stays None, so that a closed
    standard input can be told from an empty one."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # it gets the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _one_line(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = (
            f"{message.rstrip('.')} (see {error.ctx.command_path} --help)"
            if "--help" not in message
            else message
        )
    return message


def _tell(messages: Sequence[str], code: int) -> int:
    with contextlib.suppress(OSError):  # nobody hears it; the code still says how it ended
        for message in messages:
            click.echo("error: " + safe(" ".join(message.split())), err=True)
    return code


def _debug_traceback() -> bool:
    if os.environ.get("GOSSAMER_DEBUG", "") in ("", "0"):
        return False
    import traceback

    traceback.print_exc()
    return True


def _stdout_fails() -> bool:
    """Whether it was standard output that failed: it fails again, at what it still holds or (PYTHONUNBUFFERED) anew."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.write_through:
            sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _silence_stdout() -> None:
    """Nobody reads any more: let the interpreter's own flush at exit go nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # standard output is no file (a test's buffer)


if __name__ == "__main__":
    main()
