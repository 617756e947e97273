"""Chaos Toolkit's format: what both can say comes back the same, what is left out is named, and people can do it."""

import json
from pathlib import Path
from typing import Any

import pytest

import chaos.cli
from chaos import actions, probes
from chaos.cli import LIBRARY
from chaos.experiment import ExperimentError, load, parse
from chaos.plan import resolve
from chaos.toolkit import CONFIGURATION, MODULE, export, read_toolkit
from peer.cli import run as gossamer

NAMES = sorted(path.stem for path in LIBRARY.glob("*.yaml"))
BAD = {"number": 0, "fault": 7}
PAUSED = (
    "title: x\ntopology: {nodes: 3}\nmethod:\n- {at: 2s, fault: pause, pick: {nodes: [n1]}}\n"
    "- {at: 3s, for: 2s, fault: kill, pick: {nodes: [n2]}}\n"
    "rollbacks:\n- {at: 0s, fault: restart, pick: {nodes: [n0]}}\n"
)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_exported_is_read_again(name: str) -> None:
    experiment = resolve(load(LIBRARY / f"{name}.yaml"))
    text = json.dumps(export(experiment))
    again, left_out = read_toolkit(text, "f.json")
    assert again == experiment
    assert left_out == ()


def test_overlapping_faults_begin_and_end_with_pauses_between() -> None:
    plain = export(resolve(parse(PAUSED, "f.yaml")), {"n1": "/one"})
    told = [(each["provider"]["func"], each.get("pauses", {}).get("after")) for each in plain["method"]]
    assert told == [("wait", None), ("begin", 1.0), ("begin", 2.0), ("end", None)]
    assert [each["name"] for each in plain["rollbacks"]] == ["end pause #0", "begin restart #2"]
    assert plain["configuration"][actions.DIRECTORIES] == {"n1": "/one"}
    assert [each["name"] for each in plain["steady-state-hypothesis"]["probes"]] == [
        "views-agree",
        "journals-agree",
    ]


def test_every_function_an_export_names_is_there() -> None:
    for name in NAMES:
        plain = export(resolve(load(LIBRARY / f"{name}.yaml")))
        activities = plain["method"] + plain["rollbacks"] + plain["steady-state-hypothesis"]["probes"]
        for activity in activities:
            module = {MODULE: actions, "chaos.probes": probes}[activity["provider"]["module"]]
            assert callable(getattr(module, activity["provider"]["func"]))


def test_what_is_somebody_elses_is_named() -> None:
    plain = export(resolve(parse(PAUSED, "f.yaml")))
    other = {
        "type": "action",
        "name": "drain node",
        "provider": {"type": "python", "module": "chaosk8s.node"},
    }
    plain["method"].insert(1, other)
    plain["rollbacks"].append({"type": "action", "name": "uncordon"})
    experiment, left_out = read_toolkit(json.dumps(plain), "f.json")
    assert len(experiment.method) == 2
    assert left_out == (
        "method[1]: 'drain node' is not of this mesh",
        "rollbacks[2]: 'uncordon' is not of this mesh",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"configuration": {}}, f"configuration.{CONFIGURATION} is missing"),
        ({"method": "none"}, "it has no method"),
        ({"rollbacks": {}}, None),
        ({"rollbacks": "all"}, "rollbacks: a list is expected"),
        ({"title": None}, "title"),
        ({"method": [{"provider": {"module": MODULE, "func": "begin", "arguments": BAD}}]}, "method"),
    ],
)  # fmt: skip
def test_what_is_no_experiment_is_refused_with_the_place(change: dict[str, Any], words: str | None) -> None:
    text = json.dumps(export(resolve(parse(PAUSED, "f.yaml"))) | change)
    if words is None:
        read_toolkit(text, "f.json")
        return
    with pytest.raises(ExperimentError, match=words):
        read_toolkit(text, "f.json")


@pytest.mark.parametrize("text", ["", "[]", "7", "{" * 100_000, '{"method": [1, null]}'])
def test_any_text_is_an_experiment_or_an_error(text: str) -> None:
    with pytest.raises(ExperimentError):
        read_toolkit(text, "f.json")


# ------------------------------------------------------------------ as a person uses it


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("peer.cli._load_plugin", lambda name: chaos.cli.chaos if name == "chaos" else None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paused.yaml").write_text(PAUSED)
    return tmp_path


def test_export_and_import_are_each_others_inverse(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gossamer(["chaos", "export", "paused.yaml", "-o", "f.json", "--peer", "n1=data"]) == 0
    plain = json.loads((here / "f.json").read_text())
    assert plain["configuration"][actions.DIRECTORIES] == {"n1": str(here / "data")}
    plain["method"].append({"name": "\x1b[31mred"})
    (here / "f.json").write_text(json.dumps(plain))
    assert gossamer(["chaos", "import", "f.json", "-o", "again.yaml"]) == 0
    assert load(here / "again.yaml") == resolve(load(here / "paused.yaml"))
    said = capsys.readouterr()
    assert "left out: method[4]" in said.err
    assert "\x1b" not in said.err
    assert gossamer(["chaos", "export", "again.yaml"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "x"


@pytest.mark.parametrize(
    "words",
    [
        ["export", "missing.yaml"],
        ["export", "paused.yaml", "--peer", "n9=data"],
        ["export", "paused.yaml", "--peer", "n1"],
        ["import", "paused.yaml"],
        ["import", "missing.json"],
    ],
)
def test_what_is_wrong_is_exit_code_2(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert gossamer(["chaos", *words]) == 2
    assert "Traceback" not in capsys.readouterr().err
