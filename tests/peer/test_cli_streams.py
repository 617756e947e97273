"""The command line where a standard stream is closed, full or read by nobody."""

import os
import subprocess
import sys

import pytest
import yaml

from tests.peer.fakepeer import ServedPeer

GOSSAMER = [sys.executable, "-m", "peer.cli"]
LEADS = "import os, sys; from peer.cli import open_standard_descriptors; open_standard_descriptors(); \
assert sys.stdout.fileno() == 1; assert sys.stderr.fileno() == 2; assert os.get_inheritable(1); \
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); print('said'); print('said', file=sys.stderr); \
os.write(file, (os.readlink('/proc/self/fd/1') + ' ' + os.readlink('/proc/self/fd/2')).encode())"


@pytest.fixture
def served(tmp_path):
    with ServedPeer(tmp_path) as peer:
        yield peer


def in_shell(redirected: str, arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *arguments],
        capture_output=True, text=True, check=False, timeout=30, env=os.environ | variables,
    )  # fmt: skip


@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_what_is_opened_after_a_closed_stream_does_not_get_what_is_printed(tmp_path, redirected):
    file = tmp_path / "state"
    done = in_shell(redirected, [sys.executable, "-c", LEADS, str(file)])
    assert (done.returncode, done.stdout) == (0, "")
    stdout, stderr = file.read_text().split()
    assert stdout == "/dev/null"
    assert (stderr == "/dev/null") == ("2>" in redirected)


@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_does_its_work_with_closed_streams(served, redirected):
    done = in_shell(redirected, [*GOSSAMER, "members"], GOSSAMER_DATA_DIR=str(served.data_dir))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("arguments", [["members"], ["--help"], ["members", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_named(served, arguments, unbuffered):
    done = in_shell(
        ">/dev/full",
        [*GOSSAMER, *arguments],
        GOSSAMER_DATA_DIR=str(served.data_dir),
        PYTHONUNBUFFERED=unbuffered,
    )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


def test_another_error_of_the_system_is_not_blamed_on_standard_output(monkeypatch, capsys):
    import peer.cli

    def fails(*_arguments: object, **_options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(peer.cli.cli, "main", fails)
    assert peer.cli.run([]) == 1
    assert capsys.readouterr().err.startswith("error: internal error: OSError")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_yaml_is_read_back_whatever_standard_output_can_write(served, encoding):
    document = {"metadata": {"annotations": {"note": "naïve € 日本"}}}
    served.api.answers["get"] = [document]
    done = subprocess.run(
        [*GOSSAMER, "get", "httproute", "-o", "yaml"], capture_output=True, check=True, timeout=30,
        env=os.environ | {"GOSSAMER_DATA_DIR": str(served.data_dir), "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert yaml.safe_load(done.stdout) == document


def test_help_that_nobody_reads_is_quiet_too():
    child = subprocess.Popen([*GOSSAMER, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.close()
    _, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (141, b"")


def test_an_error_that_nobody_hears_keeps_its_exit_code():
    child = subprocess.Popen([*GOSSAMER, "frobnicate"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stderr is not None
    child.stderr.close()
    child.communicate(timeout=20)
    assert child.returncode == 2
