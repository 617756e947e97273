"""Chaos on real processes: short stories on each driver, and nothing left of them whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.drivers.deadman import MARK, end_processes, marked
from chaos.drivers.driver import Driver, DriverError
from chaos.drivers.quota import Quotas
from chaos.drivers.real import NetnsDriver, ProcessDriver
from chaos.drivers.toxiproxy import ToxiproxyDriver
from chaos.experiment import Experiment, parse
from chaos.hypothesis import Invariant
from chaos.journal import read_journal
from chaos.plan import resolve

TEST = "CHAOS_TEST"
NETWORKED = """
title: A partition, loss and a crash, with traffic
drivers: [netns]
topology:
  nodes: 4
  profile: local
  services: [{name: echo, on: [n1, n2]}]
workload:
  policies: {every: 200ms, deletes: 20%}
  requests: [{service: echo, from: [n0, n3], rate: 10}]
method:
  - {at: 1s, for: 6s, fault: partition, groups: [[n0, n1], [n2, n3]]}
  - {at: 9s, for: 4s, fault: loss, share: 30%}
  - {at: 9s, for: 3s, fault: kill, pick: {nodes: [n1]}}
steady-state-hypothesis:
  within: 30s
  invariants: [views-agree, journals-agree, services-answer, each-side-keeps-serving]
  bounds: {heals: 20s, success: 80%}
"""
TRUSTED = """
title: Names that do not resolve, a revoked node and poisoned policies
drivers: [netns]
topology: {nodes: 4, profile: local}
workload:
  policies: {every: 300ms, deletes: 20%}
method:
  - {at: 1s, for: 6s, fault: dns, pick: {all: true}}
  - {at: 2s, for: 1s, fault: kill, pick: {nodes: [n2]}}
  - {at: 2s, for: 4s, fault: partition, groups: [[n0, n2, n3], [n1]]}
  - {at: 3s, fault: poison, effect: oversized, pick: {nodes: [n0]}}
  - {at: 3s, fault: poison, effect: unreadable, pick: {nodes: [n1]}}
  - {at: 8s, for: 3s, fault: certificates, how: revoke, pick: {nodes: [n3]}}
steady-state-hypothesis: {within: 40s}
"""
LIMITED = """
title: A tenth of a processor
drivers: [process]
topology: {nodes: 2, profile: local}
method:
  - {at: 1s, for: 3s, fault: slow, quota: 10%, pick: {nodes: [n1]}}
steady-state-hypothesis: {within: 30s}
"""
SHAPED = """
title: A slow and disorderly network
drivers: [netns]
topology:
  zones: {east: 2, west: 1}
  profile: local
  links: [{between: [east, west], delay: 20ms, jitter: 5ms}]
workload:
  policies: {every: 300ms}
method:
  - {at: 1s, for: 5s, fault: disorder, duplicate: 30%, reorder: 30%, corrupt: 5%, replay: 5%}
  - {at: 3s, for: 3s, fault: bandwidth, bytes-per-second: 20000, pick: {nodes: [n2]}}
steady-state-hypothesis: {within: 30s}
"""
PROCESSES = """
title: Processes that stop, lose their database and fill their disk
drivers: [process]
topology: {nodes: 3, profile: local}
workload:
  policies: {every: 200ms}
method:
  - {at: 1s, for: 3s, fault: pause, pick: {nodes: [n1]}}
  - {at: 2s, for: 4s, fault: disk, how: full, pick: {nodes: [n2]}}
  - {at: 8s, for: 1s, fault: kill, keeps: identity, pick: {nodes: [n1]}}
  - {at: 12s, fault: restart, graceful: true, pick: {nodes: [n2]}}
steady-state-hypothesis: {within: 40s}
"""
CONNECTIONS = """
title: Connections to an application that are reset, silent, cut into slices and slow
drivers: [toxiproxy]
topology:
  nodes: 3
  profile: local
  services: [{name: echo, on: [n1, n2]}]
workload:
  requests: [{service: echo, from: [n0], rate: 20}]
method:
  - {at: 1s, for: 3s, fault: tcp, how: reset, pick: {nodes: [n1]}}
  - {at: 5s, for: 3s, fault: tcp, how: slicer, size: 16, pick: {nodes: [n1, n2]}}
  - {at: 5s, for: 3s, fault: delay, delay: 100ms, jitter: 50ms, pick: {nodes: [n2]}}
  - {at: 9s, for: 3s, fault: tcp, how: limit-data, size: 40, pick: {nodes: [n2]}}
steady-state-hypothesis:
  within: 30s
  invariants: [views-agree, services-answer]
  bounds: {success: 60%}
