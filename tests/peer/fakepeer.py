"""A peer for tests of what drives one: a `PeerApi` that remembers, and a thread that serves it on real sockets."""

import asyncio
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peer.admin.server import AdminServer
from peer.api import ApiError, Json
from peer.cli import run

NODE = "a" * 26

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary}
spec:
  parentRefs: [{kind: Service, group: "", name: cart}]
  rules:
  - backendRefs: [{name: cart, port: 8080, weight: 90}, {name: cart-v2, port: 8080, weight: 10}]
"""
SERVICE = "service: {name: cart, port: 8080}\n"


class FakePeer:
    """Answers with `answers[name]` (or raises it, if it is an error) and records every call in `calls`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.answers: dict[str, Any] = {}
        self.events: list[Json] = []  # what `apply` and `delete` tell of their progress
        self.event_s = 0.0
        self.holds = False  # the answers to `apply` and `delete` back, until `released`
        self.held = threading.Event()  # it does
        self.released = asyncio.Event()
        self.ready = True

    def _answer(self, name: str, default: Any, *arguments: Any) -> Any:
        self.calls.append((name, arguments))
        answer = self.answers.get(name, default)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def health(self) -> Json:
        return {"live": True, "ready": self.ready, "detail": "", "node": NODE, "name": "one"}

    async def members(self) -> list[Json]:
        row = {"name": "one", "id": NODE, "address": "127.0.0.1:7946", "state": "alive", "incarnation": 3}
        return self._answer("members", [row | {"boot": 1_700_000_000_000, "zone": ""}])

    async def join(self, seeds: Sequence[str]) -> Json:
        return self._answer("join", {"contacted": list(seeds), "failed": {}}, list(seeds))

    async def leave(self, *, revoke: bool = False, reason: str = "") -> Json:
        return self._answer("leave", {"left": True}, *((reason,) if revoke else ()))

    async def upgrade(self) -> Json:
        return self._answer("upgrade", {"pid": os.getpid()})

    async def revoke(self, kind: str, name: str, reason: str) -> Json:
        row = {"subject": f"{kind}:{name}", "kind": kind, "reason": reason, "action": "revoked"}
        return self._answer("revoke", row | {"revokedAt": 1, "expiresAt": 2}, kind, name, reason)

    async def services(self) -> list[Json]:
        return self._answer("services", [])

    async def register(self, documents: Sequence[Mapping[str, Any]], source: str) -> list[Json]:
        rows = [{"name": each["service"]["name"], "namespace": "default", "node": NODE} for each in documents]
        return self._answer("register", rows, list(documents), source)

    async def deregister(self, namespace: str, name: str) -> Json:
        return self._answer("deregister", {"namespace": namespace, "name": name}, namespace, name)

    async def apply(
        self,
        documents: Sequence[Mapping[str, Any]],
        source: str,
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Any = None,
    ) -> list[Json]:
        await self._tell(progress)
        rows = [
            {"kind": each["kind"], **each["metadata"], "action": "created", "version": f"{NODE}:1"}
            for each in documents
        ]
        return self._answer("apply", rows, list(documents), source, wait_percent, timeout_s)

    async def get(self, kind: str, namespace: str | None, name: str | None) -> list[Json]:
        return self._answer("get", [], kind, namespace, name)

    async def find(self, resources: Sequence[tuple[str, str, str]]) -> list[Json | None]:
        return self._answer("find", [None for _ in resources], list(resources))

    async def describe(self, kind: str, namespace: str, name: str) -> Json:
        return self._answer("describe", {"kind": kind}, kind, namespace, name)

    async def history(self, kind: str, namespace: str, name: str) -> list[Json]:
        return self._answer("history", [], kind, namespace, name)

    async def _tell(self, progress: Any) -> None:
        for event in self.events if progress is not None else ():
            progress(event)
            await asyncio.sleep(self.event_s)
        if self.holds:
            self.held.set()
            await self.released.wait()

    async def delete(
        self,
        resources: Sequence[tuple[str, str, str]],
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Any = None,
    ) -> list[Json]:
        await self._tell(progress)
        rows = [
            {"kind": kind, "namespace": namespace, "name": name, "action": "deleted", "version": f"{NODE}:2"}
            for kind, namespace, name in resources
        ]
        return self._answer("delete", rows, list(resources), wait_percent, timeout_s)

    async def token_create(
        self,
        *,
        services: Sequence[str],
        ttl_s: float,
        uses: int,
        publish: bool,
        invite: bool,
        govern: bool = False,
    ) -> str:
        return self._answer(
            "token_create", "gsm1.secret", list(services), ttl_s, uses, publish, invite, govern
        )

    async def stat(self) -> list[Json]:
        return self._answer("stat", [])

    async def edges(self) -> list[Json]:
        return self._answer("edges", [])

    async def check(self) -> list[Json]:
        return self._answer("check", [{"check": "clock", "status": "ok", "detail": "0.1 s"}])

    async def ca_status(self) -> Json:
        signer = {"id": NODE, "name": "one", "state": "alive"}
        status = {
            "mode": "threshold",
            "root": "ab" * 32,
            "root_name": "cd" * 8,
            "epoch": 0,
            "threshold": 1,
            "signers": [signer],
        }
        signer["answers"] = True
        status |= {"answering": 1, "margin": 0, "revocations": 2}
        return self._answer("ca_status", status | {"can_issue": True})

    async def ca_rollover(self, overlap_s: float | None, compromised: bool, timeout_s: float) -> Json:
        result = {
            "phase": "announced", "old": "0a" * 8, "new": "0b" * 8, "compromised": compromised, "switchAt": 1,
            "endsAt": 4_000_000_000, "waiting": ["three"], "waitingCount": 1, "problem": "",
        }  # fmt: skip
        return self._answer("ca_rollover", result, overlap_s, compromised, timeout_s)

    async def ca_issued(self) -> list[Json]:
        row = {
            "identity": "spiffe://m/node/x",
            "node": "one",
            "serial": "0a",
            "issuedAt": 1000,
            "notAfter": 4600,
        }
        return self._answer("ca_issued", [row | {"by": "one", "recordedBy": "two", "epoch": 3}])

    async def ca_reshare(self, signers: Sequence[str], timeout_s: float) -> Json:
        result = {"epoch": 3, "threshold": 2, "signers": ["one", "two", "three"], "as_wished": True}
        return self._answer("ca_reshare", result, list(signers), timeout_s)

    def metrics(self) -> bytes:
        return self._answer("metrics", b"gossamer_members 1\n")


