"""The admin API: `PeerApi` as JSON over a Unix socket, and a read-only listener for probes and Prometheus.

Writing needs the file `<data_dir>/admin.sock` (mode 0600), never a network port. The TCP listener on the loopback
address answers GET and HEAD of /healthz, /readyz and /metrics, and nothing else. A web page somebody has open must
not read it through a name that resolves to 127.0.0.1 (DNS rebinding), so a Host that is neither an IP address nor
`localhost` is refused.

Errors are `{"error": words, "code": exit code of the command line}`.

Invariant: whatever a client sends, it gets a status and a line of JSON; a body is bounded before it is parsed.
"""

import contextlib
import ipaddress
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Self

from aiohttp import web

from peer.admin.sockets import SOCKET_NAME, SocketBusyError, bind_unix
from peer.admin.streaming import reply, streamed
from peer.api import ApiError, PeerApi
from peer.io.held import ADMIN_PORT, ADMIN_SOCKET, HeldSockets

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
DOCUMENTS_MAX: Final = 10_000
TIMEOUT_S_MAX: Final = 3600.0
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_STATUS: Final = {1: 409, 2: 400, 3: 504}  # of an ApiError's code
_BACKLOG: Final = 128

_API: Final = web.AppKey("api", PeerApi)
_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminError(Exception):
    """The admin listeners cannot be opened; the message names the socket or the port. None of them is open."""


class AdminServer:
    """Both listeners. `start` opens them, `close` answers what is under way and removes the socket file."""

    def __init__(
        self, api: PeerApi, *, data_dir: Path, host: str, port: int, held: HeldSockets | None = None
    ) -> None:
        """`held` are bound already; those that fit are used."""
        self.socket_path = data_dir / SOCKET_NAME
        self.address = (host, port)
        self._held = held or HeldSockets()
        self._listening: dict[str, socket.socket] = {}
        self._private = web.AppRunner(_private_app(api), access_log=None, shutdown_timeout=5.0)
        self._public = web.AppRunner(_public_app(api), access_log=None, shutdown_timeout=1.0)

    async def start(self) -> Self:
        """Raises AdminError naming the socket or the port that is taken."""
        host, port = self.address
        try:
            await self._public.setup()
            public = self._held.take(ADMIN_PORT, host, port) or _bind(host, port)
            self._listening[ADMIN_PORT] = public
            await web.SockSite(self._public, public, backlog=_BACKLOG).start()
        except OSError as error:
            await self.close()
            raise AdminError(f"admin port {host}:{port} cannot be opened: {_words(error)}") from error
        if port == 0:
            self.address = (host, self._public.addresses[0][1])
        try:
            listener = self._held.take_unix(ADMIN_SOCKET) or bind_unix(self.socket_path)
        except (OSError, SocketBusyError) as error:
            await self.close()
            words = _words(error) if isinstance(error, OSError) else str(error)
            raise AdminError(f"admin socket {self.socket_path} cannot be opened: {words}") from error
        self._listening[ADMIN_SOCKET] = listener
        await self._private.setup()
        await web.SockSite(self._private, listener, backlog=_BACKLOG).start()
        return self

    def listening(self) -> dict[str, socket.socket]:
        """Its sockets once more, for a process that takes over."""
        return {name: listening.dup() for name, listening in self._listening.items()}

    async def close(self, *, keep: bool = False) -> None:
        """Idempotent. A request under way, such as the `leave` that ends the peer, is answered first. `keep`: the
        socket file stays, for a process that takes over."""
        listening = self._private.server is not None
        await self._private.cleanup()
        await self._public.cleanup()
        if listening and not keep:
            with contextlib.suppress(FileNotFoundError):
                self.socket_path.unlink()


