"""What is written: heads, filters, and the view decisions have of headers."""

import pytest

from proxy.embedded.heads import HeaderView, compile_edit, own_response, request_head, response_head
from proxy.embedded.http1 import CHUNKED, Request
from proxy.snapshot import HeaderEdit


def plain_request() -> Request:
    request = Request()
    request.method, request.body, request.upgrade, request.expects = "GET", 0, b"", False
    return request


def test_the_view_joins_repeated_headers_and_knows_the_host() -> None:
    view = HeaderView([(b"x-a", b"1 "), (b"x-b", b"\xe9"), (b"x-a", b"2")], b"cart:80", plain_request())
    assert dict(view) == {"host": "cart:80", "x-a": "1,2", "x-b": "é"}
    assert view.get("x-c") is None
    assert len(view) == 3


def test_the_view_has_what_a_request_asks_of_the_connection() -> None:
    request = plain_request()
    request.upgrade, request.expects, request.body = b"websocket", True, 7
    assert dict(HeaderView([], b"cart", request)) == {
        "host": "cart", "upgrade": "websocket", "expect": "100-continue", "content-length": "7",
    }  # fmt: skip
    request.body = CHUNKED
    assert "content-length" not in HeaderView([], b"cart", request)


def test_filters_set_then_add_then_remove() -> None:
    edit = compile_edit(
        HeaderEdit(set=(("X-A", "new"), ("x-gone", "1")), add=(("x-b", "more"),), remove=("x-gone", "x-c"))
    )
    before = [(b"x-a", b"old"), (b"x-a", b"older"), (b"x-b", b"1"), (b"x-c", b"2"), (b"x-d", b"3")]
    after = [(b"x-b", b"1"), (b"x-d", b"3"), (b"x-a", b"new"), (b"x-b", b"more")]
    assert edit.apply(before) == after
    assert edit.apply_to_lines([b"%b: %b" % pair for pair in before]) == [b"%b: %b" % pair for pair in after]


@pytest.mark.parametrize(
    "edit",
    [
        HeaderEdit(set=(("x a", "1"),)), HeaderEdit(set=(("x", "a\r\nb: c"),)), HeaderEdit(add=(("x", "\0"),)),
        HeaderEdit(remove=("",)), HeaderEdit(set=(("Content-Length", "1"),)), HeaderEdit(remove=("host",)),
        HeaderEdit(add=(("transfer-encoding", "chunked"),)), HeaderEdit(set=(("x-forwarded-client-cert", "me"),)),
        HeaderEdit(add=(("X_Forwarded-Client_Cert", "me"),)), HeaderEdit(set=(("http2-settings", "x"),)),
        HeaderEdit(set=(("x", "€"),)),
    ],
)  # fmt: skip
def test_filters_that_could_break_a_head_are_refused(edit: HeaderEdit) -> None:
    with pytest.raises(ValueError, match="header"):
        compile_edit(edit)


@pytest.mark.parametrize(
    ("method", "body", "upgrade", "end"),
    [
        ("GET", 0, b"", b"x: y\r\nz: 1\r\n\r\n"),
        ("POST", 0, b"", b"x: y\r\nz: 1\r\ncontent-length: 0\r\n\r\n"),
        ("GET", 7, b"", b"x: y\r\nz: 1\r\ncontent-length: 7\r\n\r\n"),
        ("PUT", CHUNKED, b"", b"x: y\r\nz: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("GET", 0, b"ws", b"x: y\r\nz: 1\r\nconnection: upgrade\r\nupgrade: ws\r\n\r\n"),
    ],
)
def test_a_request_head_says_how_long_its_body_is(method: str, body: int, upgrade: bytes, end: bytes) -> None:
    request = Request()
    request.method, request.body, request.upgrade, request.expects = method, body, upgrade, False
    head = request_head(request, b"/p", b"h", [(b"x", b"y")], b"z: 1\r\n")
    assert head == f"{method} /p HTTP/1.1\r\nhost: h\r\n".encode() + end


def test_a_response_head_ends_with_its_framing() -> None:
    assert response_head(200, b"OK", [b"a: b"], b"content-length: 1\r\n") == (
        b"HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 1\r\n\r\n"
    )


def test_a_response_head_with_another_status_or_no_headers() -> None:
    assert response_head(503, b"", [], b"") == b"HTTP/1.1 503 \r\n\r\n"


def test_own_answers_are_one_line_of_text_signed_gossamer() -> None:
    assert own_response(404, "no", keep=b"connection: close\r\n", headers=[], to_head=False) == (
        b"HTTP/1.1 404 Not Found\r\nserver: gossamer\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"content-length: 3\r\nconnection: close\r\n\r\nno\n"
    )
    assert own_response(302, "", keep=b"", headers=[(b"location", b"/x")], to_head=False) == (
        b"HTTP/1.1 302 Found\r\nserver: gossamer\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"
    )
    assert own_response(503, "no", keep=b"", headers=[], to_head=True).endswith(b"content-length: 3\r\n\r\n")