class ServedPeer:
    """A FakePeer behind a real AdminServer, in a thread with its own event loop."""

    def __init__(self, data_dir: Path) -> None:
        self.api = FakePeer()
        self.data_dir = data_dir
        self.loop = asyncio.new_event_loop()
        self._server = AdminServer(self.api, data_dir=data_dir, host="127.0.0.1", port=0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    def __enter__(self) -> "ServedPeer":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_error: object) -> None:
        self.loop.call_soon_threadsafe(self.api.released.set)
        asyncio.run_coroutine_threadsafe(self._server.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    @property
    def address(self) -> tuple[str, int]:
        return self._server.address

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._server.start())
        self._started.set()
        self.loop.run_forever()

    def raises(self, name: str, message: str, code: int = 1) -> None:
        self.api.answers[name] = ApiError(message, code=code)


@dataclass(frozen=True)
class Ended:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class Gossamer:
    """Runs command lines in this process against a served peer."""

    def __init__(
        self, served: ServedPeer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._capsys = capsys
        monkeypatch.setenv("GOSSAMER_DATA_DIR", str(served.data_dir))
        monkeypatch.delenv("GOSSAMER_DEBUG", raising=False)

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        code = run(arguments)
        printed = self._capsys.readouterr()
        return Ended(code, printed.out, printed.err)
