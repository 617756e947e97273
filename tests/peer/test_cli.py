"""The command line against a real admin server: what it prints, where, and the code it ends with."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest

from peer.cli import COMMANDS, cli
from peer.config import flag_of
from peer.config_keys import KEYS
from tests.peer.fakepeer import NODE, Gossamer, ServedPeer

GOSSAMER = [sys.executable, "-m", "peer.cli"]


@pytest.fixture
def served(tmp_path):
    with ServedPeer(tmp_path) as peer:
        yield peer


@pytest.fixture
def gossamer(served, capsys, monkeypatch) -> Gossamer:
    return Gossamer(served, capsys, monkeypatch)


def environment(data_dir: Path | str) -> dict[str, str]:
    return {**os.environ, "GOSSAMER_DATA_DIR": str(data_dir)}


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["memebrs"], 2, "there is no command 'memebrs' (did you mean members?)"),
        (["frobnicate"], 2, "there is no command 'frobnicate' (see gossamer --help)"),
        (["members", "-o", "xml"], 2, "'xml' is not one of"),
        (["members", "--nope"], 2, "No such option"),
        (["get"], 2, "Missing argument 'KIND'"),
        (["get", "htproute"], 2, "there is no kind 'htproute' (did you mean HTTPRoute?)"),
        (["get", "services"], 2, "services is not a kind of resource; use: gossamer service list"),
        (["get", "xyz"], 2, "there is no kind 'xyz' (there are HTTPRoute, "),
        (["describe", "all", "x"], 2, "there is no kind 'all'"),
        (["apply"], 2, "Missing option '-f'"),
        (["apply", "-f", "x", "--wait", "lots"], 2, "'lots' is not a percentage; write it like 99%"),
        (["apply", "-f", "-", "-f", "-"], 2, "standard input can be read only once"),
        (["token", "create", "--ttl", "soon"], 2, "'soon' is not a duration; write it like 45s"),
        (["token", "create", "--uses", "0"], 2, "0 is not in the range"),
        (["join"], 2, "Missing argument 'HOST:PORT...'"),
        (["join", "a:b"], 2, "port 'b' is not a number"),
        (["service", "deregister", "a/b", "-n", "c"], 2, "'a/b' is not a name in namespace c"),
        (["service", "deregister", ""], 2, "a name is empty"),
        (["describe", "httproute", "", "-n", "shop"], 2, "a name is empty"),
        (["get", "httproute", "x", "-n", ""], 2, "-n: a namespace is empty"),
        (["members", "--data-dir", ""], 2, "'--data-dir': must be a path"),
        (["members", "--data-dir", "~no.such.user/x"], 2, "'--data-dir': names a home directory that there is not"),
        (["token", "create", "--ttl", "0"], 2, "'--ttl': must be from 1s to 366d, is 0"),
        (["token", "create", "--ttl", "400d"], 2, "'--ttl': must be from 1s to 366d, is 400d"),
        (["token", "create", "--bootstrap", "--ttl", "1ms"], 2, "'--ttl': must be from 1s to 366d, is 1ms"),
        (["token", "create", "--bootstrap", "--uses", "3"], 2, "--bootstrap says nothing of rights"),
        (["token", "create", "--bootstrap", "--service", "x"], 2, "--bootstrap says nothing of rights"),
        (["apply", "-f", "x", "--timeout", "2h"], 2, "'--timeout': must be from 0s to 1h, is 2h"),
        (["ca", "reshare", "--timeout", "0"], 2, "'--timeout': must be from 100ms to 1h, is 0"),
        (["ca", "rollover", "--timeout", "61m"], 2, "'--timeout': must be from 100ms to 1h, is 61m"),
        (["peer", "--bind", "nowhere"], 2, "--bind: must be an IP address"),
        (["peer", "--config", "/no/such.yaml"], 2, "/no/such.yaml: cannot be read"),
        (["peer", "--bootstrap-expect", "3", "--bootstrap"], 2, "--bootstrap-expect: contradicts --bootstrap"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_exit_code_2(gossamer, arguments, code, words):
    ended = gossamer(*arguments)
    assert ended.code == code
    assert words in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_no_peer_is_exit_code_1_with_what_to_do(gossamer, tmp_path):
    ended = gossamer("members", "--data-dir", str(tmp_path / "none"))
    assert ended.code == 1
    assert ended.err.startswith(
        f"error: no peer is running at {tmp_path}/none/admin.sock (start one with: gossamer peer"
    )


def test_a_home_directory_is_the_one_that_the_peer_takes_it_for(gossamer, served, monkeypatch):
    monkeypatch.setenv("HOME", str(served.data_dir.parent))
    monkeypatch.setenv("GOSSAMER_DATA_DIR", f"~/{served.data_dir.name}")
    assert gossamer("members").code == 0


def test_a_directory_that_cannot_be_is_no_peer_that_went_away(gossamer):
    ended = gossamer("members", "--data-dir", "/" + "d" * 300)
    assert ended.code == 1
    assert ended.err.endswith("/admin.sock cannot be connected to: File name too long\n")


def test_a_bug_is_one_line_and_a_traceback_only_when_asked(gossamer, monkeypatch):
    def broken(*_arguments):
        raise RuntimeError("surprise")

    monkeypatch.setattr("peer.admin.client.AdminClient.members", broken)
    ended = gossamer("members")
    assert (ended.code, ended.err) == (
        1,
        "error: internal error: RuntimeError: surprise (run with --debug to see where)\n",
    )
    monkeypatch.setenv("GOSSAMER_DEBUG", "1")
    assert "Traceback (most recent call last)" in gossamer("members").err


def test_what_peers_say_cannot_drive_the_terminal(gossamer, served):
    served.api.answers["members"] = [{"name": "\x1b]0;owned\x07", "state": "al\nive", "id": "[red]x[/red]"}]
    out = gossamer("members").out
    assert "\x1b" not in out
    assert "\\x1b]0;owned\\x07" in out
    assert "[red]x[/red]" in out
    assert len(out.splitlines()) == 2
    served.raises("members", "bad \x1b[2Jnews\nerror: forged")
    ended = gossamer("members")
    assert "\x1b" not in ended.err
    assert ended.err.count("\n") == 1


def test_help_and_version(gossamer):
    assert gossamer("--version").out.startswith("gossamer 0.")
    ended = gossamer("--help")
    assert ended.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in ended.out
        assert gossamer(name, "--help").code == 0
    assert gossamer().code == 2
    assert gossamer("token").code == 2


def test_every_command_that_talks_to_a_peer_takes_data_dir_and_output():
    def leaves(command: click.Command, context: click.Context):
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                if name in {"sim", "chaos", "author"}:  # talk to no peer
                    continue
                yield from leaves(below, context)
        else:
            yield command

    for command in leaves(cli, click.Context(cli)):
        options = {option for parameter in command.params for option in parameter.opts}
        if command.name not in {"peer", "demo", "validate"}:
            assert {"--data-dir", "-o"} <= options, command.name
        assert command.help


def test_the_flags_of_peer_are_those_that_messages_name():
    peer = cli.get_command(click.Context(cli), "peer")
    assert peer is not None
    flags = {parameter.name.replace("__", "."): parameter.opts for parameter in peer.params if parameter.name}
    known = {key.name for key in KEYS}
    for name, options in flags.items():
        if name != "config_file":
            assert name in known
            assert flag_of(name) in options


def test_peer_hands_its_configuration_to_the_daemon(gossamer, tmp_path, monkeypatch):
    started = []
    module = type(sys)("peer.run")
    module.main = lambda config: started.append(config) or 7
    monkeypatch.setitem(sys.modules, "peer.run", module)
    monkeypatch.setenv("GOSSAMER_ZONE", "east")
    monkeypatch.setenv("GOSSAMER_ZON", "typo")
    ended = gossamer("peer", "--bind", "127.0.0.2", "--seed", "a:1", "--seed", "b", "--bootstrap",
                     "--gossip-port", "7000", "--log-level", "debug", "--data-dir", str(tmp_path / "d"))  # fmt: skip
    assert ended.code == 7
    assert ended.err == "warning: environment variable GOSSAMER_ZON is no key (did you mean GOSSAMER_ZONE?)\n"
    (config,) = started
    assert (config.bind, config.zone, config.seeds) == ("127.0.0.2", "east", (("a", 1), ("b", 7946)))
    assert (config.bootstrap, config.ports.gossip, config.log.level) == (True, 7000, "debug")
    assert config.data_dir == tmp_path / "d"


# ---------------------------------------------------------------- other packages' commands


class Entry:
    """An entry point."""

    value = "chaos.cli:chaos"

    def __init__(self, name: str, target) -> None:
        self.name, self._target = name, target

    def load(self):
        if isinstance(self._target, Exception):
            raise self._target
        return self._target


def test_other_packages_add_commands(gossamer, monkeypatch):
    @click.command()
    def chaos() -> None:
        """Break things."""
        click.echo("broken")

    entries = [Entry("chaos", chaos), Entry("sick", ImportError("no module named x")), Entry("odd", 7)]
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: entries if group == "gossamer.commands" else []
    )
    assert gossamer("chaos").out == "broken\n"
    ended = gossamer("sick")
    assert (ended.code, ended.err) == (
        1,
        "error: command sick (chaos.cli:chaos) cannot be loaded: no module named x\n",
    )
    assert "is not a click command" in gossamer("odd").err


# ---------------------------------------------------------------- real processes


def test_a_command_starts_without_what_it_does_not_need():
    script = (
        "import sys; import peer.cli; peer.cli.run(['members', '--data-dir', '/nonexistent']);"
        "print([m for m in ('pydantic', 'aiohttp', 'rich', 'yaml', 'cryptography', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_piped_output_is_plain(served):
    done = subprocess.run(
        [*GOSSAMER, "members"], capture_output=True, text=True, env=environment(served.data_dir), check=False
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[1].split() == [
        "one",
        "alive",
        "127.0.0.1:7946",
        "-",
        "3",
        "1700000000000",
        NODE,
    ]


@pytest.mark.parametrize("size", [1, 5000])
def test_a_closed_pipe_is_quiet(served, size):
    served.api.answers["members"] = [{"name": f"n{number}" * 10} for number in range(size)]
    child = subprocess.Popen(
        [*GOSSAMER, "members"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(served.data_dir),
    )
    assert child.stdout is not None
    child.stdout.close()
    _, errors = child.communicate(timeout=20)
    assert errors == b""
    assert child.returncode == 141


def test_ctrl_c_is_quiet_and_130(served):
    child = subprocess.Popen(
        [*GOSSAMER, "apply", "-f", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(served.data_dir),
        # A shell's background job ignores it, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  no thread runs here
    )  # fmt: skip
    assert until(lambda: "pipe" in (wchan(child.pid) or ""))
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert (out, errors.strip()) == (b"", b"")


def wchan(pid: int) -> str:
    """What a process is reading from."""
    try:
        call = Path(f"/proc/{pid}/syscall").read_text().split()
        return os.readlink(f"/proc/{pid}/fd/0") if call[:2] == ["0", "0x0"] else ""  # read(0, ...)
    except (OSError, PermissionError):
        return ""


def until(condition, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def on_terminal(
    arguments: list[str],
    data_dir: Path,
    columns: int,
    *,
    code: int = 0,
    interrupt_at: str = "",
    **variables: str,
) -> str:
    """What a command shows on a terminal of that width, and that it ends with that code. As soon as `interrupt_at` is
    shown, somebody types Ctrl-C."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = environment(data_dir) | {"TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    env.pop("COLUMNS", None)
    env |= variables
    child = subprocess.Popen(
        [*GOSSAMER, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env,
        start_new_session=True,
        preexec_fn=_own_terminal,  # noqa: PLW1509  it makes two system calls
    )
    os.close(slave)
    shown = b""
    typed = not interrupt_at
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not chunk:
            break
        shown += chunk
        if not typed and interrupt_at.encode() in shown:
            os.write(master, b"\x03")
            typed = True
    os.close(master)
    assert child.wait(20) == code
    assert typed
    return shown.decode()


def _own_terminal() -> None:
    """In a child: its standard input is where Ctrl-C is typed, and it does not ignore that, as background jobs do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_fits_the_terminal(served, columns):
    import re

    served.api.answers["members"] = [
        {"name": f"node-{number}.example", "id": NODE, "address": "192.168.100.101:7946", "state": "alive",
         "incarnation": 12, "boot": 1_700_000_000_000, "zone": "eu-west-1a"}
        for number in range(3)
    ]  # fmt: skip
    shown = on_terminal(["members"], served.data_dir, columns)
    assert "\x1b[32m" in shown  # alive is green
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "").rstrip("\n").split("\n")
    assert len(lines) == 4
    assert max(map(len, lines)) <= columns
    for line in lines[1:]:
        assert re.match(r"node-\d\.example +alive +192\.168\.100\.101:7946 ", line)
    assert (NODE in lines[1]) == (columns == 120)
