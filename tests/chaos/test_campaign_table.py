"""The figures of a campaign are the sums of its parts."""

import json
from pathlib import Path

import pytest

from simulations.sometimes import Sometimes
from tests.chaos.campaign_table import HEADING, main, saved

EVERY = {each.value: 1 for each in Sometimes}
PART = {
    "experiments": 500,
    "node_hours": 51.25,
    "faults": {"kill": 3, "loss": 1},
    "failed": [],
    "sometimes": EVERY,
}


@pytest.fixture
def parts(tmp_path: Path) -> list[str]:
    names = []
    for number in range(2):
        (tmp_path / f"part-{number}.json").write_text(json.dumps(PART))
        names.append(str(tmp_path / f"part-{number}.json"))
    return names


def test_parts_add_up(parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(parts) == 0
    told = capsys.readouterr().out
    count = len(Sometimes)
    assert told.startswith(
        f"1,000 experiments, 102.5 simulated node-hours, 8 faults; 0 failed; {count} of {count} situations reached."
    )
    assert "| kill | 6 |\n| loss | 2 |" in told


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"failed": [{"seed": 1}]}, "1 failed"), ({"sometimes": {}}, "| a member left | never |")],
)
def test_what_failed_or_never_came_up_is_exit_code_1(
    wrong: dict[str, object], words: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(parts[0]).write_text(json.dumps(PART | wrong))
    assert main(parts[:1]) == 1
    assert words in capsys.readouterr().out


def test_the_figures_replace_those_before(parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "RESULTS.md").write_text(f"# R\n\n{HEADING}\n\nold\n\n| a |\n\n## More\n")
    assert main([*parts, "--save", str(tmp_path / "RESULTS.md")]) == 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert "old" not in text
    assert text.endswith("|\n\n## More\n")
    with pytest.raises(ValueError, match="no heading"):
        saved("# R\n", "")
