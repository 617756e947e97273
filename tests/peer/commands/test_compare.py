"""`diff` and `history`: what applying a file would change, and what has changed so far."""

from pathlib import Path

import pytest
import yaml

from tests.peer.fakepeer import NODE, ROUTE
from tests.peer.test_cli import on_terminal


def held(text: str = ROUTE, **status) -> dict:
    document = yaml.safe_load(text)
    document["metadata"]["namespace"] = "default"
    return document | {"status": {"accepted": True, "conflict": False} | status}


def test_what_is_as_in_the_file_is_no_difference(gossamer, served, route):
    served.api.answers["find"] = [held()]
    ended = gossamer("diff", "-f", route)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "0 created, 0 changed, 1 unchanged\n"
    assert served.api.calls == [("find", ([("HTTPRoute", "default", "canary")],))]


def test_a_change_is_shown_line_by_line(gossamer, served, route):
    served.api.answers["find"] = [held(ROUTE.replace("weight: 90", "weight: 80"))]
    ended = gossamer("diff", "-f", route)
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[:2] == ["--- mesh/HTTPRoute/default/canary", "+++ file/HTTPRoute/default/canary"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-      weight: 80", "+      weight: 90"]
    assert ended.err == "0 created, 1 changed, 0 unchanged\n"


def test_the_order_of_keys_is_no_difference(gossamer, served, route):
    document = yaml.safe_load(ROUTE)
    Path(route).write_text(yaml.safe_dump(document, sort_keys=True))
    served.api.answers["find"] = [held()]
    assert gossamer("diff", "-f", route).code == 0


def test_what_is_new_is_all_additions(gossamer, route):
    ended = gossamer("diff", "-f", route)
    assert ended.code == 1
    assert ended.out.startswith("--- /dev/null\n+++ file/HTTPRoute/default/canary\n")
    assert all(line[0] == "+" for line in ended.out.splitlines()[3:])


def test_several_resources_as_json(gossamer, served, route):
    Path(route).write_text("---".join(ROUTE.replace("canary", name) for name in "abc"))
    texts = [ROUTE.replace("canary", "a"), ROUTE.replace("canary", "b").replace("90", "91")]
    served.api.answers["find"] = [*map(held, texts), None]
    ended = gossamer("diff", "-f", route, "-o", "json")
    assert ended.code == 1
    assert [(row["name"], row["action"], bool(row["diff"])) for row in ended.data] == [
        ("a", "unchanged", False),
        ("b", "changed", True),
        ("c", "created", True),
    ]
    assert ended.err == ""


def test_a_conflict_is_a_difference_even_from_the_version_in_force(gossamer, served, route):
    served.api.answers["find"] = [held(conflict=True)]
    ended = gossamer("diff", "-f", route)
    assert (ended.code, ended.out) == (1, "")
    assert "has concurrent edits" in ended.err
    assert gossamer("diff", "-f", route, "-o", "json").data[0]["conflict"] is True


def test_invalid_files_and_a_peer_that_is_not_there_are_exit_code_2(gossamer, served, route, tmp_path):
    served.raises("find", "the peer is stopping")
    ended = gossamer("diff", "-f", route)
    assert (ended.code, ended.err) == (2, "error: the peer is stopping\n")
    assert gossamer("diff", "-f", route, "--data-dir", str(tmp_path / "nowhere")).code == 2
    Path(route).write_text(ROUTE.replace("weight: 90", "weight: -1"))
    ended = gossamer("diff", "-f", route)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {route}: document 1: HTTPRoute default/canary: spec.rules[0]")
    assert gossamer("diff").code == 2


@pytest.mark.parametrize("no_color", ["", "1"])
def test_it_is_coloured_on_a_terminal(served, route, no_color):
    served.api.answers["find"] = [held(ROUTE.replace("weight: 90", "weight: 80"))]
    text = on_terminal(["diff", "-f", route], served.data_dir, 100, code=1, NO_COLOR=no_color)
    assert ("\x1b[31m-      weight: 80" in text) is not bool(no_color)
    assert ("\x1b[32m+      weight: 90" in text) is not bool(no_color)


def test_what_a_document_holds_cannot_drive_the_terminal(gossamer, served, route):
    served.api.answers["find"] = [held() | {"spec": {"x": "a\x1b[31mb\u202ec"}}]
    ended = gossamer("diff", "-f", route)
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out


# ------------------------------------------------------------------ history


def version(number: int, *replaced: int, weight: int | None = 90, **changes) -> dict:
    document = None if weight is None else yaml.safe_load(ROUTE.replace("90", str(weight)))
    return {
        "version": f"{NODE}:{number}", "author": NODE, "authorName": "one", "writtenAt": f"2026-01-0{number}T00:00:00Z",
        "action": "deleted" if weight is None else "written", "state": "replaced",
        "replaced": [f"{NODE}:{each}" for each in replaced], "document": document,
    } | changes  # fmt: skip


def test_history_is_a_table_of_versions(gossamer, served):
    served.api.answers["history"] = [
        version(3, 2, weight=None, state="current"), version(2, 1), version(1, authorName="")
    ]  # fmt: skip
    lines = [line.split() for line in gossamer("history", "route", "shop/canary").out.splitlines()]
    assert lines[0] == ["WRITTEN", "AUTHOR", "ACTION", "STATE", "VERSION", "REPLACED"]
    assert lines[1] == ["2026-01-03T00:00:00Z", "one", "deleted", "current", f"{NODE}:3", f"{NODE}:2"]
    assert lines[3][1] == NODE
    gossamer("history", "route", "canary", "-n", "shop")
    gossamer("history", "mesh", "default")
    assert [arguments for _, arguments in served.api.calls] == [
        ("HTTPRoute", "shop", "canary"),
        ("HTTPRoute", "shop", "canary"),
        ("MeshConfig", "gossamer-system", "default"),
    ]


def test_history_with_diffs(gossamer, served):
    served.api.answers["history"] = [version(3, 2, weight=None), version(2, 1, weight=80), version(1, 7)]
    lines = gossamer("history", "route", "canary", "--diff").out.splitlines()
    assert lines[0] == f"deleted by one at 2026-01-03T00:00:00Z, replaced: {NODE}:3"
    assert f"--- HTTPRoute/default/canary@{NODE}:1" in lines
    assert "-      weight: 90" in lines
    assert "+      weight: 80" in lines
    assert lines.count("--- /dev/null") == 1  # what the first one replaced is not known here
    rows = gossamer("history", "route", "canary", "--diff", "-o", "json").data
    assert rows[1]["diff"].startswith("--- HTTPRoute/default/canary@")
    assert rows[1]["document"]["kind"] == "HTTPRoute"
    assert "diff" not in gossamer("history", "route", "canary", "-o", "json").data[0]


def test_history_of_what_nobody_knows(gossamer, served):
    served.raises("history", "this peer knows no version of HTTPRoute default/canary")
    ended = gossamer("history", "route", "canary")
    assert (ended.code, ended.err) == (1, "error: this peer knows no version of HTTPRoute default/canary\n")
    assert gossamer("history", "teapot", "x").code == 2
    assert gossamer("history", "route").code == 2
