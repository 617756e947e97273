"""The two systems that are compared: Gossamer's peers and Serf's agents, both with profile `lan`.

Gossamer: `gossamer peer`, each with a data directory and one worker. A member's death is the log line `member …
state=dead`; an update is an AuthorizationPolicy, and has arrived when the peer *enforces* it: durable, compiled and
taken over by the data plane (debug line `enforced … policies=N`).

Serf: `serf agent` as Debian packages it: unencrypted, compression on. A member's death is the line `serf:
EventMemberFailed`, which the agent writes at once; its event handlers hear of it a second or more later. An update is a
user event whose payload is the same document, sent without coalescing (with it, it would arrive a second later); it
has arrived when the agent hands it to its handlers. Serf neither stores nor signs it.
"""

import asyncio
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgpack

from benchmarks.gossip_agents import Agent, BenchmarkError, System
from peer.admin.client import AdminClient, ClientError

GOSSIP_PORT: Final = 7946  # of both
RPC_PORT: Final = 7373
RPC_S_MAX: Final = 10.0
TOKEN_TTL_S: Final = 3600.0


def update(number: int) -> dict[str, Any]:
    """A policy that refuses nothing anybody asks for."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": f"update-{number}"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": [f"/nothing/{number}"]}}]}]},
    }


# ---------------------------------------------------------------- gossamer


class Gossamer(System):
    """Peers that join the first one with a token, in one temporary directory."""

    name = "gossamer"
    network = "127.20"
    ready = "ready node-"

    _DEAD: Final = re.compile(r" member name=(\S+) .*state=dead ")
    _ENFORCED: Final = re.compile(r" enforced .*policies=(\d+)")

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._directory = Path(tempfile.mkdtemp(prefix="gossamer-"))
        self._token = self._directory / "token"

    @staticmethod
    def version() -> str:
        return importlib.metadata.version("gossamer-mesh")

    async def stop(self) -> None:
        try:
            await super().stop()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _admin(self, agent: Agent) -> AdminClient:
        return AdminClient(self._directory / agent.name)

    async def command(self, agent: Agent) -> list[str]:
        words = [sys.executable, "-m", "peer.cli", "peer", "--name", agent.name, "--bind", agent.host]
        words += ["--data-dir", str(self._directory / agent.name), "--profile", "lan", "--log-level", "debug"]
        first = self.agents[0]
        if agent is first:
            return [*words, "--bootstrap"]
        if not self._token.exists():
            text = await asyncio.to_thread(
                self._admin(first).token_create,
                services=[],
                ttl_s=TOKEN_TTL_S,
                uses=len(self.agents),
                publish=True,
                invite=False,
            )
            self._token.write_text(text)
        return [*words, "--seed", f"{first.host}:{GOSSIP_PORT}", "--token-file", str(self._token)]

    async def alive(self, agent: Agent) -> set[str]:
        try:
            members = await asyncio.to_thread(self._admin(agent).members)
        except ClientError as error:
            raise BenchmarkError(f"{agent.name}: {error}; its last words: {agent.last_words}") from error
        return {member["name"] for member in members if member["state"] == "alive"}

    async def publish(self, agent: Agent, number: int) -> None:
        try:
            await asyncio.to_thread(self._admin(agent).apply, [update(number)], "benchmark")
        except ClientError as error:
            raise BenchmarkError(f"{agent.name} did not publish: {error}") from error

    def failed(self, text: str) -> str | None:
        found = self._DEAD.search(text)
        return found[1] if found else None

    def has_update(self, text: str, number: int) -> bool:
        """Policies are only added, so that their number says which have arrived."""
        found = self._ENFORCED.search(text)
        return found is not None and int(found[1]) >= number


# ---------------------------------------------------------------- serf


class Serf(System):
    """Agents that join the first one; asked over their RPC port."""

    name = "serf"
    network = "127.21"
    ready = "agent: Serf agent starting"  # with -join: written when it has joined

    _FAILED: Final = re.compile(r" serf: EventMemberFailed: (\S+) ")

    @staticmethod
    def program() -> str:
        found = shutil.which("serf")
        if found is None:
            raise BenchmarkError("serf is not installed. On Debian and Ubuntu: apt-get install serf")
        return found

    @classmethod
    def version(cls) -> str:
        done = subprocess.run([cls.program(), "version"], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0].strip()

    async def command(self, agent: Agent) -> list[str]:
        words = [self.program(), "agent", f"-node={agent.name}", f"-bind={agent.host}:{GOSSIP_PORT}"]
        words += [f"-rpc-addr={agent.host}:{RPC_PORT}", "-profile=lan"]
        first = self.agents[0]
        return words if agent is first else [*words, f"-join={first.host}:{GOSSIP_PORT}"]

    async def alive(self, agent: Agent) -> set[str]:
        answer = await call(agent, "members", None)
        members = answer[b"Members"]
        return {member[b"Name"].decode() for member in members if member[b"Status"] == b"alive"}

    async def publish(self, agent: Agent, number: int) -> None:
        payload = json.dumps(update(number), separators=(",", ":"))
        await call(
            agent, "event", {"Name": f"update-{number}", "Payload": payload.encode(), "Coalesce": False}
        )

    def failed(self, text: str) -> str | None:
        found = self._FAILED.search(text)
        return found[1] if found else None

    def has_update(self, text: str, number: int) -> bool:
        return text.endswith(f"agent: Received event: user-event: update-{number}")


async def call(agent: Agent, command: str, body: dict[str, Any] | None) -> Any:
    """One request over Serf's RPC (MessagePack: a header, then a body where there is one); the answer's body, None
    where there is none. Raises BenchmarkError."""
    try:
        async with asyncio.timeout(RPC_S_MAX):
            reader, writer = await asyncio.open_connection(agent.host, RPC_PORT)
            try:
                unpacker = msgpack.Unpacker(raw=True)
                pack = msgpack.Packer(use_bin_type=False).pack  # its decoder knows the old format only

                async def answer() -> Any:
                    while True:
                        for value in unpacker:
                            return value
                        data = await reader.read(65536)
                        if not data:
                            raise BenchmarkError(f"{agent.name} ended the RPC connection")
                        unpacker.feed(data)

                async def ask(seq: int, name: str, arguments: dict[str, Any] | None) -> None:
                    writer.write(pack({"Command": name, "Seq": seq}))
                    if arguments is not None:
                        writer.write(pack(arguments))
                    header = await answer()
                    if header[b"Error"]:
                        raise BenchmarkError(f"{agent.name} refused {name}: {header[b'Error'].decode()}")

                await ask(0, "handshake", {"Version": 1})
                await ask(1, command, body)
                return await answer() if body is None else None
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise BenchmarkError(
            f"{agent.name} did not answer {command}: {error}; its last words: {agent.last_words}"
        ) from error
