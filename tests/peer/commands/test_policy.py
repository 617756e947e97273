"""`apply`, `get`, `describe`, `delete`, `validate`."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from peer.cli import run
from peer.commands.options import Failure
from peer.commands.waiting import follow
from tests.peer.fakepeer import NODE, ROUTE, SERVICE, ServedPeer
from tests.peer.test_cli import environment, on_terminal

GOSSAMER = [sys.executable, "-m", "peer.cli"]


def test_apply_sends_what_was_parsed_and_says_what_was_done(gossamer, served, route):
    ended = gossamer("apply", "-f", route, "--wait", "99%", "--timeout", "3s")
    assert (ended.code, ended.out) == (0, "HTTPRoute default/canary created\n")
    (name, (documents, source, percent, timeout_s)) = served.api.calls[0]
    assert (name, source, percent, timeout_s) == ("apply", route, 99.0, 3.0)
    assert documents[0]["metadata"] == {"name": "canary", "namespace": "default"}
    assert gossamer("apply", "-f", route, "-o", "json").data[0]["version"] == f"{NODE}:1"


def test_apply_reads_directories_several_files_and_standard_input(served, route, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b", "a"):
        (tmp_path / f"more/{name}.yaml").write_text(ROUTE.replace("canary", f"canary-{name}"))
    (tmp_path / "more/README.txt").write_text("not a resource")
    done = subprocess.run(
        [*GOSSAMER, "apply", "-f", str(tmp_path / "more"), "-f", route, "-f", "-"],
        input=ROUTE.replace("canary", "piped"), capture_output=True, text=True,
        env={**os.environ, "GOSSAMER_DATA_DIR": str(served.data_dir)},
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"HTTPRoute default/{name} created" for name in ("canary-a", "canary-b", "canary", "piped")
    ]
    assert len(served.api.calls) == 1  # all or none


def test_not_converged_in_time_is_exit_code_3(gossamer, served, route):
    served.raises("apply", "published, but only 2 of 3 peers enforce it after 3 s", 3)
    ended = gossamer("apply", "-f", route, "--wait", "99%")
    assert (ended.code, ended.err) == (3, "error: published, but only 2 of 3 peers enforce it after 3 s\n")


COUNT = {
    "members": 3,
    "asked": 3,
    "enforced": 3,
    "share": 1.0,
    "low": 1.0,
    "high": 1.0,
    "missing": [],
    "seconds": 0.25,
}
ROW = {
    "kind": "HTTPRoute",
    "namespace": "default",
    "name": "canary",
    "action": "created",
    "version": f"{NODE}:1",
}


def test_waiting_ends_with_one_line_on_standard_error(gossamer, served, route):
    served.api.events = [
        {"published": [ROW]},
        {"enforcement": COUNT | {"enforced": 1}},
        {"enforcement": COUNT},
    ]
    ended = gossamer("apply", "-f", route, "--wait", "99%")
    assert (ended.code, ended.out) == (0, "HTTPRoute default/canary created\n")
    assert ended.err == "enforced by 3 of 3 members after 0.2 s\n"
    (row,) = gossamer("apply", "-f", route, "--wait", "99%", "-o", "json").data
    assert row["enforcement"] == COUNT
    assert ROW.items() <= row.items()
    ended = gossamer("delete", "-f", route, "--wait", "99%", "--timeout", "3s")
    assert (ended.code, ended.err) == (0, "enforced by 3 of 3 members after 0.2 s\n")
    assert served.api.calls[-1] == ("delete", ([("HTTPRoute", "default", "canary")], 99.0, 3.0))
    assert gossamer("delete", "-f", route).err == ""


def test_an_estimate_is_told_with_its_interval(gossamer, served, route):
    served.api.events = [{"enforcement": COUNT | {"members": 5000, "asked": 300, "enforced": 300}}]
    ended = gossamer("apply", "-f", route, "--wait", "99%")
    assert "300 of 300 members asked at random (an estimated 100.0% of all 5000" in ended.err
    assert "with 95 % confidence 98.7% to 100.0%" in ended.err


def test_what_was_published_is_told_though_it_did_not_spread_in_time(gossamer, served, route):
    count = COUNT | {"enforced": 2, "missing": ["c"]}
    served.api.events = [{"published": [ROW]}, {"enforcement": count}]
    served.raises("apply", "published, but enforced by only 2 of 3 members after 3 s; missing: c", 3)
    ended = gossamer("apply", "-f", route, "--wait", "100%")
    assert (ended.code, ended.out) == (3, "HTTPRoute default/canary created\n")
    assert ended.err == "error: published, but enforced by only 2 of 3 members after 3 s; missing: c\n"
    ended = gossamer("apply", "-f", route, "--wait", "100%", "-o", "json")
    assert ended.code == 3
    assert [(row["version"], row["enforcement"]["missing"]) for row in ended.data] == [
        (ROW["version"], ["c"])
    ]


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end(served, route):
    served.api.events = [{"published": [ROW]}, *({"enforcement": COUNT | {"enforced": n}} for n in (1, 2, 3))]
    served.api.event_s = 0.3
    shown = on_terminal(["apply", "-f", route, "--wait", "99%"], served.data_dir, 100)
    assert "2 of 3 members, waiting for 99 %" in shown
    assert shown.index("HTTPRoute default/canary created") > shown.rindex("waiting for")
    assert shown.replace("\r", "").endswith("created\nenforced by 3 of 3 members after 0.2 s\n")


@pytest.mark.parametrize("command", ["apply", "delete"])
def test_who_stops_waiting_is_told_what_is_published_and_how_far_it_is(served, route, command):
    rows = [ROW | {"name": f"canary-{number}", "version": f"{NODE}:{number}"} for number in range(1, 8)]
    served.api.events = [
        {"published": [*rows, ROW | {"name": "gone", "action": "absent", "version": None}]},
        {"enforcement": COUNT | {"enforced": 2, "missing": ["c"]}},
        {},
    ]
    served.api.event_s = 0.2
    served.api.holds = True
    shown = on_terminal(
        [command, "-f", route, "--wait", "99%", "--timeout", "60s"],
        served.data_dir, 100, code=130, interrupt_at="2 of 3 members",
    )  # fmt: skip
    lines = shown.replace("\r", "").splitlines()
    named = ", ".join(f"HTTPRoute default/canary-{number} ({NODE}:{number})" for number in range(1, 6))
    assert lines[-1] == (
        f"error: interrupted; published all the same: {named} and 2 more; enforced by 2 of 3 members so far; missing: c"
    )
    assert "HTTPRoute default/canary-7 created" in lines


def test_who_stops_waiting_before_anybody_was_asked_is_told_so():
    shown: list[str] = []

    def call(progress: Any) -> list[dict[str, Any]]:
        progress({"published": [ROW]})
        raise KeyboardInterrupt

    with pytest.raises(Failure) as failed:
        follow(call, 99.0, lambda rows: shown.extend(row["version"] for row in rows))
    assert failed.value.code == 130
    (line,) = failed.value.lines
    assert line.endswith(f"HTTPRoute default/canary ({NODE}:1); nobody was asked yet who enforces it")
    assert shown == [ROW["version"]]


@pytest.mark.parametrize("wait", [(), ("--wait", "99%")])
def test_who_stops_waiting_for_the_peers_first_word_is_not_told_that_nothing_was_done(served, route, wait):
    served.api.holds = True
    ended = interrupted(["apply", "-f", route, *wait], served)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == (
        "error: interrupted before the peer answered: it may have been published all the same (look with: gossamer "
        "get)\n"
    )


def interrupted(arguments: list[str], served: ServedPeer) -> subprocess.CompletedProcess[str]:
    """A command that is interrupted while the peer holds its answer back."""
    child = subprocess.Popen(
        [*GOSSAMER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(served.data_dir),
        # A shell's background job ignores it, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  it makes a system call
    )  # fmt: skip
    assert served.api.held.wait(20)
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=20)
    return subprocess.CompletedProcess(arguments, child.returncode, out, errors)


def document(name: str = "canary", **status) -> dict:
    status = {"authorName": "two", "author": NODE, "writtenAt": "2020-01-01T00:00:00Z", "conflict": False,
              "accepted": True, "conditions": []} | status  # fmt: skip
    return {"apiVersion": "v1", "kind": "HTTPRoute", "metadata": {"name": name, "namespace": "default"}, "spec": {},
            "status": status}  # fmt: skip


def test_get_shows_status_author_and_age(gossamer, served):
    broken = [
        {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no cart-v3"}
    ]
    served.api.answers["get"] = [
        document(),
        document("clash", conflict=True),
        document("bad", accepted=False, conditions=broken),
        document("fresh", accepted=None, writtenAt="nonsense"),
        document("signed", authorName="", authorKey="ab" * 32),
    ]
    lines = [line.split() for line in gossamer("get", "httproutes").out.splitlines()]
    assert lines[0] == ["NAMESPACE", "NAME", "STATUS", "AUTHOR", "AGE"]
    assert lines[1][:4] == ["default", "canary", "accepted", "two"]
    assert lines[1][4].endswith("d")
    assert lines[2][2] == "conflict"
    assert lines[3][2:4] == ["rejected", "(BackendNotFound)"]
    assert lines[4][2:] == ["pending", "two", "-"]
    assert lines[5][3] == "ab" * 32
    assert gossamer("get", "all").out.startswith("KIND")
    gossamer("get", "authz", "shop/only")
    gossamer("get", "authz", "only", "-n", "shop")
    assert served.api.calls[-2:] == [("get", ("AuthorizationPolicy", "shop", "only"))] * 2


def test_get_as_yaml_can_be_applied_again(gossamer, served, route):
    one, two = (yaml.safe_load(ROUTE) for _ in range(2))
    two["metadata"]["name"] = "second"
    served.api.answers["get"] = [one | {"status": {"accepted": True}}, two]
    text = gossamer("get", "all", "-o", "yaml").out
    Path(route).write_text(text)
    assert gossamer("apply", "-f", route).out.splitlines() == [
        "HTTPRoute default/canary created",
        "HTTPRoute default/second created",
    ]


def test_get_of_a_name_that_is_not_there_fails(gossamer):
    ended = gossamer("get", "HTTPRoute", "nope")
    assert (ended.code, ended.out, ended.err) == (1, "", "error: there is no HTTPRoute nope\n")


def test_describe(gossamer, served):
    served.api.answers["describe"] = document()
    assert (
        yaml.safe_load(gossamer("describe", "HTTPRoute", "shop/canary").out)["status"]["authorName"] == "two"
    )
    assert gossamer("describe", "route", "canary", "-o", "json").data["kind"] == "HTTPRoute"
    assert [call[1] for call in served.api.calls] == [
        ("HTTPRoute", "shop", "canary"),
        ("HTTPRoute", "default", "canary"),
    ]


def test_describe_groups_the_members_for_people(gossamer, served):
    nodes = [("a", "enforced"), ("b", "enforced"), ("c", "unreachable"), ("d", "held")]
    rows = [{"node": node, "id": NODE, "state": state} for node, state in nodes]
    served.api.answers["describe"] = document() | {"members": {"live": 4, "asked": 4, "nodes": rows}}
    shown = yaml.safe_load(gossamer("describe", "route", "canary").out)
    assert shown["members"] == {
        "live": 4, "asked": 4, "enforced": ["a", "b"], "unreachable": ["c"], "held": ["d"],
    }  # fmt: skip
    assert gossamer("describe", "route", "canary", "-o", "json").data["members"]["nodes"] == rows


def test_delete_by_name_and_by_file(gossamer, served, route):
    assert gossamer("delete", "httproute", "canary").out == "HTTPRoute default/canary deleted\n"
    assert gossamer("delete", "-f", route, "-o", "json").data[0]["action"] == "deleted"
    served.raises("delete", "there is no HTTPRoute default/canary")
    ended = gossamer("delete", "-f", route)
    assert (ended.code, ended.err) == (1, "error: there is no HTTPRoute default/canary\n")
    first, second = ({"kind": "HTTPRoute", "namespace": "default", "name": name} for name in ("a", "b"))
    served.api.answers["delete"] = [
        first | {"action": "deleted", "version": f"{NODE}:7"},
        second | {"action": "absent"},
    ]
    served.api.calls.clear()
    Path(route).write_text(ROUTE.replace("canary", "a") + "---" + ROUTE.replace("canary", "b"))
    ended = gossamer("delete", "-f", route)
    assert (ended.code, ended.out) == (1, "HTTPRoute default/a deleted\n")
    assert ended.err == "error: there is no HTTPRoute default/b\n"
    assert [row["name"] for row in gossamer("delete", "-f", route, "-o", "json").data] == ["a"]
    assert len(served.api.calls) == 2  # one call, one write, for all that a file holds
    assert gossamer("delete").code == 2
    assert gossamer("delete", "httproute").code == 2
    assert gossamer("delete", "httproute", "x", "-f", route).code == 2


def test_validate_needs_no_peer(tmp_path, route, capsys, monkeypatch):
    monkeypatch.setenv("GOSSAMER_DATA_DIR", str(tmp_path / "nowhere"))
    (tmp_path / "cart.yaml").write_text(SERVICE)
    assert run(["validate", "-f", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "HTTPRoute default/canary is valid",
        "service default/cart is valid",
    ]
    (tmp_path / "bad.yaml").write_text(ROUTE.replace("weight: 90", "weight: -1"))
    (tmp_path / "worse.yaml").write_text(SERVICE.replace("8080", "99999"))
    assert run(["validate", "-f", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert first.startswith(
        f"error: {tmp_path}/bad.yaml: document 1: HTTPRoute default/canary: spec.rules[0]"
    )
    assert second.startswith(
        f"error: {tmp_path}/worse.yaml: document 1: service default/cart: service.port: "
    )
