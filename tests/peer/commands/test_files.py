"""Files given with `-f`: every fault is named with its file, and nothing is sent."""

import io
import os
import shlex
import socket
import subprocess
import sys

import pytest

from peer import yamlfile
from peer.yamlfile import FILE_BYTES_MAX
from tests.peer.fakepeer import ROUTE, SERVICE
from tests.peer.test_cli import on_terminal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROUTE.replace("rules:", "ruels:"), "spec.ruels: unknown field (did you mean rules?)"),
        (ROUTE.replace("HTTPRoute", "HTTPRuote"), "unknown kind"),
        ("[", "not valid YAML"),
        ("", "holds no resource"),
        (SERVICE, "holds services; register them with: gossamer service register -f"),
        (f"{ROUTE}---{ROUTE}", "is in the file twice"),
    ],
)
def test_an_invalid_file_is_named_and_never_sent(gossamer, served, tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    ended = gossamer("apply", "-f", str(path))
    assert ended.code == 2
    assert ended.err.startswith(f"error: {path}: ")
    assert words in ended.err
    assert served.api.calls == []


def test_all_faults_of_all_files_are_told_at_once(gossamer, served, tmp_path, route):
    (tmp_path / "x.yaml").write_text(
        ROUTE.replace("weight: 90", "weight: -1").replace("weight: 10", "weight: x")
    )
    ended = gossamer(
        "apply", "-f", str(tmp_path / "x.yaml"), "-f", str(tmp_path / "missing.yaml"), "-f", route
    )
    assert ended.code == 2
    assert [line.split(": ")[0] for line in ended.err.splitlines()] == ["error"]
    assert "missing.yaml: cannot be read: No such file or directory" in ended.err
    ended = gossamer("apply", "-f", str(tmp_path / "x.yaml"), "-f", route)
    assert len(ended.err.splitlines()) == 2
    assert served.api.calls == []


def test_one_resource_in_two_files_is_refused(gossamer, route, tmp_path):
    (tmp_path / "again.yaml").write_text(ROUTE)
    ended = gossamer("apply", "-f", route, "-f", str(tmp_path / "again.yaml"))
    assert (ended.code, ended.err) == (
        2,
        f"error: {tmp_path}/again.yaml: HTTPRoute default/canary: is in {route} too\n",
    )


def test_what_is_neither_file_nor_directory_is_named_and_not_waited_for(gossamer, served, route, tmp_path):
    pipe, folder = tmp_path / "pipe.yaml", tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(pipe)  # nobody writes to it: who opens it waits for ever
    os.mkfifo(folder / "inner.yaml")
    (folder / "deep.yaml").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.yaml"))
        for argument, path, what in (
            (pipe, pipe, "a pipe"),
            (folder, folder / "inner.yaml", "a pipe"),
            (folder, folder / "deep.yaml", "a directory"),
            (tmp_path / "socket.yaml", tmp_path / "socket.yaml", "a socket"),
            ("/dev/zero", "/dev/zero", "a device"),
        ):
            for command in ("validate", "apply", "diff", "delete"):
                ended = gossamer(command, "-f", route, "-f", str(argument))
                assert ended.code == 2
                assert f"{path}: cannot be read: it is {what} and not a file" in ended.err
    ended = gossamer("apply", "-f", route, "--author-key", str(pipe))
    assert (ended.code, ended.err) == (
        2,
        f"error: {pipe}: cannot be read: it is a pipe and not a file\n",
    )
    assert "apply" not in [name for name, _ in served.api.calls]


@pytest.mark.parametrize("argument", ["/dev/stdin", "/dev/fd/0", "<(cat {})"])
def test_a_pipe_that_is_open_already_is_read(route, argument):
    command = f"cat {route} | {shlex.quote(sys.executable)} -m peer.cli validate -f {argument.format(route)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


class Unreadable(io.FileIO):
    """A file that must not be read."""

    def read(self, _size: int | None = -1) -> bytes:
        raise AssertionError("it was read")


def test_a_file_that_is_too_large_is_not_read(gossamer, tmp_path, monkeypatch):
    path = tmp_path / "large.yaml"
    with path.open("wb") as stream:
        stream.truncate(FILE_BYTES_MAX + 1)  # takes no room
    with monkeypatch.context() as patch:
        patch.setattr(yamlfile, "open_regular", Unreadable)
        ended = gossamer("apply", "-f", str(path))
    assert (ended.code, ended.err) == (2, f"error: {path}: is larger than 1024 KiB\n")
    with path.open("wb") as stream:
        stream.truncate(FILE_BYTES_MAX)
    assert "is larger than" not in gossamer("apply", "-f", str(path)).err


@pytest.mark.parametrize(
    ("redirection", "words"),
    [("< /dev/zero", "standard input: is larger than 1024 KiB"), ("<&-", "standard input: is closed")],
)
def test_standard_input_without_end_or_closed_is_refused(redirection, words):
    command = f"{shlex.quote(sys.executable)} -m peer.cli validate -f - {redirection}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, f"error: {words}\n")


def test_who_sits_at_a_terminal_is_told_that_it_is_waited_for(served):
    shown = on_terminal(["validate", "-f", "-"], served.data_dir, 100, code=130, interrupt_at="up to Ctrl-D")
    assert shown.startswith("reading standard input, up to Ctrl-D")
