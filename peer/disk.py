"""The disk: the database on a thread of its own, with commits grouped.

While one transaction is being synced, everything wanted next is collected into the following one. Only the disk's
thread touches the database.

A commit that somebody waits for either happens or is refused, and then never happens. What nobody waits for (what was
heard from other peers) is `owed`: it is tried again with every later commit and every RETRY_S, so that the database is
whole again as soon as there is room. After a failure the disk counts as working again when something was written, for
a transaction without content succeeds on any disk.

Invariant: commits happen in the order they were asked for; a future is done only after its batch is on disk.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from peer.io.store import Batch, Store, StoreError

log = logging.getLogger("gossamer.store")

RETRY_S: Final = 5.0

_T = TypeVar("_T")


class Disk:
    """See the module's theory. `problem` says why the last transaction failed; "" when it did not."""

    def __init__(self, store: Store) -> None:
        self.problem = ""
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._waiting: list[tuple[Batch, asyncio.Future[None] | None]] = []
        self._owed: list[Batch] = []
        self._worker: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None

    def commit(self, batch: Batch) -> asyncio.Future[None]:
        """Done when `batch` is on disk. Raises StoreError from the future when it is not, and never will be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ask(batch, future)
        return future

    def owe(self, batch: Batch) -> None:
        """Put `batch` on disk as soon as that can be."""
        self._ask(batch, None)

    async def run(self, action: Callable[[Store], _T]) -> _T:
        """Another use of the database on its own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, action, self._store)

    async def close(self) -> None:
        """Finish what was asked for, and close the database. Raises StoreError."""
        if self._worker is not None:
            await self._worker
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        finally:
            self._thread.shutdown()

    def _ask(self, batch: Batch, future: asyncio.Future[None] | None) -> None:
        self._waiting.append((batch, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="disk")

    async def _work(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                owed, self._owed = self._owed, []
                await self._store_group(owed, group)
        finally:
            self._worker = None

    async def _store_group(
        self, owed: list[Batch], group: list[tuple[Batch, asyncio.Future[None] | None]]
    ) -> None:
        batch = joined([*owed, *(batch for batch, _ in group)])
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._put, batch, bool(self.problem)
            )
        except Exception as raised:
            # Beside StoreError a mistake of ours: whoever waits must not do so for ever, and the next may do better.
            if not isinstance(raised, StoreError):
                log.exception("store_broke")
            error = raised if isinstance(raised, StoreError) else StoreError(f"unexpected: {raised!r}")
            self._failed(error)
            self._owed = [joined([*owed, *(batch for batch, future in group if future is None)])]
            for _, future in group:
                if future is not None and not future.done():
                    future.set_exception(error)
        else:
            if self.problem:
                log.warning("store_works_again")
            self.problem = ""
            for _, future in group:
                if future is not None and not future.done():
                    future.set_result(None)

    def _put(self, batch: Batch, failed_before: bool) -> None:
        if failed_before:
            self._store.probe()
        self._store.commit(batch)

    def _failed(self, error: StoreError) -> None:
        if str(error) != self.problem:
            log.error("not_stored", extra={"fields": {"reason": str(error)}})
        self.problem = str(error)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._again)

    def _again(self) -> None:
        self._retry = None
        self.owe(Batch())


def joined(batches: list[Batch]) -> Batch:
    """One batch that does what these do in order: a key's last word counts, be it put or deleted; what was put before
    it is history."""
    last: dict[tuple[bytes, str, str], tuple[bytes, str, str, int, bytes] | None] = {}
    deleted: dict[tuple[bytes, str, str], None] = {}
    past: list[tuple[bytes, str, str, int, bytes]] = []
    heads: dict[bytes, int] = {}
    introductions: dict[bytes, bytes] = {}
    for batch in batches:
        past += batch.past
        for place, row in [
            *((place, None) for place in batch.delete),
            *((row[:3], row) for row in batch.put),
        ]:
            before = last.get(place)
            if before is not None:
                past.append(before)
            last[place] = row
        deleted.update(dict.fromkeys(batch.delete))
        heads.update(batch.heads)
        introductions.update(batch.introductions)
    return Batch(
        put=[row for row in last.values() if row is not None],
        delete=list(deleted),
        past=past,
        heads=heads,
        introductions=introductions,
        spent=[row for batch in batches for row in batch.spent],
        forget_spent=[token for batch in batches for token in batch.forget_spent],
        forks={writer: proof for batch in reversed(batches) for writer, proof in batch.forks.items()},
    )
