"""Callers that keep on asking at a steady rate, and every way in which one of their requests went wrong."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

INTERVAL_S = 0.02
ANSWER_S_MAX = 10.0


@dataclass
class Steady:
    """`callers` of each kind: on connections kept alive as long as the server likes, and on new ones each time."""

    host: str
    port: int
    service: str
    callers: int = 3
    answers: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    _stop: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = [True] * self.callers + [False] * self.callers
        self._tasks = [asyncio.create_task(self._run(keeps)) for keeps in kinds]

    @property
    def wrong(self) -> dict[str, int]:
        return {what: count for what, count in self.answers.items() if what != "200"}

    async def more(self, count: int) -> None:
        """Wait for so many further answers."""
        wanted = self.answers.total() + count
        async with asyncio.timeout(30):
            while self.answers.total() < wanted:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _run(self, keeps: bool) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    if connection is None:
                        connection = await asyncio.open_connection(self.host, self.port)
                    status, stays = await self._ask(*connection, keeps)
                    self.answers[status] += 1
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.answers[f"{type(error).__name__}: {error}"] += 1
                stays = False
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            if connection is not None and not (stays and keeps):
                connection[1].close()
                connection = None
            await asyncio.sleep(INTERVAL_S)
        if connection is not None:
            connection[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keeps: bool
    ) -> tuple[str, bool]:
        closing = "" if keeps else "connection: close\r\n"
        writer.write(f"GET / HTTP/1.1\r\nhost: {self.service}\r\n{closing}\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(
            int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")
        )
        body = await reader.readexactly(length)
        status = head.split(" ")[1]
        return (status if status == "200" else f"{status} {body[:60]!r}"), "\r\nconnection: close" not in head
