"""The command line's way to the local peer: blocking HTTP over `<data_dir>/admin.sock`, from the standard library.

Invariant: every call returns the peer's JSON or raises ClientError with the line a user should read and the exit
code to end with.
"""

import errno
import http.client
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode

from peer.admin.sockets import SOCKET_NAME, connect_unix

Json = dict[str, Any]
Progress = Callable[[Json], None]

LINES_TYPE: Final = "application/x-ndjson"

TIMEOUT_S: Final = 30.0
# A leave drains first; the peer's own limit on that is an hour, its default 45 s.
LEAVE_TIMEOUT_S: Final = 3600.0
UPGRADE_TIMEOUT_S: Final = 90.0  # the new process has a minute to load
FIND_MAX: Final = 1000
REPLY_BYTES_MAX: Final = 256 * 1024 * 1024


class ClientError(Exception):
    """The peer refused, failed or is not there. `code` is the exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("peer", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock: socket.socket = connect_unix(self._path, self._timeout_s)


class AdminClient:
    """One peer, by its data directory. A connection per call: calls are few and the socket is local."""

    def __init__(self, data_dir: Path) -> None:
        self.socket_path = data_dir.absolute() / SOCKET_NAME

    def health(self) -> Json:
        return self._object("GET", "/v1/health")

    def members(self) -> list[Json]:
        return self._list("GET", "/v1/members")

    def join(self, seeds: Sequence[str]) -> Json:
        return self._object("POST", "/v1/join", {"seeds": list(seeds)})

    def leave(self, *, revoke: bool = False, reason: str = "") -> Json:
        body: Json = {"revoke": revoke, "reason": reason} if revoke else {}
        return self._object("POST", "/v1/leave", body, timeout_s=LEAVE_TIMEOUT_S)

    def upgrade(self) -> Json:
        return self._object("POST", "/v1/upgrade", {}, timeout_s=UPGRADE_TIMEOUT_S)

    def revoke(self, kind: str, name: str, reason: str) -> Json:
        return self._object("POST", "/v1/revocations", {"kind": kind, "name": name, "reason": reason})

    def services(self) -> list[Json]:
        return self._list("GET", "/v1/services")

    def register(self, documents: Sequence[Mapping[str, Any]], source: str) -> list[Json]:
        return self._list("POST", "/v1/services", {"documents": list(documents), "source": source})

    def deregister(self, namespace: str, name: str) -> Json:
        return self._object("DELETE", _path("services", namespace, name))

    def apply(
        self,
        documents: Sequence[Mapping[str, Any]],
        source: str,
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Progress | None = None,
    ) -> list[Json]:
        body = {
            "documents": list(documents),
            "source": source,
            "wait_percent": wait_percent,
            "timeout_s": timeout_s,
        }
        return self._list("POST", "/v1/resources", body, timeout_s=TIMEOUT_S + timeout_s, progress=progress)

    def get(self, kind: str, namespace: str | None = None, name: str | None = None) -> list[Json]:
        query = {key: value for key, value in (("namespace", namespace), ("name", name)) if value is not None}
        return self._list("GET", _path("resources", kind) + ("?" + urlencode(query) if query else ""))

    def describe(self, kind: str, namespace: str, name: str) -> Json:
        return self._object("GET", _path("resources", kind, namespace, name))

    def find(self, resources: Sequence[tuple[str, str, str]]) -> list[Json | None]:
        """In batches that fit into a request; they need not be of one moment."""
        found: list[Json | None] = []
        for start in range(0, len(resources), FIND_MAX):
            found += self._list(
                "POST", "/v1/find", {"resources": _named(resources[start : start + FIND_MAX])}
            )
        return found

    def history(self, kind: str, namespace: str, name: str) -> list[Json]:
        return self._list("GET", _path("history", kind, namespace, name))

    def delete(
        self,
        resources: Sequence[tuple[str, str, str]],
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Progress | None = None,
    ) -> list[Json]:
        body = {"resources": _named(resources), "wait_percent": wait_percent, "timeout_s": timeout_s}
        return self._list("POST", "/v1/deletions", body, timeout_s=TIMEOUT_S + timeout_s, progress=progress)

    def token_create(
        self,
        *,
        services: Sequence[str],
        ttl_s: float,
        uses: int,
        publish: bool,
        invite: bool,
        govern: bool = False,
    ) -> str:
        body = {
            "services": list(services),
            "ttl_s": ttl_s,
            "uses": uses,
            "publish": publish,
            "invite": invite,
            "govern": govern,
        }
        return str(self._object("POST", "/v1/tokens", body)["token"])

    def stat(self) -> list[Json]:
        return self._list("GET", "/v1/stat")

    def edges(self) -> list[Json]:
        return self._list("GET", "/v1/edges")

    def check(self) -> list[Json]:
        return self._list("GET", "/v1/check")

    def ca_status(self) -> Json:
        return self._object("GET", "/v1/ca")

    def ca_issued(self) -> list[Json]:
        return self._list("GET", "/v1/ca/issued")

    def ca_reshare(self, signers: Sequence[str], timeout_s: float) -> Json:
        body: Json = {"signers": list(signers), "timeout_s": timeout_s}
        return self._object("POST", "/v1/ca/reshare", body, timeout_s=TIMEOUT_S + timeout_s)

    def ca_rollover(self, overlap_s: float | None, compromised: bool, timeout_s: float) -> Json:
        body: Json = {"overlap_s": overlap_s, "compromised": compromised, "timeout_s": timeout_s}
        return self._object("POST", "/v1/ca/rollover", body, timeout_s=TIMEOUT_S + timeout_s)

    def _object(
        self, method: str, path: str, body: Json | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Json:
        reply = self._call(method, path, body, timeout_s)
        if not isinstance(reply, dict):
            raise ClientError(f"the peer at {self.socket_path} answered {path} with something else")
        return reply

    def _list(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        progress: Progress | None = None,
    ) -> list[Json]:
        reply = self._call(method, path, body, timeout_s, progress)
        if not isinstance(reply, list):
            raise ClientError(f"the peer at {self.socket_path} answered {path} with something else")
        return reply

    def _call(
        self, method: str, path: str, body: Json | None, timeout_s: float, progress: Progress | None = None
    ) -> Any:
        connection = _UnixConnection(self.socket_path, timeout_s)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data is not None else {}
        if progress is not None:
            headers["Accept"] = f"{LINES_TYPE}, application/json"
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            if progress is not None and response.getheader("Content-Type") == LINES_TYPE:
                return self._follow(response, path, progress)
            if response.length is not None and response.length > REPLY_BYTES_MAX:
                raise ClientError(
                    f"the peer at {self.socket_path} answered {path} with {response.length} bytes"
                )
            text = response.read()
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise ClientError(
                f"no peer is running at {self.socket_path} "
                f"(start one with: gossamer peer --data-dir {self.socket_path.parent}, or name its directory)"
            ) from error
        except PermissionError as error:
            raise ClientError(
                f"{self.socket_path} belongs to another user; run this as the peer's user"
            ) from error
        except TimeoutError as error:
            raise ClientError(
                f"the peer at {self.socket_path} did not answer within {timeout_s:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise ClientError(
                    f"{self.socket_path} cannot be connected to: {error.strerror or error}"
                ) from error
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise ClientError(
                f"the peer at {self.socket_path} ended the connection ({words}); is it still running?"
            ) from error
        finally:
            connection.close()
        return self._decode(response.status, text, path)

    def _follow(self, response: http.client.HTTPResponse, path: str, progress: Progress) -> Any:
        """Lines of JSON: progress, and at the end the result or an error (`peer/admin/streaming.py`)."""
        while line := response.readline(REPLY_BYTES_MAX):
            event = self._decode(200, line, path)
            match event:
                case {"progress": dict(told)}:
                    progress(told)
                case {"result": result}:
                    return result
                case {"error": _}:
                    self._refused(event, 500, path)
                case _:
                    raise ClientError(f"the peer at {self.socket_path} answered {path} with something else")
        raise http.client.IncompleteRead(b"")

    def _decode(self, status: int, text: bytes, path: str) -> Any:
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError) as error:
            detail = (
                "failed on this request; its log says why"
                if status >= 500
                else f"answered {path} with {status}"
            )
            raise ClientError(f"the peer at {self.socket_path} {detail}") from error
        if status >= 400:
            self._refused(reply, status, path)
        return reply

    def _refused(self, reply: Any, status: int, path: str) -> NoReturn:
        known = isinstance(reply, dict)
        message = reply.get("error") if known else None
        code = reply.get("code") if known else None
        raise ClientError(
            str(message) if message else f"the peer at {self.socket_path} answered {path} with {status}",
            code=code if code in (1, 2, 3) else 1,
        )


def _named(resources: Sequence[tuple[str, str, str]]) -> list[Json]:
    return [{"kind": kind, "namespace": namespace, "name": name} for kind, namespace, name in resources]


def _path(*parts: str) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)
