"""The scenarios of `gossamer sim run`, their time-lines and their pictures."""

import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from crdt.log import WriterLog
from simulations.campaign import tell_one
from simulations.cli import sim
from simulations.drawing import DrawingError, changing, draw, rows_of, shares
from simulations.scenarios import SCENARIOS
from simulations.sometimes import Sometimes
from simulations.stage import Played, play
from simulations.timeline import Truth


@pytest.fixture(scope="module")
def crash() -> Played:
    return play(SCENARIOS["crash"], nodes=8)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_ends_with_all_views_right(name: str) -> None:
    played = play(SCENARIOS[name], nodes=8, crypto="model")
    assert played.differences == ()
    assert all(figure.value is not None for figure in played.figures)
    assert played.figures


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_deleted_key_stays_deleted_when_its_tombstone_is_gone_before_the_partition_is(seed: int) -> None:
    played = play(SCENARIOS["tombstones"], nodes=8, crypto="model", seed=seed)
    figures = {figure.name: figure.value for figure in played.figures}
    assert figures["tombstones the author still keeps"] == 0
    assert figures["nodes where a deleted key is back"] == 0
    assert figures["nodes where the edit that had not heard is kept"] == 8


def test_the_trap_can_be_sprung(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a tombstone goes although it deletes what others wrote, the key does come back."""

    def upto_the_first_live(log: WriterLog) -> int:
        live = (seq - 1 for seq, record in log.by_seq.items() if not record.deleted)
        return next(live, log.head)

    monkeypatch.setattr(WriterLog, "spent_upto", upto_the_first_live)
    played = play(SCENARIOS["tombstones"], nodes=8, crypto="model")
    figures = {figure.name: figure.value for figure in played.figures}
    assert figures["nodes where a deleted key is back"] == 8


@pytest.mark.parametrize("name", ["crash", "slow_members"])
@pytest.mark.parametrize("profile", ["wan", "local", "memberlist"])
def test_scenarios_play_in_every_profile(name: str, profile: str) -> None:
    assert play(SCENARIOS[name], nodes=6, crypto="model", profile=profile).differences == ()


def test_the_same_seed_plays_the_same() -> None:
    one, other = (play(SCENARIOS["halves"], nodes=6, digest=True) for _ in range(2))
    assert one.digest == other.digest
    assert one.figures == other.figures
    assert play(SCENARIOS["halves"], nodes=6, digest=True, seed=2).digest != one.digest


def test_a_row_tells_how_a_crashed_node_was_seen(crash: Played) -> None:
    timeline = crash.timeline
    (mark, back) = timeline.marks
    assert (mark.label, back.label) == ("crash", "restart")
    row = next(row for row in rows_of(timeline) if row.hosts == (mark.host,))
    before, dead, after = shares(timeline, row, [mark.at - 1, back.at - 0.1, timeline.now])
    assert before == (1.0, 0, 0, 0)
    assert dead == (0, 0, 1.0, 0)
    assert after == (1.0, 0, 0, 0)
    assert [truth for _, truth in timeline.truth(row.hosts[0])] == [Truth.RUNNING, Truth.DOWN, Truth.RUNNING]


def test_what_the_timeline_counts_is_what_the_nodes_say() -> None:
    timeline, last = None, {}

    for name in ("one_way", "restarts", "quarter_killed"):
        played = play(SCENARIOS[name], nodes=9, crypto="model")
        timeline = played.timeline
        world = timeline._world
        for host in world.hosts:
            seen = [other.states().get(host.id) for other in world.live() if other is not host]
            counted = timeline.steps(host.index)[-1]
            last[name, host.index] = counted
            for place, state in enumerate(("alive", "suspect", "dead", "left")):
                assert counted.seen[place] == sum(s is not None and s.value == state for s in seen), (
                    name,
                    host,
                )
    assert timeline is not None
    assert len(last) == 27


def test_nodes_of_which_there_is_nothing_to_tell_share_a_row(crash: Played) -> None:
    rows = rows_of(crash.timeline)
    assert [len(row.hosts) for row in rows] == [1, 7]
    assert rows[1].label == "the other 7 nodes"


def test_many_rows_are_grouped() -> None:
    played = play(SCENARIOS["halves"], nodes=30, crypto="model")
    rows = rows_of(played.timeline, rows_max=10)
    assert len(rows) <= 10
    assert sorted(host for row in rows for host in row.hosts) == list(range(30))


def test_a_picture_is_drawn_and_the_same_story_gives_the_same_picture(crash: Played, tmp_path: Path) -> None:
    draw(crash, tmp_path / "a.svg")
    draw(crash, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "crash n" in text
    assert "the other 7 nodes" in text
    assert text == (tmp_path / "b.svg").read_text()
    assert len(text) < 100_000  # a band has as many points as it has steps
    draw(crash, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_no_step_of_a_band_is_left_out() -> None:
    assert changing("aaabaacccc") == [0, 3, 4, 6, 9]
    assert changing("a") == [0]


def test_a_picture_that_cannot_be_drawn_is_a_plain_error(
    crash: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DrawingError, match=r"ends in \.svg"):
        draw(crash, tmp_path / "a.bmp")
    with pytest.raises(DrawingError, match="No such file"):
        draw(crash, tmp_path / "nowhere" / "a.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DrawingError, match="needs matplotlib"):
        draw(crash, tmp_path / "a.svg")


# ---------------------------------------------------------------------- the command


def test_list_names_every_scenario() -> None:
    said = CliRunner().invoke(sim, ["list"]).output
    assert all(name in said for name in SCENARIOS)
    rows = json.loads(CliRunner().invoke(sim, ["list", "-o", "json"]).output)
    assert [row["name"] for row in rows] == list(SCENARIOS)


def test_run_reports_traces_and_draws(tmp_path: Path) -> None:
    trace, picture = tmp_path / "t.txt", tmp_path / "p.svg"
    done = CliRunner().invoke(
        sim, ["run", "crash", "--nodes", "5", "--seed", "3", "--trace", str(trace), "--draw", str(picture)]
    )
    assert done.exit_code == 0, done.output
    assert "seen dead by all" in done.output
    assert "everybody saw exactly the nodes that lived" in done.output
    assert "FAULT" in trace.read_text()
    assert picture.exists()


def test_run_prints_data(tmp_path: Path) -> None:
    data = json.loads(
        CliRunner().invoke(sim, ["run", "leave", "--nodes", "5", "--digest", "-o", "json"]).output
    )
    assert data["scenario"] == "leave"
    assert data["nodes"] == 5
    assert {figure["name"] for figure in data["figures"]} == {
        "seen as left by all",
        "verdicts of death",
        "back",
    }
    assert len(data["digest"]) == 32
    assert data["differences"] == []


@pytest.mark.parametrize(
    "words", [["run", "nonsense"], ["run", "crash", "--nodes", "1"], ["campaign", "--seeds", "x"]]
)
def test_wrong_use_is_an_error(words: list[str]) -> None:
    assert CliRunner().invoke(sim, words).exit_code != 0


def test_a_story_that_ends_with_a_wrong_view_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "simulations.views.differences", lambda _world, at_most: ["n0 sees n1 dead, which lives"]
    )
    done = CliRunner().invoke(sim, ["run", "leave", "--nodes", "5"])
    assert "n0 sees n1 dead" in done.output
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("broken", "never", "code"), [((), (), 0), (("a queue is too long",), (), 1), ((), ("WITNESS",), 1)]
)
def test_a_campaign_fails_where_an_invariant_broke_and_where_something_never_happened(
    broken: tuple[str, ...], never: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counter({each: 1 for each in Sometimes if each.name not in never})
    told = replace(tell_one(1, hosts_max=3, lasts_s=1.0), broken=broken, sometimes=seen)
    monkeypatch.setattr("simulations.campaign.tell_one", lambda _seed: told)
    done = CliRunner().invoke(sim, ["campaign", "--seeds", "1"])
    assert done.exit_code == code, done.output
    assert all(word in done.output for word in broken)
    assert re.findall(r"^0 +(.*\S) *$", done.output, re.MULTILINE) == [
        Sometimes[name].value for name in never
    ]


def test_a_campaign_from_the_command_line_counts_what_it_saw() -> None:
    done = CliRunner().invoke(sim, ["campaign", "--seeds", "1-2", "-o", "json"])
    data = json.loads(done.output)
    assert data["stories"] == 2
    assert data["failed"] == []
    assert done.exit_code == 1  # two stories do not show everything
    assert data["never"]
