"""`gossamer chaos` as a person uses it: what it says, what it writes, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import chaos.cli
from chaos.cli import LIBRARY
from chaos.experiment import Experiment, load
from chaos.journal import read_journal
from peer.cli import run as gossamer
from peer.commands.options import EXIT_INTERRUPTED

KILLED = "title: A kill\ntopology: {nodes: 4}\nmethod:\n- {at: 1s, for: 3s, fault: kill}\n"
STRICT = KILLED + "steady-state-hypothesis: {bounds: {suspicions: 0, heals: 1ms}}\n"


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.cli._load_plugin", lambda name: chaos.cli.chaos if name == "chaos" else None)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "killed.yaml").write_text(KILLED)
    (tmp_path / "strict.yaml").write_text(STRICT)
    return tmp_path


def test_run_writes_what_it_was_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = gossamer(
        ["chaos", "run", "killed.yaml", "--journal", "j.json", "--report", "r.html", "--junit", "j.xml"]
    )
    assert code == 0, capsys.readouterr()
    assert "A kill" in capsys.readouterr().out
    assert json.loads((here / "j.json").read_text())["status"] == "completed"
    assert "<svg" in (here / "r.html").read_text()
    assert 'failures="0"' in (here / "j.xml").read_text()


def test_a_steady_state_that_was_left_is_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gossamer(["chaos", "run", "strict.yaml", "-o", "json", "--journal", "j.json"])
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "failed"
    assert told["deviated"] is True
    assert told["violations"][0]["invariant"] == "heals"


def test_replay_says_whether_it_came_out_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gossamer(["chaos", "run", "strict.yaml", "--journal", "j.json"])
    assert gossamer(["chaos", "replay", "j.json"]) == 0
    assert "exactly as before: heals" in capsys.readouterr().out
    kept = json.loads((here / "j.json").read_text())
    (here / "other.json").write_text(json.dumps(kept | {"digest": "0" * 32}))
    with pytest.raises(SystemExit) as ended:
        gossamer(["chaos", "replay", "other.json"])
    assert ended.value.code == 1
    assert "NOT as before" in capsys.readouterr().out


def test_shrink_writes_a_smaller_experiment_that_fails_the_same(here: Path) -> None:
    more = "".join(f"- {{at: {at}s, for: 500ms, fault: clock, offset: 1}}\n" for at in (1, 2, 3))
    (here / "big.yaml").write_text(KILLED + more + STRICT.removeprefix(KILLED))
    assert gossamer(["chaos", "shrink", "big.yaml", "--save", "small.yaml"]) == 0
    small = load(here / "small.yaml")
    assert len(small.method) <= 1


def test_a_shrink_that_is_ended_gives_the_smallest_so_far(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(experiment: Experiment, _fails: object, say: Callable[..., None], **_: object) -> None:
        say(1, experiment.model_copy(update={"method": ()}))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("chaos.shrink.shrink", ends)
    assert gossamer(["chaos", "shrink", "strict.yaml", "--save", "small.yaml"]) == EXIT_INTERRUPTED
    assert "interrupted: this is the smallest so far" in capsys.readouterr().err
    assert load(here / "small.yaml").method == ()


def test_shrink_has_nothing_to_do_where_all_holds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gossamer(["chaos", "shrink", "killed.yaml"]) == 1
    assert "everything holds" in capsys.readouterr().err


def test_report_draws_a_journal(here: Path) -> None:
    assert gossamer(["chaos", "run", "killed.yaml", "--journal", "j.json"]) == 0
    assert gossamer(["chaos", "report", "j.json"]) == 0
    assert "A kill" in (here / "j.html").read_text()


def test_swarm_keeps_what_fails(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("simulations.views.differences", lambda _world: ["n0 is green"])
    with pytest.raises(SystemExit) as ended:
        gossamer(["chaos", "swarm", "--seeds", "7-7", "-o", "json"])
    assert ended.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == [{"seed": 7, "broken": ["views-agree"], "error": ""}]
    assert load(here / "chaos-failures" / "seed-7.yaml").seed == 7
    assert gossamer(["chaos", "replay", "chaos-failures/seed-7.json"]) == 0
    assert "exactly as before: views-agree" in capsys.readouterr().out


def test_swarm_says_what_came_of_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gossamer(["chaos", "swarm", "--seeds", "3", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["experiments"] == 3
    assert told["failed"] == []
    assert not (here / "chaos-failures").exists()


INTERRUPTED = """
import os
import signal
import sys

from chaos import campaign
from peer.cli import main

BOSS, outcome_of = os.getpid(), campaign.outcome_of


def interrupts(seed):
    if seed == 4:
        os.kill(BOSS, signal.SIGINT)
        while True:
            outcome_of(seed)
    return outcome_of(seed)


