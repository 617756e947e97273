"""The control side of the embedded data plane: `EmbeddedPlane`, an implementation of `proxy.plane.Plane`.

Traffic runs in worker processes of its own (uvloop and httptools, see `worker.py`), so that a busy proxy never makes
its host's gossip late. This side only keeps them running, gives them snapshots and sockets, and adds up what they
report. Several workers accept from the same listening sockets, and see to it that each gets as many (`accepting.py`).

Invariant: all workers serve the same snapshot. One is given it before the others; when one rejects it, those that took
it go back to the one before.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from proxy.embedded.board import Board, Groups
from proxy.embedded.ipc import FRAME_BYTES_MAX, Report, order_frame_bytes
from proxy.embedded.link import WorkerGoneError
from proxy.embedded.predecessor import Predecessor
from proxy.embedded.process import WORKER, Order, socket_token
from proxy.embedded.supervisor import Supervisor
from proxy.plane import Applied, Ejection, Fault, OldWorker, Rejected, Series, SeriesDelta, Telemetry
from proxy.snapshot import SNAPSHOT_BYTES_MAX, Snapshot, encode_snapshot

APPLY_TIMEOUT_S: Final = 30.0
MET_MAX: Final = 512  # certificates kept until they are asked for; what does not fit is counted
DEATHS_MAX: Final = 2  # of a worker, while it is given a snapshot: then it is the snapshot's doing

_GRAVITY: Final[tuple[Fault, ...]] = ("deadly", "snapshot", "plane")

log = logging.getLogger("gossamer.proxy")


class EmbeddedPlane:
    """N workers behind the `Plane` seam. `stdout` is where access logs go; None: this process's standard output.
    `program` is what each worker's interpreter runs."""

    def __init__(
        self, *, workers: int = 1, stdout: int | None = None, program: Sequence[str] = WORKER
    ) -> None:
        if workers < 1:
            raise ValueError(f"a data plane needs at least one worker, not {workers}")
        self._board = Board.make(workers) if workers > 1 else None
        self._workers = [
            Supervisor(
                number=number, on_report=self._on_report, on_end=self._on_end, stdout=stdout, program=program,
                board=self._board,
            )
            for number in range(workers)
        ]  # fmt: skip
        self._groups = Groups()
        self._clusters: frozenset[str] = frozenset()  # of what is served
        self._applying = asyncio.Lock()
        self._good: Order | None = None
        self._ended: Callable[[int], None] | None = None
        self._series: dict[Series, SeriesDelta] = {}
        self._counters: dict[str, int] = {}
        self._ejections: dict[int, tuple[Ejection, ...]] = {}
        self._connections: dict[int, int] = {}
        self._met: dict[bytes, None] = {}
        self._restarts_told = 0
        self._predecessors: list[Predecessor] = []
        self._drain_predecessors_s = 0.0
        self._retiring: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        version = None if self._good is None else self._good.version
        return f"<EmbeddedPlane workers={self.processes()} snapshot={version}>"

    async def start(self) -> None:
        """Raises OSError or TimeoutError when a worker does not start; none is left running then."""
        try:
            await asyncio.gather(*(worker.start() for worker in self._workers))
        except BaseException:
            await self.stop()
            raise

    async def apply(self, snapshot: Snapshot, sockets: Mapping[str, socket.socket]) -> Applied | Rejected:
        missing = [listener.name for listener in snapshot.listeners if listener.name not in sockets]
        if missing:
            reason = f"no socket for listener {', '.join(missing)}"
            return Rejected(version=snapshot.version, reason=reason, fault="plane")
        async with self._applying:
            clusters = [cluster.name for cluster in snapshot.clusters]
            order = Order(
                version=snapshot.version,
                snapshot=encode_snapshot(snapshot),
                sockets={
                    listener.name: (socket_token(sockets[listener.name]), sockets[listener.name])
                    for listener in snapshot.listeners
                },
                groups=() if self._board is None else self._groups.of(clusters),
            )
            too_large = _too_large(order)
            answer = (
                Rejected(version=snapshot.version, reason=too_large) if too_large else await self._give(order)
            )
            if isinstance(answer, Applied):
                self._good = order
                self._clusters = frozenset(clusters)
                self._retire_predecessors()
            self._groups.keep_only(self._clusters)
            return answer

    async def _give(self, order: Order) -> Applied | Rejected:
        # One first: a snapshot that ends workers must not end them all.
        # And one that runs: those that have ended must not keep certificates from the others until they are back.
        first, *others = sorted(self._workers, key=lambda worker: not worker.ready)
        answers = [await self._apply_one(first, order)]
        down: list[Supervisor] = []
        if isinstance(answers[0], Applied):
            down = [worker for worker in others if not worker.ready]
            others = [worker for worker in others if worker.ready]
            answers += await asyncio.gather(*(self._apply_one(worker, order) for worker in others))
        rejected = [answer for answer in answers if isinstance(answer, Rejected)]
        if not rejected:
            for worker in down:
                worker.serve_later(order)
            return Applied(version=order.version)
        if self._good is not None:
            taken = [w for w, a in zip((first, *others), answers, strict=False) if isinstance(a, Applied)]
            await asyncio.gather(*(self._apply_one(worker, self._good) for worker in taken))
        return min(rejected, key=lambda each: _GRAVITY.index(each.fault))

    async def _apply_one(self, worker: Supervisor, order: Order) -> Applied | Rejected:
        for _ in range(DEATHS_MAX):
            try:
                refusal = await worker.apply(order, APPLY_TIMEOUT_S)
            except WorkerGoneError:
                continue  # perhaps it was something else that ended it
            except TimeoutError:
                reason = f"data plane worker {worker.number} did not answer in {APPLY_TIMEOUT_S:.0f} s"
                return Rejected(version=order.version, reason=reason, fault="plane")
            if refusal is None:
                return Applied(version=order.version)
            return Rejected(version=order.version, reason=refusal.reason, policies=refusal.policies)
        reason = f"data plane worker {worker.number} ended {DEATHS_MAX} times when it was given this snapshot"
        return Rejected(version=order.version, reason=reason, fault="deadly")

    def watch(self, ended: Callable[[int], None]) -> None:
        self._ended = ended

    def _on_end(self, version: int) -> None:
        if self._ended is not None:
            self._ended(version)

    def observations(self) -> Telemetry:
        series, self._series = self._series, {}
        counters, self._counters = self._counters, {}
        met, self._met = self._met, {}
        restarts = sum(worker.restarts for worker in self._workers)
        if restarts > self._restarts_told:
            counters["worker_restarts"] = restarts - self._restarts_told
            self._restarts_told = restarts
        return Telemetry(
            series=series,
            counters=counters,
            ejections=tuple(ejection for part in self._ejections.values() for ejection in part),
            connections=sum(self._connections.values()),
            met=tuple(met),
        )

    async def drain(self, timeout_s: float) -> None:
        self._drain_predecessors_s = timeout_s
        self._retire_predecessors()
        own = [worker.drain(timeout_s) for worker in self._workers]
        await asyncio.gather(*own, *(() if self._retiring is None else (self._retiring,)))

    async def bequeath(self) -> tuple[OldWorker, ...]:
        await self._applying.acquire()  # for good
        left: list[OldWorker | None] = []
        for worker in self._workers:
            process = await worker.release()
            if process is not None:
                left.append(process.bequeath())
                if left[-1] is None:
                    await process.end()
        if self._retiring is not None:
            self._retiring.cancel()
        left += [predecessor.bequeath() for predecessor in self._predecessors]
        return tuple(worker for worker in left if worker is not None)

    async def adopt(self, workers: Sequence[OldWorker], drain_s: float) -> None:
        for number, old in enumerate(workers, len(self._workers)):
            adopted = await Predecessor.adopt(old, partial(self._on_report, number))
            if adopted is not None:
                self._predecessors.append(adopted)
        self._drain_predecessors_s = drain_s

    def _retire_predecessors(self) -> None:
        if self._predecessors and self._retiring is None:
            self._retiring = asyncio.get_running_loop().create_task(self._retire(), name="the workers before")

    async def _retire(self) -> None:
        await asyncio.gather(*(each.retire(self._drain_predecessors_s) for each in self._predecessors))
        log.info(
            "the workers of the process before have ended: %s", [each.pid for each in self._predecessors]
        )
        for number in range(len(self._workers), len(self._workers) + len(self._predecessors)):
            self._connections.pop(number, None)
            self._ejections.pop(number, None)
        self._predecessors.clear()

    async def stop(self) -> None:
        if self._retiring is not None:
            self._retiring.cancel()
            await asyncio.gather(self._retiring, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        await asyncio.gather(*(each.end() for each in self._predecessors))
        if self._board is not None:
            self._board.close()
            self._board = None

    def processes(self) -> tuple[int, ...]:
        return tuple(worker.pid for worker in self._workers if worker.pid is not None)

    def _on_report(self, number: int, report: Report) -> None:
        for series, delta in report.series:
            total = self._series.get(series)
            if total is None:
                self._series[series] = delta
            else:
                add_delta(total, delta)
        for name, count in report.counters.items():
            self._count(name, count)
        for der in report.met:
            if len(self._met) < MET_MAX or der in self._met:
                self._met[der] = None
            else:
                self._count("certificates_untold", 1)
        self._ejections[number] = report.ejections
        self._connections[number] = report.connections

    def _count(self, name: str, count: int) -> None:
        self._counters[name] = self._counters.get(name, 0) + count


def _too_large(order: Order) -> str:
    """Why no worker could take this order, however often it were restarted; "" when it can be sent."""
    size = len(order.snapshot)
    if size > SNAPSHOT_BYTES_MAX:
        return f"snapshot of {size} bytes, at most {SNAPSHOT_BYTES_MAX}"
    tokens = tuple((name, token) for name, (token, _) in order.sockets.items())
    frame = order_frame_bytes(size, tokens, order.groups)
    if frame > FRAME_BYTES_MAX:
        return f"snapshot and listeners of {frame} bytes, at most {FRAME_BYTES_MAX}"
    return ""


def add_delta(total: SeriesDelta, delta: SeriesDelta) -> None:
    """Add one delta to another of the same series, in place."""
    total.requests += delta.requests
    total.duration_sum_ms += delta.duration_sum_ms
    total.buckets = [a + b for a, b in zip(total.buckets, delta.buckets, strict=True)]
    total.request_bytes += delta.request_bytes
    total.response_bytes += delta.response_bytes
