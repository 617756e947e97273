"""Pieces that request smuggling is made of, and streams of requests made of them."""

import random

LINES = [
    "GET / HTTP/1.1",
    "POST /a HTTP/1.1",
    "PUT /a/../b?x=y HTTP/1.1",
    "POST /%61 HTTP/1.1",
    "POST //a\\b HTTP/1.1",
    "GET http://echo/abs HTTP/1.1",
    "POST / HTTP/1.0",
    "GET\t/ HTTP/1.1",
    "GET /a  HTTP/1.1",
    "POST /a;b=c HTTP/1.1",
]
LENGTHS = [
    "Content-Length: 5",
    "content-length:5",
    "Content-Length: 5 ",
    "Content-Length:\t5",
    "Content-Length: 05",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 0",
    "Content-Length: 0",
    "Content-Length: 44",
    "Content-Length : 5",
    "Content-Length: 5\r\n ",
    "Content_Length: 5",
    "Content-Length: 0x5",
    "Content-Length: 5_0",
    "Content-Length:",
    "X: y\nContent-Length: 5",
    "X: y\rContent-Length: 5",
    "\x0bContent-Length: 5",
    "Content-Length: -5",
]
CODINGS = [
    "Transfer-Encoding: chunked",
    "transfer-encoding:chunked",
    "Transfer-Encoding: CHUNKED",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked;q=1",
    'Transfer-Encoding: "chunked"',
    "Transfer_Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding: chunk\x00ed",
    "TE: chunked",
    "Transfer-Encoding: ,chunked",
]
OTHERS = [
    "X-A: b",
    "Expect: 100-continue",
    "Connection: close",
    "Connection: content-length",
    "Connection: transfer-encoding",
    "Connection: x-a",
    "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    "Host: echo",
    "X: a\r\n b",
    "Trailer: x-mark",
    "X-Forwarded-For: 1",
    "Keep-Alive: timeout=9",
]
HIDDEN = "GET /evil HTTP/1.1\r\nHost: echo\r\nx-mark: {mark}\r\n\r\n"
BODIES = [
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "05\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    '5;a="\r\nhello\r\n0\r\n\r\n',
    "5\nhello\n0\n\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 9\r\nx-t: 1\r\n\r\n",
    "5\r\nhello\r\n0\r\nx: y\n\r\n",
    "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n00\r\n\r\n",
    "5\r\nhello\r\n0;x\r\n\r\n",
    "5\r\r\nhello\r\n0\r\n\r\n",
    "0\r\n\n",
    "5\r\nhello\r\n-0\r\n\r\n",
    "a\r\nhello",
]


def stream_of(rng: random.Random, number: int) -> bytes:
    """A few requests, most of them wrong somewhere, and one hidden in the body of another."""
    parts = []
    for index in range(rng.randint(1, 3)):
        mark = f"{number}-{index}"
        lines = [
            rng.choice(LINES) if rng.random() < 0.5 else "POST /a HTTP/1.1",
            "Host: echo",
            f"x-mark: {mark}",
        ]
        if rng.random() < 0.6:
            lines.append(rng.choice(LENGTHS) if rng.random() < 0.6 else "Content-Length: 5")
        if rng.random() < 0.5:
            lines.append(rng.choice(CODINGS) if rng.random() < 0.6 else "Transfer-Encoding: chunked")
        if rng.random() < 0.3:
            lines.append(rng.choice(OTHERS))
        fields = lines[1:]
        rng.shuffle(fields)
        end = "\n" if rng.random() < 0.03 else "\r\n"
        parts.append(end.join([lines[0], *fields]) + end * 2 + rng.choice(BODIES))
        if rng.random() < 0.4:
            parts.append(HIDDEN.format(mark=f"{number}-{index}-evil"))
    parts.append(f"GET /last HTTP/1.1\r\nHost: echo\r\nConnection: close\r\nx-mark: {number}-last\r\n\r\n")
    return "".join(parts).encode("latin-1")


# ---------------------------------------------------------------- HTTP/2, on its way to HTTP/1.1

INJECTED = "GET /evil HTTP/1.1\r\nHost: echo\r\nx-mark: evil\r\n\r\n"
EVIL_FIELDS = [
    ("content-length", "0"),
    ("content-length", "5"),
    ("content-length", "500"),
    ("content-length", "5, 5"),
    ("content-length", "+5"),
    ("transfer-encoding", "chunked"),
    ("Transfer-Encoding", "chunked"),
    ("transfer-encoding ", "chunked"),
    ("te", "trailers, chunked"),
    ("connection", "close"),
    ("connection", "content-length"),
    ("upgrade", "h2c"),
    ("keep-alive", "x"),
    ("proxy-connection", "close"),
    ("host", "echo"),
    ("host", "other"),
    ("x", "a\r\nTransfer-Encoding: chunked"),
    ("x", "a\nContent-Length: 0"),
    ("x", "a\r\n\r\n" + INJECTED),
    ("x", "a\x00b"),
    ("x\r\ntransfer-encoding", "chunked"),
    ("x: y\r\nz", "a"),
    ("x: y", "a"),
    ("", "a"),
    ("x", " a"),
    ("x", "a\r"),
    (":path", "/twice"),
    (":status", "200"),
    ("expect", "100-continue"),
    ("x-forwarded-client-cert", "By=me"),
    ("cookie", "a=b"),
    ("cookie", "c=d"),
]
EVIL_PSEUDO = [
    (":path", "/a HTTP/1.1\r\nHost: echo\r\n\r\n" + INJECTED),
    (":path", "/a b"),
    (":path", "a"),
    (":path", "http://echo/abs"),
    (":path", "/x/../a"),
    (":path", "/a#b"),
    (":path", "*"),
    (":path", ""),
    (":method", "GET /evil HTTP/1.1\r\nHost: echo\r\nx-mark: evil\r\n\r\nGET"),
    (":method", "G T"),
    (":method", "get"),
    (":method", "CONNECT"),
    (":authority", "echo\r\nx: y"),
    (":authority", "a@echo"),
    (":authority", "echo/x"),
    (":authority", ""),
    (":scheme", "http://echo/evil?"),
    (":scheme", "file"),
]
EVIL_BODIES = ["", "hello", "0\r\n\r\n" + INJECTED, INJECTED, "5\r\nhello\r\n0\r\n\r\n" + INJECTED]


def fields_of(rng: random.Random, mark: str) -> tuple[list[tuple[str, str]], str]:
    """The fields of a request with something evil in it, or nothing, and its body."""
    pseudo = {":method": "POST", ":scheme": "http", ":authority": "echo", ":path": "/a"}
    if rng.random() < 0.4:
        name, value = rng.choice(EVIL_PSEUDO)
        pseudo[name] = value
    regular = [("x-mark", mark)]
    regular += [rng.choice(EVIL_FIELDS) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
    rng.shuffle(regular)
    return [*pseudo.items(), *regular], rng.choice(EVIL_BODIES)