campaign.outcome_of = interrupts
main()
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_swarm_tells_what_there_is_when_somebody_ends_it(here: Path, jobs: int) -> None:
    """The signal comes while the fifth experiment runs, and never stops running by itself."""
    words = ["chaos", "swarm", "--seeds", "1000", "-j", str(jobs), "-o", "json"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *words], capture_output=True, text=True, timeout=60, check=False
    )
    told = json.loads(done.stdout)
    assert done.returncode == EXIT_INTERRUPTED
    assert told["interrupted"] is True
    assert 5 - jobs <= told["experiments"] < 20
    assert done.stderr == f"error: interrupted after {told['experiments']} of 1000 experiments\n"


def _breaks(*_: object, **__: object) -> None:
    raise KeyError("somebody")


BROKE = "KeyError in tests/chaos/test_cli.py, line"


def test_a_world_that_breaks_is_kept_with_the_reason(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("simulations.views.differences", _breaks)
    with pytest.raises(SystemExit) as ended:
        gossamer(["chaos", "swarm", "--seeds", "7-7"])
    assert ended.value.code == 1
    kept = read_journal(here / "chaos-failures" / "seed-7.json")
    assert kept.status == "aborted"
    assert BROKE in kept.reason
    assert gossamer(["chaos", "report", "chaos-failures/seed-7.json", "--junit", "j.xml"]) == 0
    assert "KeyError" in (here / "chaos-failures" / "seed-7.html").read_text()
    assert 'errors="1"' in (here / "j.xml").read_text()
    capsys.readouterr()
    assert gossamer(["chaos", "replay", "chaos-failures/seed-7.json"]) == 0
    assert "exactly as before: KeyError" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr("peer.cli._load_plugin", lambda _name: chaos.cli.chaos)
    with pytest.raises(SystemExit):
        gossamer(["chaos", "replay", str(here / "chaos-failures" / "seed-7.json")])
    assert "NOT as before: everything held" in capsys.readouterr().out


def test_what_breaks_a_world_is_shrunk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.drivers.sim_faults.sim.Skew", _breaks)
    (here / "skewed.yaml").write_text(KILLED + "- {at: 2s, for: 1s, fault: clock, offset: 1}\n")
    assert gossamer(["chaos", "shrink", "skewed.yaml", "--save", "small.yaml"]) == 0
    assert [event.inject.fault for event in load(here / "small.yaml").method] == ["clock"]


def test_run_tells_what_broke(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("simulations.views.differences", _breaks)
    assert gossamer(["chaos", "run", "killed.yaml", "strict.yaml", "-o", "json", "--report", "r.html"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "aborted"
    assert f"error: sim: {BROKE}" in said.err
    assert "aborted" in (here / "r.html").read_text()


def test_run_tells_that_somebody_ended_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("chaos.drivers.sim_faults.Hands.begin", ends)
    assert gossamer(["chaos", "run", "killed.yaml", "--journal", "j.json"]) == EXIT_INTERRUPTED
    assert "interrupted in 'A kill': what was done has been undone" in capsys.readouterr().err
    assert read_journal(here / "j.json").status == "aborted"
    monkeypatch.undo()
    monkeypatch.setattr("peer.cli._load_plugin", lambda _name: chaos.cli.chaos)
    assert gossamer(["chaos", "replay", str(here / "j.json")]) == 0
    assert "as before" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing.yaml"], "nothing.yaml: cannot be read"),
        (["run", "killed.yaml", "strict.yaml", "--journal", "j.json"], "give one file"),
        (["run", "killed.yaml", "--driver", "moon"], "moon"),
        (["replay", "nothing.json"], "nothing.json: cannot be read"),
        (["report", "killed.yaml"], "killed.yaml: is not JSON"),
        (["swarm", "--seeds", "9-1"], "--seeds '9-1'"),
        (["swarm", "--seeds", "x"], "--seeds 'x'"),
        (["validate", "band.yaml"], "method[0]: driver sim: the virtual network has no bandwidth"),
    ],
)
def test_wrong_use_is_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    slow = "- {at: 1s, fault: bandwidth, bytes-per-second: 1000}\n"
    (here / "band.yaml").write_text("title: x\ntopology: {nodes: 4}\nmethod:\n" + slow)
    assert gossamer(["chaos", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_the_library_is_listed_and_valid(here: Path) -> None:
    names = sorted(path.stem for path in LIBRARY.glob("*.yaml"))
    listed = CliRunner().invoke(chaos.cli.chaos, ["list", "-o", "json"])
    assert [row["name"] for row in json.loads(listed.output)] == names
    assert len(names) >= 20
    assert gossamer(["chaos", "validate", *names]) == 0
    checked = CliRunner().invoke(chaos.cli.chaos, ["validate", names[0], names[1], "-o", "json"])
    assert [(row["file"], row["valid"]) for row in json.loads(checked.output)] == [
        (names[0], True),
        (names[1], True),
    ]


def test_explain_names_faults_nodes_and_verdict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gossamer(["chaos", "explain", "bridge-heal"]) == 0
    told = capsys.readouterr().out
    assert "partition bridge" in told
    assert "views-agree" in told
    assert "sim: can do all of it" in told
    assert "sim does not see: no-unauthorised-request-succeeds" in told
