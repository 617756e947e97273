"""Debian's nginx takes our leafs in a mutual handshake, and refuses the others.

nginx judges the chain and the dates; names it does not look at, and no variable of it shows them. So a leaf that *our*
root signed with two names, or for another trust domain, is a valid client to nginx alone: the promise is then the
issuance policy's (`draft_svid` signs none), and where nginx must not rely on it, its `auth_request` asks a verifier
of SVIDs with the certificate, as here.
"""

import asyncio
import urllib.parse
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trust.errors import SvidError
from trust.svid import verify_svid

CONFIG = """
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/1; proxy_temp_path {directory}/2; fastcgi_temp_path {directory}/3;
    uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
    ssl_certificate {directory}/cart.pem;
    ssl_certificate_key {directory}/cart.key;
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;
    ssl_client_certificate {directory}/root.pem;
    ssl_verify_client on;
    ssl_verify_depth 1;
    server {{
        listen 127.0.0.1:{plain} ssl;
        location / {{ return 200 "hello $ssl_client_verify"; }}
    }}
    server {{
        listen 127.0.0.1:{asking} ssl;
        location / {{ auth_request /judge; try_files /none @hello; }}
        location @hello {{ return 200 "hello $ssl_client_verify"; }}
        location = /judge {{
            internal;
            proxy_pass http://127.0.0.1:{judge};
            proxy_set_header X-Certificate $ssl_client_escaped_cert;
        }}
    }}
}}
"""


class Judge:
    """A verifier of SVIDs behind HTTP, as nginx's `auth_request` wants it."""

    def __init__(self, root_public: bytes, trust_domain: str, now: float) -> None:
        self.root_public, self.trust_domain, self.now = root_public, trust_domain, now
        self.refusals: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        escaped = next(line for line in head.split("\r\n") if line.startswith("X-Certificate: "))
        pem = urllib.parse.unquote(escaped.removeprefix("X-Certificate: "))
        der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
        status = "200 OK"
        try:
            verify_svid(der, root_public=self.root_public, trust_domain=self.trust_domain, now=self.now)
        except SvidError as error:
            self.refusals.append(str(error))
            status = "403 Forbidden"
        writer.write(f"HTTP/1.0 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def nginx(cart: Any, software: Any, tmp_path: Path, reserve: Callable[[], int]) -> AsyncIterator[Any]:
    """(the port that believes nginx alone, the port that asks the judge, the judge)"""
    software.write_identity(tmp_path, "cart", cart.good())
    (tmp_path / "root.pem").write_bytes(cart.live.root_pem)
    judge = Judge(cart.live.root_public, cart.live.trust_domain, cart.live.now)
    judging = await asyncio.start_server(judge.answer, "127.0.0.1", 0)
    plain, asking = reserve(), reserve()
    config = CONFIG.format(
        directory=tmp_path, plain=plain, asking=asking, judge=judging.sockets[0].getsockname()[1]
    )
    (tmp_path / "nginx.conf").write_text(config)
    command = (software.program("nginx"), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
    async with judging, software.running([plain, asking], tmp_path / "log", *command):
        yield plain, asking, judge


async def test_a_good_leaf_is_taken_on_both_sides(nginx: Any, web: Any, software: Any) -> None:
    plain, asking, judge = nginx
    for port in (plain, asking):
        answer = await software.get(port, web, web.good(), software.CART)
        assert answer.startswith("HTTP/1.1 200"), answer
        assert answer.endswith("hello SUCCESS")
    assert judge.refusals == []


@pytest.mark.parametrize("kind", ["forged", "of_another_root", "of_another_mesh", "expired"])
async def test_a_leaf_that_is_not_ours_or_not_valid_is_refused_by_nginx_alone(
    nginx: Any, web: Any, software: Any, kind: str
) -> None:
    plain, _, judge = nginx
    answer = await software.get(plain, web, getattr(web, kind)(), software.CART)
    assert "hello" not in answer
    assert answer == "" or (answer.startswith("HTTP/1.1 400") and "SSL certificate error" in answer)
    assert judge.refusals == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("two_names", "exactly one URI name"),
        ("of_another_domain", "not in trust domain"),
        ("authority", "it is a CA"),
    ],
)
async def test_what_only_a_verifier_of_svids_sees_is_refused_where_nginx_asks_one(
    nginx: Any, web: Any, software: Any, kind: str, reason: str
) -> None:
    plain, asking, judge = nginx
    shown = getattr(web, kind)()
    answer = await software.get(asking, web, shown, software.CART)
    assert answer.startswith("HTTP/1.1 403"), answer
    assert reason in judge.refusals[0]
    # The words of this file's head: were this to change, so should they.
    assert "hello SUCCESS" in await software.get(plain, web, shown, software.CART)


async def test_our_side_refuses_an_nginx_that_shows_two_names(
    web: Any, cart: Any, software: Any, tmp_path: Path, reserve: Callable[[], int]
) -> None:
    software.write_identity(tmp_path, "cart", cart.two_names())
    (tmp_path / "root.pem").write_bytes(cart.live.root_pem)
    plain, asking = reserve(), reserve()
    config = CONFIG.format(directory=tmp_path, plain=plain, asking=asking, judge=1)
    (tmp_path / "nginx.conf").write_text(config)
    command = (software.program("nginx"), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
    async with software.running([plain], tmp_path / "log", *command):
        with pytest.raises(software.ssl.SSLCertVerificationError, match="exactly one URI name"):
            await software.get(plain, web, web.good(), software.CART)
