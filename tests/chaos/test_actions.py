"""Actions and probes without a mesh: who is meant, what is refused, and that nobody else is touched."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos import actions, probes
from chaos.actions import DIRECTORIES, ActionError
from chaos.drivers.quota import Quotas
from chaos.processes import NoPeer, family, peer_of
from peer.io.datadir import LOCK_NAME

HOLDER = """
import sys, subprocess
from pathlib import Path
from peer.io.datadir import lock_data_dir
lock = lock_data_dir(Path(sys.argv[1]))
worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("held", flush=True)
sys.stdin.read() if sys.stdin.readable() else None
import signal; signal.pause()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A data directory that a process holds as a peer does, with a worker of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "data")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield tmp_path / "data"
    for pid in (process.pid, _running(tmp_path / "data")):
        if pid is not None:
            for each in family(pid):
                try:
                    os.kill(each, signal.SIGKILL)
                except ProcessLookupError:
                    continue
    process.wait()
    process.stdout.close()


def _running(directory: Path) -> int | None:
    try:
        return peer_of(directory)
    except NoPeer:
        return None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _until(holds: object) -> None:
    assert callable(holds)
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.02)


def test_pauses_and_resumes_the_peer_and_its_worker(held: Path) -> None:
    members = family(peer_of(held))
    assert len(members) == 2
    actions.pause(held)
    _until(lambda: [_state(pid) for pid in members] == ["T", "T"])
    actions.resume(str(held))
    _until(lambda: "T" not in [_state(pid) for pid in members])


def test_kills_and_starts_again_the_same_way(held: Path) -> None:
    before = peer_of(held)
    actions.kill(held)
    with pytest.raises(NoPeer):
        peer_of(held)
    actions.start_again(held)
    _until(lambda: _running(held) not in (None, before))
    with pytest.raises(ActionError, match="not killed here"):
        actions.start_again(held)


@pytest.mark.parametrize("graceful", [True, False])
def test_restarts(held: Path, graceful: bool) -> None:
    before = peer_of(held)
    actions.restart(held, graceful)
    _until(lambda: _running(held) not in (None, before))


