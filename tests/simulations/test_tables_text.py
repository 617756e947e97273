"""Tables as text: quantiles, layout, the file of results, the command."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from simulations.tables.cli import table as command
from simulations.tables.layout import data, markdown, shown
from simulations.tables.results import FRAME, FrameError, placed, save
from simulations.tables.run import command as command_of
from simulations.tables.run import run
from simulations.tables.summary import largest, median, quantile
from simulations.tables.table import Column, Options, Row, Table

ORDER = ("one", "two", "three")


def _rows(options: Options) -> Iterator[Row]:
    for nodes in options.sizes((4, 40_000), (5,)):
        yield {"nodes": nodes, "what": "idle", "took": nodes / 3, "lost": None}


SAMPLE = Table(
    name="sample",
    title="A sample",
    about="What is done.",
    columns=(
        Column(key="nodes", title="nodes"),
        Column(key="what", title="mesh"),
        Column(key="took", title="took (s)", digits=2),
        Column(key="lost", title="lost", digits=1),
    ),
    measure=_rows,
    notes=("Mind this.",),
)


# ---------------------------------------------------------------------- quantiles


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    at = quantile(values, share)
    assert at in values
    assert sum(value <= at for value in values) >= share * len(values) - 1e-9


def test_of_nothing_there_is_no_quantile() -> None:
    assert (quantile([], 0.5), median([]), largest([])) == (None, None, None)


def test_the_hundredth_quantile_is_the_largest() -> None:
    assert quantile([3, 1, 2], 1.0) == largest([3, 1, 2]) == 3


# ---------------------------------------------------------------------- layout


@pytest.mark.parametrize(
    ("digits", "value", "text"),
    [
        (2, 1.005, "1.00"),
        (0, 12345.6, "12 346"),
        (None, 0.128, "0.128"),
        (2, 3, "3"),
        (None, "all", "all"),
        (2, None, "–"),
    ],
)
def test_a_figure_is_shown_with_the_digits_of_its_column(
    digits: int | None, value: float | str | None, text: str
) -> None:
    assert shown(Column(key="k", title="t", digits=digits), value) == text


def test_markdown_is_aligned_and_says_where_it_comes_from() -> None:
    lines = markdown(run(SAMPLE, Options())).splitlines()
    assert lines[:3] == ["## A sample", "", "What is done."]
    rows = [line for line in lines if line.startswith("|")]
    assert rows == [
        "| nodes | mesh |  took (s) | lost |",
        "| ----: | :--- | --------: | ---: |",
        "|     4 | idle |      1.33 |    – |",
        "| 40000 | idle | 13 333.33 |    – |",
    ]
    assert "- Mind this." in lines
    assert lines[-1].startswith("`gossamer sim table sample --seed 1`, 2")


def test_data_keeps_the_figures_as_they_are() -> None:
    out = data(run(SAMPLE, Options(nodes=(4,))))
    assert out["rows"] == [{"nodes": 4, "what": "idle", "took": 4 / 3, "lost": None}]
    assert out["command"] == "gossamer sim table sample --nodes 4 --seed 1"
    assert json.loads(json.dumps(out)) == out


def test_the_command_names_what_is_not_as_usual_and_rows_are_told_as_they_come() -> None:
    told: list[Row] = []
    options = Options(profiles=("lan",), large=True, runs=3, cpu_s=7, seed=9)
    result = run(SAMPLE, options, tell=lambda row, _: told.append(row))
    assert result.command == "gossamer sim table sample --profiles lan --runs 3 --large --cpu-s 7 --seed 9"
    assert [row["nodes"] for row in told] == [4, 40_000, 5]
    cut = command_of(SAMPLE, Options(cuts=("halves", "a rack"), cut_s=90.0))
    assert cut == "gossamer sim table sample --cuts 'halves,a rack' --cut-s 90 --seed 1"


# ---------------------------------------------------------------------- the file


def test_a_section_is_replaced_and_all_around_it_stays() -> None:
    text = placed("# Title\n\nprose\n", "two", "old", ORDER) + "\nmore prose\n"
    again = placed(text, "two", "new", ORDER)
    assert again == text.replace("old", "new")
    assert placed(again, "two", "new", ORDER) == again


def test_sections_come_in_the_order_of_the_tables() -> None:
    text = "# Title\n"
    for name in ("three", "one", "two"):
        text = placed(text, name, f"section {name}", ORDER)
    assert text.index("section one") < text.index("section two") < text.index("section three")
    assert text == placed(text, "two", "section two", ORDER)


@pytest.mark.parametrize("missing", [0, 1])
def test_markers_that_do_not_pair_up_are_refused(missing: int) -> None:
    text = placed("", "one", "section", ORDER)
    broken = "\n".join(line for line in text.splitlines() if ("end of" in line) != bool(missing))
    broken = broken if "<!--" in broken else text.split("\n")[2]
    with pytest.raises(FrameError):
        placed(broken, "one", "new", ORDER)


def test_a_file_that_is_not_there_begins_with_the_frame(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    save(file, "one", "section", ORDER)
    assert file.read_text().startswith(FRAME)
    first = file.read_text()
    save(file, "one", "section", ORDER)
    assert file.read_text() == first


# ---------------------------------------------------------------------- the command


def test_the_command_prints_data_and_keeps_the_section(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    words = ["crash", "--nodes", "8", "--runs", "1", "-o", "json", "--save", str(file)]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    (out,) = json.loads(result.stdout)
    assert [row["profile"] for row in out["rows"]] == ["lan", "memberlist"]
    assert "crash: 8 lan: " in result.stderr
    assert "## A member is killed" in file.read_text()


def test_the_command_prints_a_table_and_markdown() -> None:
    words = ["joins", "--nodes", "8", "--profiles", "lan"]
    shown_table = CliRunner().invoke(command, words).stdout
    assert "Everybody joins" in shown_table
    assert "gossamer sim table joins --profiles lan --nodes 8 --seed 1" in shown_table
    assert CliRunner().invoke(command, [*words, "-o", "markdown"]).stdout.startswith("## Everybody joins")


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        [],
        ["crash", "--nodes", "x"],
        ["crash", "--nodes", "2"],
        ["crash", "--profiles", "fast"],
        ["crash", "--runs", "0"],
        ["heal", "--cuts", "thirds"],
        ["heal", "--cut-s", "-1"],
    ],
)
def test_wrong_use_ends_with_2(words: list[str]) -> None:
    assert CliRunner().invoke(command, words).exit_code == 2


def test_a_file_with_broken_markers_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    file.write_text(placed("", "crash", "section", ("crash",)).replace("end of crash", "ende"))
    words = ["crash", "--nodes", "5", "--runs", "1", "--profiles", "lan", "--save", str(file)]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 1
    assert "do not pair up" in result.output
    assert "A member is killed" in result.output, "what was measured is not lost"


def test_a_file_that_cannot_be_written_loses_nothing_that_was_measured(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 300)
    words = ["crash", "--nodes", "5", "--runs", "1", "--profiles", "lan", "-o", "json", "--save", str(file)]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 1
    assert '"crashes": 1' in result.output
    assert "File name too long" in result.output


@pytest.mark.parametrize(
    ("file", "why"), [("none/RESULTS.md", "none is no directory"), ("/dev/zero", "is no file")]
)
def test_where_nothing_can_be_saved_nothing_is_measured(file: str, why: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["all", "--large", "--save", str(tmp_path / file)])
    assert result.exit_code == 2
    assert why in result.output
