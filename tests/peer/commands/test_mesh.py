"""`members`, `join`, `leave`, `check`, `stat`, `edges`: what they print and the code they end with."""

import subprocess

import pytest
import yaml

from tests.peer.fakepeer import NODE


def test_members_as_a_table_is_plain_columns(gossamer):
    ended = gossamer("members")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "NAME  STATE  ADDRESS         ZONE  INCARNATION           BOOT  ID",
        "one   alive  127.0.0.1:7946  -               3  1700000000000  " + NODE,
    ]


@pytest.mark.parametrize(
    "command", [["members"], ["stat"], ["edges"], ["check"], ["service", "list"], ["get", "all"]]
)
def test_json_is_the_peers_answer(gossamer, served, command):
    name = {"service list": "services", "get all": "get"}.get(" ".join(command), command[0])
    served.api.answers[name] = [{"name": "x", "nested": {"a": [1, None]}}]
    assert gossamer(*command, "-o", "json").data == [{"name": "x", "nested": {"a": [1, None]}}]
    assert yaml.safe_load(gossamer(*command, "-o", "yaml").out) in (
        [{"name": "x", "nested": {"a": [1, None]}}],
        {"name": "x", "nested": {"a": [1, None]}},
    )
    served.api.answers[name] = []
    assert gossamer(*command, "-o", "json").data == []
    ended = gossamer(*command)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err  # that there is nothing is said, and not on standard output


def test_join(gossamer, served):
    ended = gossamer("join", "10.0.0.1:7946", "10.0.0.2")
    assert (ended.code, ended.err) == (0, "contacted 10.0.0.1:7946\ncontacted 10.0.0.2\n")
    served.api.answers["join"] = {"contacted": [], "failed": {"10.0.0.9:1": "connection refused"}}
    ended = gossamer("join", "10.0.0.9:1")
    assert (ended.code, ended.err) == (1, "error: could not contact 10.0.0.9:1: connection refused\n")


def test_leave_waits_for_the_process_to_end(gossamer, served):
    child = subprocess.Popen(["sleep", "0.3"])
    (served.data_dir / "lock").write_text(f"{child.pid}\n")
    ended = gossamer("leave")
    assert child.poll() is not None or child.wait(0.1) == 0
    assert (ended.code, ended.err) == (0, "left the mesh; the peer has stopped\n")


def test_upgrade_waits_for_the_new_process(gossamer, served):
    child = subprocess.Popen(["sleep", "60"])
    try:
        served.api.answers["upgrade"] = {"pid": child.pid}
        (served.data_dir / "lock").write_text(f"{child.pid}\n")
        ended = gossamer("upgrade")
        assert (ended.code, ended.err) == (0, f"upgraded; the peer is process {child.pid}\n")
    finally:
        child.kill()
        child.wait()
    (served.data_dir / "lock").write_text("1\n")
    ended = gossamer("upgrade")
    assert ended.code == 1
    assert f"process {child.pid} was about to take over and has ended" in ended.err


def test_check_fails_if_a_check_does(gossamer, served):
    assert gossamer("check").code == 0
    served.api.answers["check"] = [
        {"check": "clock", "status": "fail", "detail": "7 s behind"},
        {"check": "certificates", "status": "warn", "detail": "expires soon"},
    ]
    ended = gossamer("check")
    assert ended.code == 1
    assert ended.out.splitlines()[1].split(maxsplit=2) == ["clock", "fail", "7 s behind"]
    assert ended.err == "error: 1 of 2 checks failed: clock\n"


def test_edges(gossamer, served):
    web, cart = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/shop/sa/cart"
    row = {"source": "default/web", "destination": "shop/cart", "source_identity": web, "reporter": "source"}
    row |= {"destination_identity": cart, "security": "mutual_tls", "requests": 7}
    served.api.answers["edges"] = [row]
    assert gossamer("edges").out.splitlines()[1].split() == [
        "default/web", "shop/cart", web, cart, "mutual_tls", "7", "source",
    ]  # fmt: skip
    assert gossamer("edges", "-o", "json").data == [row]
    served.api.answers["edges"] = []
    assert gossamer("edges").err == "no requests yet\n"


def test_stat(gossamer, served):
    row = {"source": "default/web", "destination": "default/cart", "requests": 1000, "success_rate": 0.99999,
           "rps": 12.34, "p50_ms": 1.25, "p95_ms": 150.4, "p99_ms": None, "reporter": "source"}  # fmt: skip
    served.api.answers["stat"] = [row]
    assert gossamer("stat").out.splitlines()[1].split() == [
        "default/web", "default/cart", "1000", "99.99%", "12.3", "1.2ms", "150ms", "-", "source",
    ]  # fmt: skip