"""


def experiment(text: str) -> Experiment:
    return resolve(parse(text, "story.yaml"))


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Processes that inherited this test's variable, namespaces of its directories."""
    monkeypatch.setenv(TEST, str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    assert not list(tmp_path.glob("gsm*"))
    assert _left(tmp_path) == []


def _left(directory: Path) -> list[str]:
    """The processes of this test that still run."""
    return [
        each.name
        for each in Path("/proc").iterdir()
        if each.name.isdigit() and _of_this(int(each.name), directory)
    ]


def _of_this(pid: int, directory: Path) -> bool:
    try:
        return (
            pid != os.getpid() and f"{TEST}={directory}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        )
    except OSError:
        return False


@pytest.mark.parametrize("text", [NETWORKED, SHAPED, TRUSTED], ids=["router", "switch", "names"])
def test_holds_in_namespaces(text: str) -> None:
    driver, story = NetnsDriver(), experiment(text)
    tables = set(Path("/etc").glob("netns/*"))
    before = set(
        subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    )
    assert driver.lacks(story) == ()
    journal = driver.run(story, lambda _done, _total, _what: None)
    assert journal.violations == []
    assert (journal.figures["acknowledged"] or 0) > 5
    assert len(journal.lanes) == story.topology.size
    assert all(lane.seen[0].at_s < 2 for lane in journal.lanes)
    assert journal.figures.get("poisons_refused", 2) == 2
    assert set(Path("/etc").glob("netns/*")) <= tables
    after = set(
        subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    )
    assert after <= before


@pytest.mark.parametrize(
    ("driver", "text"),
    [(ProcessDriver(), PROCESSES), (ToxiproxyDriver(), CONNECTIONS)],
    ids=["process", "toxiproxy"],
)
def test_holds_on_loopback(driver: Driver, text: str) -> None:
    story = experiment(text)
    assert driver.lacks(story) == ()
    journal = driver.run(story, lambda _done, _total, _what: None)
    assert journal.violations == []
    assert (journal.figures["acknowledged"] or journal.figures["requests"] or 0) > 5


def test_a_killed_runner_leaves_nothing(tmp_path: Path) -> None:
    """kill -9 in the middle: the dead man ends processes, namespaces and directories."""
    (tmp_path / "story.yaml").write_text(NETWORKED)
    runner = subprocess.Popen(
        [sys.executable, "-m", "peer.cli", "chaos", "run", "story.yaml", "--driver", "netns"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _until(lambda: len(list(tmp_path.glob("gsm*/n*/data/admin.sock"))) >= 2)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    _until(lambda: not list(tmp_path.glob("gsm*")))
    _until(lambda: not _left(tmp_path))  # the dead man itself ends last


@pytest.mark.parametrize(
    ("driver", "text"), [("netns", NETWORKED), ("process", PROCESSES), ("toxiproxy", CONNECTIONS)]
)
def test_an_interrupted_runner_says_so_and_leaves_nothing(driver: str, text: str, tmp_path: Path) -> None:
    """Ctrl-C at a terminal: SIGINT to the command and to all it has started and not put elsewhere."""
    (tmp_path / "story.yaml").write_text(text)
    runner = subprocess.Popen(
        [sys.executable, "-m", "peer.cli", "chaos", "run", "story.yaml", "--driver", driver, "--journal", "j.json"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    _until(lambda: len(list(tmp_path.glob("gsm*/n*/data/admin.sock"))) >= 2)
    os.killpg(runner.pid, signal.SIGINT)
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 130, out + err
    assert err.startswith("error: interrupted in ")
    assert err.count("\n") == 1
    assert read_journal(tmp_path / "j.json").status == "aborted"
    assert not list(tmp_path.glob("gsm*"))


def test_a_quota_is_what_a_process_gets_and_goes_with_it() -> None:
    """Where this machine has no cgroups for processors, a run that asks for them is refused before it begins."""
    mark = f"gsmt{os.getpid()}"
    quotas = Quotas(mark)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        try:
            quotas.check()
        except DriverError:
            with pytest.raises(DriverError, match="give blocked and running"):
                ProcessDriver().run(experiment(LIMITED), lambda _done, _total, _what: None)
            return
        quotas.limit("n0", [busy.pid], 0.1)
        began, ran = time.monotonic(), cpu_s(busy.pid)
        _until(lambda: time.monotonic() - began > 1.5)
        assert cpu_s(busy.pid) - ran < 0.25 * (time.monotonic() - began)
        assert mark in Path(f"/proc/{busy.pid}/cgroup").read_text()
        quotas.lift("n0")
        assert mark not in Path(f"/proc/{busy.pid}/cgroup").read_text()
        _until(lambda: cpu_s(busy.pid) - ran > 0.5)
    finally:
        busy.kill()
        busy.wait()
        for words in quotas.commands_down(["n0"]):
            subprocess.run(words, check=False, capture_output=True)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{mark}-*"))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_only_what_carries_the_mark_is_ended() -> None:
    ours = subprocess.Popen(["sleep", "60"], env={MARK: "mine"})
    other = subprocess.Popen(["sleep", "60"], env={MARK: "not-mine"})
    try:
        _until(lambda: marked(ours.pid, "mine") and marked(other.pid, "not-mine"))
        end_processes("mine")
        assert ours.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def _until(holds: object, within_s: float = 60.0) -> None:
    assert callable(holds)
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.05)


REQUESTS = """
title: Requests that a policy denies
drivers: [process]
topology:
  nodes: 2
  profile: local
  services: [{name: echo, on: [n1]}]
workload:
  requests: [{service: echo, from: [n0], rate: 20}]
method:
  - {at: 1s, for: 1s, fault: pause, pick: {nodes: [n1]}}
lasts: 4s
steady-state-hypothesis: {within: 30s, invariants: [views-agree, services-answer]}
"""
IGNORES_DENY = """
from dataclasses import replace

from proxy import authorize

decide = authorize.CompiledAuthorization.decide
authorize.CompiledAuthorization.decide = lambda self, facts: replace(decide(self, facts), allowed=True)
"""


@pytest.mark.parametrize("planted", [False, True], ids=["as-it-is", "planted"])
def test_a_data_plane_that_ignores_a_denial_is_found(
    planted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data plane's processes read `sitecustomize` when they start, as every Python does."""
    if planted:
        (tmp_path / "plant").mkdir()
        (tmp_path / "plant" / "sitecustomize.py").write_text(IGNORES_DENY)
        path = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv(
            "PYTHONPATH", f"{tmp_path / 'plant'}{os.pathsep}{path}" if path else str(tmp_path / "plant")
        )
    driver, story = ProcessDriver(), experiment(REQUESTS)
    assert driver.lacks(story) == ()
    journal = driver.run(story, lambda _done, _total, _what: None)
    broken = {violation.invariant for violation in journal.violations}
    assert broken == ({Invariant.AUTHORIZED.value} if planted else set())