def _bind(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _words(error: OSError) -> str:
    return error.strerror.lower() if error.strerror else str(error)


def refusal(message: str, *, code: int, status: int) -> web.Response:
    return reply({"error": message, "code": code}, status=status)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal as JSON. What is a bug goes on to aiohttp, which logs it with its traceback and answers 500."""
    try:
        return await handler(request)
    except ApiError as error:
        return refusal(str(error), code=error.code, status=_STATUS.get(error.code, 409))
    except web.HTTPRequestEntityTooLarge:
        return refusal(f"the request is larger than {BODY_BYTES_MAX // 1024 // 1024} MiB", code=2, status=413)
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        words = refusal(f"{request.method} {request.path}: {error.reason}", code=2, status=error.status)
        words.headers.update(allowed)
        return words


# ---------------------------------------------------------------- the Unix socket


def _private_app(api: PeerApi) -> web.Application:
    app = web.Application(middlewares=[_errors], client_max_size=BODY_BYTES_MAX)
    app[_API] = api
    app.add_routes(
        [
            web.get("/v1/health", _health),
            web.get("/v1/members", _members),
            web.post("/v1/join", _join),
            web.post("/v1/leave", _leave),
            web.post("/v1/upgrade", _upgrade),
            web.get("/v1/services", _services),
            web.post("/v1/services", _register),
            web.delete("/v1/services/{namespace}/{name}", _deregister),
            web.post("/v1/resources", _apply),
            web.get("/v1/resources/{kind}", _get),
            web.get("/v1/resources/{kind}/{namespace}/{name}", _describe),
            web.delete("/v1/resources/{kind}/{namespace}/{name}", _delete_one),
            web.get("/v1/history/{kind}/{namespace}/{name}", _history),
            web.post("/v1/deletions", _delete),
            web.post("/v1/find", _find),
            web.post("/v1/tokens", _token_create),
            web.post("/v1/revocations", _revoke),
            web.get("/v1/stat", _stat),
            web.get("/v1/edges", _edges),
            web.get("/v1/check", _check),
            web.get("/v1/ca", _ca_status),
            web.get("/v1/ca/issued", _ca_issued),
            web.post("/v1/ca/reshare", _ca_reshare),
            web.post("/v1/ca/rollover", _ca_rollover),
            web.get("/v1/metrics", _metrics),
        ]
    )
    return app


async def _health(request: web.Request) -> web.Response:
    return reply(request.app[_API].health())


async def _members(request: web.Request) -> web.Response:
    return reply(await request.app[_API].members())


async def _join(request: web.Request) -> web.Response:
    body = await _body(request, {"seeds"})
    return reply(await request.app[_API].join(_strings(body, "seeds")))


async def _leave(request: web.Request) -> web.Response:
    body = await _body(request, {"revoke", "reason"}) if request.can_read_body else {}
    return reply(
        await request.app[_API].leave(
            revoke="revoke" in body and _truth(body, "revoke"),
            reason=_string(body, "reason") if "reason" in body else "",
        )
    )


async def _upgrade(request: web.Request) -> web.Response:
    return reply(await request.app[_API].upgrade())


async def _services(request: web.Request) -> web.Response:
    return reply(await request.app[_API].services())


async def _register(request: web.Request) -> web.Response:
    body = await _body(request, {"documents", "source"})
    return reply(await request.app[_API].register(_documents(body), _string(body, "source")))


async def _deregister(request: web.Request) -> web.Response:
    part = request.match_info
    return reply(await request.app[_API].deregister(part["namespace"], part["name"]))


async def _apply(request: web.Request) -> web.StreamResponse:
    body = await _body(request, {"documents", "source", "wait_percent", "timeout_s"})
    documents, source, waiting = _documents(body), _string(body, "source"), _waiting(body)
    api = request.app[_API]
    return await streamed(
        request, lambda progress: api.apply(documents, source, **waiting, progress=progress)
    )


async def _get(request: web.Request) -> web.Response:
    query = request.query
    return reply(
        await request.app[_API].get(request.match_info["kind"], query.get("namespace"), query.get("name"))
    )


async def _describe(request: web.Request) -> web.Response:
    part = request.match_info
    return reply(await request.app[_API].describe(part["kind"], part["namespace"], part["name"]))


async def _delete_one(request: web.Request) -> web.Response:
    part = request.match_info
    rows = await request.app[_API].delete([(part["kind"], part["namespace"], part["name"])])
    return reply(rows[0])


async def _delete(request: web.Request) -> web.StreamResponse:
    body = await _body(request, {"resources", "wait_percent", "timeout_s"})
    resources, waiting = _resources(body), _waiting(body)
    api = request.app[_API]
    return await streamed(request, lambda progress: api.delete(resources, **waiting, progress=progress))


async def _history(request: web.Request) -> web.Response:
    part = request.match_info
    return reply(await request.app[_API].history(part["kind"], part["namespace"], part["name"]))


async def _find(request: web.Request) -> web.Response:
    body = await _body(request, {"resources"})
    return reply(await request.app[_API].find(_resources(body)))


async def _token_create(request: web.Request) -> web.Response:
    body = await _body(request, {"services", "ttl_s", "uses", "publish", "invite", "govern"})
    token = await request.app[_API].token_create(
        services=_strings(body, "services"),
        ttl_s=_number(body, "ttl_s", 1, 366 * 86_400),
        uses=int(_number(body, "uses", 1, 1_000_000)),
        publish=_truth(body, "publish"),
        invite=_truth(body, "invite"),
        govern="govern" in body and _truth(body, "govern"),
    )
    return reply({"token": token})


async def _revoke(request: web.Request) -> web.Response:
    body = await _body(request, {"kind", "name", "reason"})
    words = (_string(body, key) for key in ("kind", "name", "reason"))
    return reply(await request.app[_API].revoke(*words))


async def _stat(request: web.Request) -> web.Response:
    return reply(await request.app[_API].stat())


async def _edges(request: web.Request) -> web.Response:
    return reply(await request.app[_API].edges())


async def _check(request: web.Request) -> web.Response:
    return reply(await request.app[_API].check())


async def _ca_status(request: web.Request) -> web.Response:
    return reply(await request.app[_API].ca_status())


async def _ca_issued(request: web.Request) -> web.Response:
    return reply(await request.app[_API].ca_issued())


async def _ca_reshare(request: web.Request) -> web.Response:
    body = await _body(request, {"signers", "timeout_s"})
    signers, timeout_s = _strings(body, "signers"), _number(body, "timeout_s", 0.1, 3600)
    return reply(await request.app[_API].ca_reshare(signers, timeout_s))


async def _ca_rollover(request: web.Request) -> web.Response:
    body = await _body(request, {"overlap_s", "compromised", "timeout_s"})
    overlap_s = None if body.get("overlap_s") is None else _number(body, "overlap_s", 0, 1e9)
    compromised, timeout_s = _truth(body, "compromised"), _number(body, "timeout_s", 0.1, 3600)
    return reply(await request.app[_API].ca_rollover(overlap_s, compromised, timeout_s))


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[_API].metrics(), headers={"Content-Type": _METRICS_TYPE})


# ---------------------------------------------------------------- reading a body


async def _body(request: web.Request, keys: set[str]) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ApiError("the request is not JSON", code=2) from error
    if not isinstance(body, dict):
        raise ApiError("the request must be a JSON object", code=2)
    unknown = sorted(body.keys() - keys)
    if unknown:
        raise ApiError(f"the request has an unknown key: {unknown[0][:80]}", code=2)
    return body


def _string(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or len(value) > 4096:
        raise ApiError(f"{key} must be text", code=2)
    return value


def _strings(body: dict[str, Any], key: str) -> list[str]:
    value = body.get(key)
    if (
        not isinstance(value, list)
        or len(value) > 1000
        or not all(isinstance(item, str) and len(item) <= 1000 for item in value)
    ):
        raise ApiError(f"{key} must be a list of texts", code=2)
    return value


def _documents(body: dict[str, Any]) -> list[dict[str, Any]]:
    value = body.get("documents")
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ApiError("documents must be a list of objects", code=2)
    if len(value) > DOCUMENTS_MAX:
        raise ApiError(f"at most {DOCUMENTS_MAX} documents at once, these are {len(value)}", code=2)
    return value


def _resources(body: dict[str, Any]) -> list[tuple[str, str, str]]:
    value = body.get("resources")
    if not isinstance(value, list) or not value or len(value) > DOCUMENTS_MAX:
        raise ApiError(f"resources must be a list of 1 to {DOCUMENTS_MAX} objects", code=2)
    found = []
    for each in value:
        if not isinstance(each, dict) or each.keys() != {"kind", "namespace", "name"}:
            raise ApiError("a resource is an object of kind, namespace and name", code=2)
        found.append((_string(each, "kind"), _string(each, "namespace"), _string(each, "name")))
    return found


def _waiting(body: dict[str, Any]) -> dict[str, Any]:
    wait = body.get("wait_percent")
    return {
        "wait_percent": None if wait is None else _number(body, "wait_percent", 0, 100),
        "timeout_s": _number(body, "timeout_s", 0, TIMEOUT_S_MAX) if "timeout_s" in body else 10.0,
    }


def _number(body: dict[str, Any], key: str, low: float, high: float) -> float:
    value = body.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ApiError(f"{key} must be a number from {low:g} to {high:g}", code=2)
    return value


def _truth(body: dict[str, Any], key: str) -> bool:
    value = body.get(key)
    if not isinstance(value, bool):
        raise ApiError(f"{key} must be true or false", code=2)
    return value


# ---------------------------------------------------------------- the TCP listener


def _public_app(api: PeerApi) -> web.Application:
    app = web.Application(middlewares=[_errors, _only_reading], client_max_size=1024)
    app[_API] = api
    app.add_routes(
        [web.get("/healthz", _healthz), web.get("/readyz", _readyz), web.get("/metrics", _metrics)]
    )
    return app


@web.middleware
async def _only_reading(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not host_is_literal(request.headers.get("Host", "")):
        return refusal("Host must be an IP address or localhost", code=2, status=421)
    if request.method not in ("GET", "HEAD"):
        response = refusal("this port is read-only", code=2, status=405)
        response.headers["Allow"] = "GET, HEAD"
        return response
    return await handler(request)


def host_is_literal(host: str) -> bool:
    """Whether a Host header names an IP address or localhost: a name would be somebody else's to resolve."""
    name, colon, port = host.rpartition(":")
    if not colon or "]" in port or not port.isdigit():
        name = host
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True


async def _healthz(request: web.Request) -> web.Response:
    health = request.app[_API].health()
    return reply(health, status=200 if health.get("live") else 503)


async def _readyz(request: web.Request) -> web.Response:
    health = request.app[_API].health()
    return reply(health, status=200 if health.get("live") and health.get("ready") else 503)
