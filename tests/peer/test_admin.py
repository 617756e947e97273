"""The admin API on a real Unix socket and a real TCP port, by its own client and by hostile ones."""

import asyncio
import http.client
import json
import os
import socket
import stat
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.admin.client import AdminClient, ClientError
from peer.admin.server import BODY_BYTES_MAX, AdminError, AdminServer, host_is_literal
from peer.admin.sockets import SocketBusyError, bind_unix, connect_unix
from peer.api import ApiError, Json
from tests.peer.fakepeer import FakePeer, ServedPeer


@pytest.fixture
def served(tmp_path):
    with ServedPeer(tmp_path) as peer:
        yield peer


@pytest.fixture
def client(served) -> AdminClient:
    return AdminClient(served.data_dir)


# ---------------------------------------------------------------- every call, there and back


def test_each_call_reaches_the_peer_with_its_arguments(served, client):
    document = {"kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "shop"}, "spec": {"x": "ü"}}
    assert client.members()[0]["name"] == "one"
    assert client.join(["a:1", "b:2"]) == {"contacted": ["a:1", "b:2"], "failed": {}}
    assert client.services() == []
    assert client.register([{"service": {"name": "cart"}}], "cart.yaml")[0]["name"] == "cart"
    assert client.deregister("shop", "cart") == {"namespace": "shop", "name": "cart"}
    assert client.apply([document], "r.yaml", wait_percent=99.0, timeout_s=3.0)[0]["action"] == "created"
    assert client.apply([document], "r.yaml")[0]["name"] == "r"
    assert client.get("HTTPRoute") == []
    assert client.get("all", "shop", "a/b ü?") == []
    assert client.find([("HTTPRoute", "shop", "r")]) == [None]
    assert client.describe("HTTPRoute", "shop", "r") == {"kind": "HTTPRoute"}
    assert client.history("HTTPRoute", "shop", "r") == []
    assert client.delete([("HTTPRoute", "shop", "a.b-c")])[0]["action"] == "deleted"
    token = client.token_create(services=["shop/*"], ttl_s=60.0, uses=3, publish=False, invite=True)
    assert token == "gsm1.secret"
    assert client.stat() == []
    assert client.edges() == []
    assert client.check()[0]["status"] == "ok"
    assert client.ca_status()["can_issue"] is True
    assert client.health()["ready"] is True
    assert client.revoke("node", "one", "lost")["subject"] == "node:one"
    assert client.leave(revoke=True, reason="sold") == {"left": True}
    assert client.leave() == {"left": True}
    assert client.upgrade() == {"pid": os.getpid()}
    assert [call for call in served.api.calls if call[1]] == [
        ("join", (["a:1", "b:2"],)),
        ("register", ([{"service": {"name": "cart"}}], "cart.yaml")),
        ("deregister", ("shop", "cart")),
        ("apply", ([document], "r.yaml", 99.0, 3.0)),
        ("apply", ([document], "r.yaml", None, 10.0)),
        ("get", ("HTTPRoute", None, None)),
        ("get", ("all", "shop", "a/b ü?")),
        ("find", ([("HTTPRoute", "shop", "r")],)),
        ("describe", ("HTTPRoute", "shop", "r")),
        ("history", ("HTTPRoute", "shop", "r")),
        ("delete", ([("HTTPRoute", "shop", "a.b-c")], None, 10.0)),
        ("token_create", (["shop/*"], 60.0, 3, False, True, False)),
        ("revoke", ("node", "one", "lost")),
        ("leave", ("sold",)),
    ]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_a_refusal_arrives_with_its_words_and_its_code(served, client, code):
    served.raises("members", "the words a user should read", code)
    with pytest.raises(ClientError, match=r"^the words a user should read$") as caught:
        client.members()
    assert caught.value.code == code


def test_a_bug_in_the_peer_is_one_line_for_the_user_and_a_traceback_in_the_log(served, client, caplog):
    served.api.answers["members"] = ZeroDivisionError("oops")
    with pytest.raises(ClientError, match="failed on this request; its log says why") as caught:
        client.members()
    assert "oops" not in str(caught.value)
    assert "ZeroDivisionError: oops" in caplog.text


def test_a_large_answer_arrives_whole(served, client):
    served.api.answers["members"] = [{"name": f"n{number}", "pad": "x" * 1000} for number in range(5000)]
    assert len(client.members()) == 5000


def test_progress_arrives_as_it_goes_and_the_result_at_the_end(served, client):
    served.api.events = [{"published": [1]}, *({"enforcement": {"enforced": n}} for n in range(4))]
    served.api.event_s = 0.15
    told = []
    rows = client.delete([("HTTPRoute", "shop", "r")], wait_percent=50.0, timeout_s=3.0, progress=told.append)
    assert rows[0]["action"] == "deleted"
    assert told[0]["published"] == [1]
    assert [each["enforcement"]["enforced"] for each in told if "enforcement" in each][-1] == 3
    assert len(told) > 2
    assert client.delete([("HTTPRoute", "shop", "r")])[0]["action"] == "deleted"  # and without, as always
    served.api.events = []
    assert client.delete([("HTTPRoute", "shop", "r")], progress=told.append)[0]["action"] == "deleted"


@pytest.mark.parametrize("events", [[], [{"published": []}]])
def test_a_refusal_is_the_same_before_and_after_there_was_progress(served, client, events):
    served.api.events = events
    served.raises("apply", "published, but enforced by only 1 of 2 members", 3)
    told = []
    with pytest.raises(ClientError, match=r"^published, but enforced by only 1 of 2 members$") as caught:
        client.apply([{"kind": "x", "metadata": {}}], "f", wait_percent=100.0, progress=told.append)
    assert caught.value.code == 3
    assert [list(each) for each in told] == [list(each) for each in events]


def test_a_bug_while_progress_is_told_is_one_line(served, client, caplog):
    served.api.events = [{"published": []}]
    served.api.answers["apply"] = ValueError("a bug")
    with pytest.raises(ClientError, match="is it still running"):
        client.apply([{"kind": "x", "metadata": {}}], "f", progress=lambda _event: None)
    assert "a bug" in caplog.text


def test_who_stops_listening_to_progress_ends_the_waiting(served):
    served.api.events = [{"enforcement": {"n": n}} for n in range(1000)]
    served.api.event_s = 0.02
    body = json.dumps({"documents": [{"kind": "x", "metadata": {}}], "source": "f"}).encode()
    request = (
        f"POST /v1/resources HTTP/1.1\r\nHost: peer\r\nAccept: application/x-ndjson\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    connection = connect_unix(served.data_dir / "admin.sock", 5.0)
    connection.sendall(request)
    assert b"200 OK" in connection.recv(65536)
    connection.close()

    async def tasks() -> int:
        return sum("apply" in repr(each.get_coro()) for each in asyncio.all_tasks())

    deadline = time.monotonic() + 5
    while asyncio.run_coroutine_threadsafe(tasks(), served.loop).result(5):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert served.api.calls == []  # it never came to its end


def test_many_callers_at_once_are_all_answered(served, client):
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(len(client.members()))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 40


# ---------------------------------------------------------------- hostile requests


def raw(served: ServedPeer, data: bytes, *, tcp: bool = False, end: bool = False) -> bytes:
    connection = (
        socket.create_connection(served.address, 5)
        if tcp
        else connect_unix(served.data_dir / "admin.sock", 5)
    )
    with connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def post(served: ServedPeer, path: str, body: bytes) -> tuple[int, dict]:
    head = f"POST {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = raw(served, head.encode() + body)
    status_line, _, rest = answer.partition(b"\r\n")
    return int(status_line.split()[1]), json.loads(rest.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/join", b"{", "the request is not JSON"),
        ("/v1/join", b"\xff", "the request is not JSON"),
        ("/v1/join", b"[" * 100_000, "the request is not JSON"),
        ("/v1/join", b"[]", "the request must be a JSON object"),
        ("/v1/join", b"{}", "seeds must be a list of texts"),
        ("/v1/join", b'{"seeds": "a:1"}', "seeds must be a list of texts"),
        ("/v1/join", b'{"seeds": [1]}', "seeds must be a list of texts"),
        ("/v1/join", b'{"seeds": [], "sedes": 1}', "the request has an unknown key: sedes"),
        ("/v1/resources", b'{"documents": [1], "source": "x"}', "documents must be a list of objects"),
        ("/v1/resources", b'{"documents": []}', "source must be text"),
        ("/v1/resources", b'{"documents": [], "source": "x", "wait_percent": "99"}', "wait_percent must be a number"),
        ("/v1/resources", b'{"documents": [], "source": "x", "timeout_s": 1e99}', "timeout_s must be a number"),
        ("/v1/resources", b'{"documents": [], "source": "x", "timeout_s": NaN}', "timeout_s must be a number"),
        ("/v1/deletions", b'{"resources": []}', "resources must be a list of 1 to"),
        ("/v1/deletions", b'{"resources": [{"kind": "a", "name": "b"}]}', "object of kind, namespace and name"),
        ("/v1/find", b'{"resources": 7}', "resources must be a list of 1 to"),
        ("/v1/tokens", b'{"services": [], "ttl_s": true, "uses": 1}', "ttl_s must be a number from 1"),
        ("/v1/tokens", b'{"services": [], "ttl_s": 60, "uses": 0}', "uses must be a number from 1"),
        ("/v1/tokens", b'{"services": [], "ttl_s": 60, "uses": 1, "publish": 1}', "publish must be true or false"),
    ],
)  # fmt: skip
def test_a_body_that_is_wrong_is_refused_before_it_reaches_the_peer(served, path, body, words):
    status, answer = post(served, path, body)
    assert status == 400
    assert words in answer["error"]
    assert answer["code"] == 2
    assert served.api.calls == []


def test_a_body_that_is_too_large_is_refused(served):
    status, answer = post(served, "/v1/join", b" " * (BODY_BYTES_MAX + 1))
    assert (status, answer["error"]) == (413, "the request is larger than 8 MiB")


def test_too_many_documents_are_refused(served):
    status, answer = post(
        served, "/v1/services", b'{"source": "", "documents": [' + b"{}," * 10_000 + b"{}]}"
    )
    assert (status, answer["error"]) == (400, "at most 10000 documents at once, these are 10001")


@pytest.mark.parametrize(("path", "status"), [("/v1/nothing", 404), ("/", 404), ("/v1/members", 405)])
def test_what_is_not_there_is_refused_as_json(served, path, status):
    found, answer = post(served, path, b"{}")
    assert found == status
    assert answer["code"] == 2


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_body_gets_an_answer(served, body):
    status, answer = post(served, "/v1/tokens", body)
    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize("tcp", [False, True])
def test_bytes_that_are_no_http_end_the_connection_and_nothing_else(served, client, tcp, caplog):
    assert raw(served, b"\x16\x03\x01\x00\xff" + os.urandom(200), tcp=tcp, end=True)[:12] in (
        b"HTTP/1.0 400",
        b"HTTP/1.1 400",
        b"",
    )
    assert client.members()


# ---------------------------------------------------------------- the TCP listener


def ask(served: ServedPeer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*served.address, timeout=5)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_probes_and_metrics_are_served_on_tcp(served):
    assert ask(served, "/healthz")[0] == 200
    assert ask(served, "/readyz")[0] == 200
    assert ask(served, "/metrics") == (200, b"gossamer_members 1\n")
    assert ask(served, "/metrics", "HEAD") == (200, b"")


def test_a_peer_that_is_not_ready_says_so(served):
    served.api.ready = False
    status, body = ask(served, "/readyz")
    assert status == 503
    assert json.loads(body)["ready"] is False
    assert ask(served, "/healthz")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written_on_tcp(served, method):
    assert ask(served, "/metrics", method)[0] == 405
    assert ask(served, "/v1/leave", method)[0] == 405
    assert served.api.calls == []


@pytest.mark.parametrize("path", ["/v1/members", "/v1/stat", "/v1/tokens", "/../v1/members"])
def test_the_api_is_not_on_tcp(served, path):
    assert ask(served, path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:15020", "127.0.0.1.evil.example", "", "localhost.evil"]
)
def test_a_name_that_is_somebody_elses_is_refused(served, host):
    assert ask(served, "/metrics", Host=host)[0] == 421


@pytest.mark.parametrize(
    ("host", "literal"),
    [
        ("127.0.0.1", True), ("127.0.0.1:15020", True), ("10.1.2.3:80", True), ("localhost", True),
        ("LOCALHOST:1", True), ("[::1]", True), ("[::1]:15020", True), ("::1", False),
        ("localhost.", False), ("a", False), ("", False), (":", False), ("[", False), ("127.0.0.1:x", False),
    ],
)  # fmt: skip
def test_host_headers(host, literal):
    assert host_is_literal(host) is literal


@given(st.text(max_size=40))
def test_any_host_header_is_judged(host):
    assert host_is_literal(host) in (True, False)


# ---------------------------------------------------------------- sockets


def test_the_socket_is_private_and_goes_with_the_server(tmp_path):
    before = os.umask(0)
    try:
        with ServedPeer(tmp_path) as served:
            assert stat.S_IMODE((served.data_dir / "admin.sock").stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not (tmp_path / "admin.sock").exists()


def test_a_path_longer_than_a_unix_address_works(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with ServedPeer(deep):
        assert AdminClient(deep).members()


def test_a_stale_socket_is_replaced(tmp_path):
    bind_unix(tmp_path / "admin.sock").close()  # bound, never unlinked: as after a kill -9
    assert (tmp_path / "admin.sock").is_socket()
    with pytest.raises(ClientError, match="no peer is running at"):
        AdminClient(tmp_path).members()
    with ServedPeer(tmp_path):
        assert AdminClient(tmp_path).members()


def test_a_socket_somebody_answers_at_is_left_alone(served):
    with pytest.raises(SocketBusyError, match=r"another peer answers at .*admin\.sock"):
        bind_unix(served.data_dir / "admin.sock")
    assert AdminClient(served.data_dir).members()


def test_a_file_in_the_way_is_not_removed(tmp_path):
    (tmp_path / "admin.sock").write_text("precious")
    with pytest.raises((SocketBusyError, OSError)):
        bind_unix(tmp_path / "admin.sock")
    assert (tmp_path / "admin.sock").read_text() == "precious"


async def test_a_taken_port_is_named_and_nothing_is_left_open(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = AdminServer(FakePeer(), data_dir=tmp_path, host="127.0.0.1", port=port)
        with pytest.raises(
            AdminError, match=f"admin port 127.0.0.1:{port} cannot be opened: .*address already in use"
        ):
            await server.start()
    assert not (tmp_path / "admin.sock").exists()


async def test_a_taken_socket_is_named_and_the_port_is_given_back(tmp_path):
    first = await AdminServer(FakePeer(), data_dir=tmp_path, host="127.0.0.1", port=0).start()
    second = AdminServer(FakePeer(), data_dir=tmp_path, host="127.0.0.1", port=0)
    with pytest.raises(AdminError, match=r"admin\.sock cannot be opened: another peer answers"):
        await second.start()
    assert (tmp_path / "admin.sock").is_socket()
    await first.close()
    await first.close()


async def test_a_directory_that_is_not_there_is_named(tmp_path):
    server = AdminServer(FakePeer(), data_dir=tmp_path / "no", host="127.0.0.1", port=0)
    with pytest.raises(AdminError, match=r"no/admin\.sock cannot be opened: no such file or directory"):
        await server.start()


async def test_a_request_under_way_is_answered_before_the_server_closes(tmp_path):
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(FakePeer):
        async def members(self) -> list[Json]:
            entered.set()
            await release.wait()
            return [{"name": "late"}]

    server = await AdminServer(Slow(), data_dir=tmp_path, host="127.0.0.1", port=0).start()
    answer = asyncio.create_task(asyncio.to_thread(AdminClient(tmp_path).members))
    await entered.wait()
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    release.set()
    assert await answer == [{"name": "late"}]
    await closing


# ---------------------------------------------------------------- the client


def test_no_peer_is_told_with_how_to_start_one(tmp_path):
    with pytest.raises(ClientError) as caught:
        AdminClient(tmp_path / "none").members()
    assert f"no peer is running at {tmp_path}/none/admin.sock (start one with: gossamer peer" in str(
        caught.value
    )
    assert caught.value.code == 1


class RudeServer:
    """A Unix listener that answers each connection with fixed bytes."""

    def __init__(self, path, answer: bytes, *, silent: bool = False) -> None:
        self._listener = bind_unix(path)
        self._listener.setblocking(True)
        self._listener.listen()
        self._answer = answer
        self._silent = silent
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self._open:
            connection.close()

    def _run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            if not self._silent:
                connection.recv(65536)
                connection.sendall(self._answer)
                connection.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended the connection"),
        (b"garbage\r\n\r\n", "ended the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", "ended the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", "answered /v1/members with 200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "answered /v1/members with something else"),
        (b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n[]", "answered /v1/members with 400"),
        (b'HTTP/1.1 400 No\r\nContent-Length: 26\r\n\r\n{"error": "x", "code": 99}', "x"),
    ],
)
def test_whatever_answers_the_user_gets_one_line(tmp_path, answer, words):
    with RudeServer(tmp_path / "admin.sock", answer), pytest.raises(ClientError) as caught:
        AdminClient(tmp_path).members()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 1


def test_a_peer_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("peer.admin.client.TIMEOUT_S", 0.1)
    monkeypatch.setitem(AdminClient._list.__kwdefaults__, "timeout_s", 0.1)
    began = time.monotonic()
    with (
        RudeServer(tmp_path / "admin.sock", b"", silent=True),
        pytest.raises(ClientError, match=r"within 0\.1 s"),
    ):
        AdminClient(tmp_path).members()
    assert time.monotonic() - began < 5


def test_api_errors_default_to_exit_code_1():
    assert ApiError("x").code == 1
