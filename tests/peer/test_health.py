"""Health checks against real listeners and real processes."""

import asyncio
import contextlib
import socket
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.io.health import Check, ExecProbe, HealthChecks, HttpProbe, Outcome, TcpProbe, attempt


def check(probe, port=0, **changes) -> Check:
    values = {"namespace": "default", "name": "cart", "probe": probe, "host": "127.0.0.1", "port": port,
              "interval_s": 0.02, "timeout_s": 1.0} | changes  # fmt: skip
    return Check(**values)


class App:
    """A listener that answers every connection with `answer`."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[bytes] = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize(
    ("answer", "passed", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, "HTTP 200"),
        (b"HTTP/1.0 204\r\n\r\n", True, "HTTP 204"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", True, "HTTP 302"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False, "HTTP 404"),
        (b"HTTP/1.1 500 Oops\r\n\r\n", False, "HTTP 500"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False, "HTTP 100"),
        (b"SSH-2.0-OpenSSH\r\n", False, "the answer is not HTTP"),
        (b"HTTP/1.1 2xx\r\n", False, "the answer is not HTTP"),
        (b"x" * 100_000, False, "the answer is not HTTP"),
        (b"", False, "the answer is not HTTP"),
    ],
)
async def test_an_http_check_judges_the_status(answer, passed, detail):
    async with App(answer) as app:
        assert await attempt(check(HttpProbe(path="/healthz?x=1"), app.port)) == Outcome(
            passed=passed, detail=detail
        )
        assert app.requests[0].startswith(b"GET /healthz?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % app.port)


@given(st.binary(max_size=300))
async def test_any_answer_gives_an_outcome(answer):
    async with App(answer) as app:
        assert isinstance(await attempt(check(HttpProbe(path="/"), app.port)), Outcome)


async def test_a_tcp_check_asks_for_a_connection_only():
    async with App(b"") as app:
        assert (await attempt(check(TcpProbe(), app.port))).passed
        port = app.port
    outcome = await attempt(check(TcpProbe(), port))
    assert not outcome.passed
    assert "refused" in outcome.detail or "connect" in outcome.detail


async def test_an_application_that_does_not_answer_fails_at_its_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        outcome = await attempt(check(HttpProbe(path="/"), silent.getsockname()[1], timeout_s=0.05))
    assert outcome == Outcome(passed=False, detail="no answer within 0.05 s")


@pytest.mark.parametrize(
    ("argv", "passed", "detail"),
    [
        (("true",), True, "exit code 0"),
        (("sh", "-c", "exit 3"), False, "exit code 3"),
        (("sh", "-c", "kill -9 $$"), False, "killed by signal 9"),
        (("/no/such/command",), False, "no such file or directory"),
    ],
)
async def test_a_command_passes_with_exit_code_0(argv, passed, detail):
    assert await attempt(check(ExecProbe(argv=argv))) == Outcome(passed=passed, detail=detail)


async def test_a_command_does_not_see_the_join_token(monkeypatch):
    monkeypatch.setenv("GOSSAMER_TOKEN", "gsm1.secret")
    assert (await attempt(check(ExecProbe(argv=("sh", "-c", 'test -z "$GOSSAMER_TOKEN"'))))).passed


async def test_a_late_command_is_killed_with_what_it_started(tmp_path):
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"
    outcome = await attempt(check(ExecProbe(argv=("sh", "-c", script)), timeout_s=0.5))
    assert outcome == Outcome(passed=False, detail="no answer within 0.5 s")
    assert await until(lambda: _gone(int(pid_file.read_text())))


def _gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(condition, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        await asyncio.sleep(0.005)
    return False


class Told:
    def __init__(self) -> None:
        self.changes: list[tuple[str, str, str]] = []

    def __call__(self, namespace: str, name: str, health: str, detail: str) -> None:
        self.changes.append((f"{namespace}/{name}", health, detail))


async def test_the_first_result_is_told_at_once_and_then_only_changes():
    told = Told()
    checks = HealthChecks(told)
    async with App(b"HTTP/1.1 200 OK\r\n\r\n") as app:
        assert checks.health("default", "cart") == "unknown"
        checks.replace([check(HttpProbe(path="/"), app.port)])
        assert await until(lambda: len(app.requests) >= 4)
        assert told.changes == [("default/cart", "passing", "HTTP 200")]
        app.answer = b"HTTP/1.1 503 No\r\n\r\n"
        assert await until(lambda: len(told.changes) == 2)
        assert told.changes[1] == ("default/cart", "failing", "HTTP 503")
        app.answer = b"HTTP/1.1 200 OK\r\n\r\n"
        assert await until(lambda: len(told.changes) == 3)
        assert told.changes[2] == ("default/cart", "passing", "HTTP 200")
        assert (checks.health("default", "cart"), checks.detail("default", "cart")) == ("passing", "HTTP 200")
    await checks.close()


async def test_a_first_failure_is_told_at_once_too():
    told = Told()
    checks = HealthChecks(told)
    checks.replace([check(ExecProbe(argv=("false",)), interval_s=60)])
    assert await until(lambda: told.changes)
    assert told.changes == [("default/cart", "failing", "exit code 1")]
    await checks.close()


async def test_one_failure_between_passes_changes_nothing(tmp_path):
    """The command fails on its third run only."""
    count = tmp_path / "count"
    script = f"echo x >> {count}; test $(wc -l < {count}) -ne 3"
    told = Told()
    checks = HealthChecks(told)
    checks.replace([check(ExecProbe(argv=("sh", "-c", script)))])
    assert await until(lambda: count.exists() and count.read_text().count("x") >= 5)
    assert [change[1] for change in told.changes] == ["passing"]
    await checks.close()


async def test_replacing_keeps_what_did_not_change_and_forgets_what_went():
    told = Told()
    checks = HealthChecks(told)
    one = check(ExecProbe(argv=("true",)), name="one", interval_s=60)
    two = check(ExecProbe(argv=("true",)), name="two", interval_s=60)
    checks.replace([one, two])
    assert await until(lambda: len(told.changes) == 2)
    checks.replace([one, check(ExecProbe(argv=("false",)), name="two", interval_s=60)])
    assert checks.health("default", "one") == "passing"
    assert checks.health("default", "two") == "unknown"
    assert await until(lambda: len(told.changes) == 3)
    assert told.changes[2][:2] == ("default/two", "failing")
    checks.replace([])
    assert checks.health("default", "one") == "unknown"
    await checks.close()


async def test_closing_leaves_no_process_behind(tmp_path):
    pid_file = tmp_path / "pid"
    checks = HealthChecks(Told())
    argv = (
        sys.executable,
        "-c",
        f"import os,time; open({str(pid_file)!r},'w').write(str(os.getpid())); time.sleep(60)",
    )
    checks.replace([check(ExecProbe(argv=argv), timeout_s=50)])
    assert await until(lambda: pid_file.exists() and pid_file.read_text() != "")
    await checks.close()
    assert _gone(int(pid_file.read_text()))