def test_a_pid_that_was_left_behind_is_nobody(tmp_path: Path) -> None:
    """The process with that number lives, but holds nothing: it is not touched."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / LOCK_NAME).write_text(f"{other.pid}\n")
        for action in (actions.pause, actions.resume, actions.kill, actions.restart):
            with pytest.raises(NoPeer):
                action(tmp_path)
        with (tmp_path / LOCK_NAME).open() as lock:  # held, but by somebody else
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(NoPeer):
                actions.kill(tmp_path)
        with pytest.raises(NoPeer, match="no peer has run here"):
            actions.kill(tmp_path / "missing")
        assert other.poll() is None
        assert _state(other.pid) != "T"
    finally:
        other.kill()
        other.wait()


def test_begin_and_end_are_those_actions(held: Path) -> None:
    fault = {"at": "1s", "for": "2s", "fault": "pause", "pick": {"nodes": ["n1"]}}
    configuration = {DIRECTORIES: {"n1": str(held)}}
    pid = peer_of(held)
    actions.begin(0, fault, configuration)
    _until(lambda: _state(pid) == "T")
    actions.end(0, fault, configuration)
    _until(lambda: _state(pid) != "T")
    killed = fault | {"fault": "kill"}
    actions.begin(1, killed, configuration)
    assert _running(held) is None
    actions.end(1, killed, configuration)
    _until(lambda: _running(held) is not None)
    again = peer_of(held)
    actions.begin(2, {"at": "1s", "fault": "restart", "pick": {"nodes": ["n1"]}}, configuration)
    _until(lambda: _running(held) not in (None, again))


@pytest.mark.parametrize(
    ("fault", "directories", "words"),
    [
        ({"fault": "pause", "pick": {"nodes": ["n1"]}}, None, "gossamer-directories is missing"),
        ({"fault": "pause", "pick": {"nodes": ["n2"]}}, {"n1": "/x"}, "has no n2"),
        ({"fault": "pause"}, {"n1": "/x"}, "names nobody"),
        ({"fault": "kill", "keeps": "nothing", "pick": {"nodes": ["n1"]}}, {"n1": "/x"}, "kill keeps all"),
        ({"fault": "partition"}, {"n1": "/x"}, "partition needs a mesh of its own"),
        ({"fault": "paws"}, {"n1": "/x"}, "#3"),
    ],
)
def test_what_cannot_be_done_is_refused(
    fault: dict[str, object], directories: dict[str, str] | None, words: str
) -> None:
    configuration = None if directories is None else {DIRECTORIES: directories}
    with pytest.raises(ActionError, match=words):
        actions.begin(3, {"at": "1s"} | fault, configuration)


def test_waits_no_longer_than_a_day() -> None:
    actions.wait(0)
    for seconds in (-1, 1e9, float("nan")):
        with pytest.raises(ActionError):
            actions.wait(seconds)


def test_who_runs_and_does_not_answer_makes_the_answer_no(held: Path, tmp_path: Path) -> None:
    assert not probes.views_agree([held])
    assert not probes.policy_held([held], "TrafficPolicy", "default", "x")
    assert not probes.holds("journals-agree", 0.3, {DIRECTORIES: {"n0": str(held)}})
    assert probes.views_agree([tmp_path / "nobody"])
    assert not probes.policy_held([tmp_path / "nobody"], "TrafficPolicy", "default", "x")


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ActionError, match="cannot be asked"):
        probes.holds("nothing-deleted-comes-back", 0, {DIRECTORIES: {}})
    with pytest.raises(ActionError, match="is missing"):
        probes.holds("views-agree")


def test_descriptors_are_limited_and_given_back(held: Path) -> None:
    pid = peer_of(held)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    actions.limit_descriptors(held, 64)
    actions.limit_descriptors(held, 32)
    assert [resource.prlimit(each, resource.RLIMIT_NOFILE)[0] for each in family(pid)] == [32, 32]
    actions.free_descriptors(held)
    assert [resource.prlimit(each, resource.RLIMIT_NOFILE) for each in family(pid)] == [before, before]
    actions.free_descriptors(held)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == before


def test_a_processor_is_shared_and_given_back(
    held: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quotas = Quotas("gossamer-test", tmp_path / "cgroup")
    monkeypatch.setattr(actions, "_quotas", quotas)
    with pytest.raises(ActionError, match="no cgroup controller"):
        actions.limit_processor(held, 0.5)
    (tmp_path / "cgroup" / "cpu").mkdir(parents=True)
    (tmp_path / "cgroup" / "cpu" / "cpu.cfs_quota_us").touch()
    fault = {"at": 0, "fault": "slow", "quota": "20%", "pick": {"nodes": ["n0"]}}
    actions.begin(0, fault, {DIRECTORIES: {"n0": str(held)}})
    group = tmp_path / "cgroup" / "cpu" / f"gossamer-test-{peer_of(held)}"
    assert (group / "cpu.cfs_quota_us").read_text() == "20000"
    with pytest.raises(ActionError, match="not empty"):
        actions.end(0, fault, {DIRECTORIES: {"n0": str(held)}})  # a directory, which no kernel empties
    assert (group / "cpu.cfs_quota_us").read_text() == "-1"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda held: actions.limit_processor(held, 0), "a share of 0"),
        (lambda held: actions.limit_processor(held, 1.5), "a share of 1.5"),
        (lambda held: actions.limit_descriptors(held, 7), "a limit of 7"),
        (
            lambda held: actions.begin(
                3,
                {"at": 0, "fault": "slow", "each": "1ms", "pick": {"nodes": ["n0"]}},
                {DIRECTORIES: {"n0": held}},
            ),
            "fault #3: .*give quota",
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused(call: Callable[[Path], None], words: str, held: Path) -> None:
    with pytest.raises(ActionError, match=words):
        call(held)
