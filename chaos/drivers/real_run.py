"""One run of one experiment on a real mesh: the play, the watching, the verdict.

Invariant: whatever happens, the tasks of the run have ended when `play` returns; processes and namespaces are the dead
man's.
"""

import asyncio
import signal
import time
from typing import Final

from chaos.drivers.driver import Progress
from chaos.drivers.real_hands import RealHands
from chaos.drivers.real_mesh import RealMesh
from chaos.drivers.real_node import RealNode
from chaos.drivers.real_requests import broken, per_second, share_of, silent_sides
from chaos.drivers.real_watch import LOOK_EVERY_S, Policies, Views
from chaos.fault import Keeps, Kill, Poisoned
from chaos.hypothesis import Invariant
from chaos.journal import VIOLATIONS_MAX, Happened, Journal, Violation
from chaos.plan import moments
from chaos.words import label_of, nodes_of
from simulations.randomness import stream

BEFORE_S: Final = 3.0
AFTER_S: Final = 2.0
GRAIN_S: Final = 0.05


class RealRun:
    """See the module's theory."""

    def __init__(
        self, mesh: RealMesh, progress: Progress, *, driver: str, control: float | None = None
    ) -> None:
        """`control`: the share of requests that succeeded when nothing was done to the mesh, if that was found out."""
        experiment = mesh.experiment
        self._control = control
        self._stood: dict[int, tuple[float, float]] = {}  # by number: from when to when (Unix s)
        self._mesh = mesh
        self._progress = progress
        self._rng = stream(experiment.seed, "chaos", "workload")
        self._journal = Journal(experiment=experiment, driver=driver, seed=experiment.seed)
        self.interrupted = False  # by a signal
        self._open: dict[int, float] = {}
        self._detected: list[float] = []
        self._judging = asyncio.Event()
        self._views = Views(mesh.nodes, mesh.clock, self._journal.violations, reachable=mesh.reachable)
        load = experiment.workload.policies
        self._policies = Policies(
            mesh.nodes,
            self._rng,
            deletes=load.deletes if load else 0.0,
            size=min(load.size, 4000) if load else 0,
        )
        self._hands = RealHands(mesh, self._policies.disown)

    async def play(self) -> Journal:
        """The run. Raises DriverError, and CancelledError when SIGINT or SIGTERM comes: `interrupted` is set then."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        here = asyncio.current_task()
        assert here is not None, "this runs in a task"
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, here)
        try:
            await self._mesh.populate(self._say, self._views.differences, self._views.look)
            self._mesh.began_at, self._mesh.began_unix = time.monotonic(), time.time()
            self._views.begin()
            self._mesh.spawn(self._look())
            await self._pass_to(BEFORE_S, "the mesh settles")
            for node in self._mesh.nodes[: self._mesh.present]:
                if node.running and self._wants_backup(node):
                    await asyncio.to_thread(node.back_up)
            writing = asyncio.create_task(self._write())
            try:
                await self._walk()
                await self._undo()
            finally:
                self._judging.set()
                if self.interrupted:
                    writing.cancel()
                await asyncio.wait([writing])
            await writing
            await self._judge()
        finally:
            await asyncio.gather(*(caller.end() for caller in self._mesh.callers))
            for task in self._mesh.tasks:
                task.cancel()
            await asyncio.gather(*self._mesh.tasks, return_exceptions=True)
            for node in self._mesh.nodes:
                node.close()
        journal = self._journal
        journal.lasted_s = self._mesh.clock()
        journal.took_s = time.perf_counter() - began
        journal.lanes = [lane for lane in self._views.lanes() if lane.truth]
        journal.status = "failed" if journal.violations else "completed"
        return journal

    def _interrupt(self, play: "asyncio.Task[object]") -> None:
        """Once: a second signal does not stop the cleaning up."""
        if not self.interrupted:
            self.interrupted = True
            play.cancel()

    def _wants_backup(self, node: RealNode) -> bool:
        return any(
            isinstance(event.inject, Kill)
            and event.inject.keeps is Keeps.BACKUP
            and node.name in event.inject.pick.nodes
            for event in self._mesh.experiment.method
        )

    async def _look(self) -> None:
        while True:
            await self._views.look()
            for name, at_s in tuple(self._mesh.kills.items()):
                node = self._mesh.by_name(name)
                others = [view for other, view in self._views.latest.items() if other != name]
                if node.running:
                    del self._mesh.kills[name]
                elif others and all(view.get(name, ("", 0, 0))[0] == "dead" for view in others):
                    self._detected.append(self._mesh.clock() - at_s)
                    del self._mesh.kills[name]
            await asyncio.sleep(LOOK_EVERY_S)

    async def _write(self) -> None:
        load = self._mesh.experiment.workload.policies
        while load is not None and not self._judging.is_set():
            await self._policies.write()
            await asyncio.sleep(self._rng.expovariate(1 / load.every))

    def _say(self, what: str) -> None:
        self._progress(0.0, self._total_s, what)

    @property
    def _total_s(self) -> float:
        return BEFORE_S + self._mesh.experiment.timeline_s + self._mesh.experiment.hypothesis.within + AFTER_S

    async def _pass_to(self, until_s: float, what: str) -> None:
        while (left_s := until_s - self._mesh.clock()) > 0:
            if self._mesh.failed:
                raise self._mesh.failed[0]
            self._progress(self._mesh.clock(), self._total_s, what)
            await asyncio.sleep(min(left_s, GRAIN_S))

    async def _walk(self) -> None:
        begins_at = self._mesh.clock()
        method = self._mesh.experiment.method
        self._mesh.start_cold()
        for moment in moments(method):
            await self._pass_to(begins_at + moment.at_s, label_of(method[moment.number]))
            event = method[moment.number]
            if moment.begins:
                self._open[moment.number] = self._mesh.clock()
                await self._hands.begin(moment.number, event)
                if event.lasts is None:
                    self._note(moment.number, None)
            else:
                until = time.time()
                await self._hands.end(moment.number, event)
                self._stood[moment.number] = (
                    self._mesh.began_unix + self._open[moment.number],
                    until,
                )
                self._note(moment.number, self._mesh.clock())
        await self._pass_to(begins_at + self._mesh.experiment.timeline_s, "the timeline ends")

    def _note(self, number: int, ends_s: float | None) -> None:
        event = self._mesh.experiment.method[number]
        self._journal.happened.append(
            Happened(
                label=label_of(event),
                kind=event.inject.fault,
                at_s=round(self._open[number] if ends_s is None else self._open.pop(number), 3),
                ends_s=None if ends_s is None else round(ends_s, 3),
                nodes=nodes_of(event),
            )
        )

    async def _undo(self) -> None:
        for number in sorted(self._open):
            event = self._mesh.experiment.method[number]
            if event.lasts is None and event.inject.fault in ("kill", "leave", "restart", "join"):
                continue
            await self._hands.end(number, event)
        self._mesh.standing.clear()
        self._mesh.clogged.clear()
        self._mesh.shape()

    async def _judge(self) -> None:
        hypothesis, journal = self._mesh.experiment.hypothesis, self._journal
        ended_s, healed_s = self._mesh.clock(), None
        wrong: list[str] = []
        held: dict[str, frozenset[str]] = {}
        while True:
            await self._pass_to(self._mesh.clock() + 0.2, "waiting for the mesh to heal")
            await self._views.look()
            held = await self._policies.held()
            wrong = self._views.differences()
            wrong += [] if len(set(held.values())) <= 1 else ["the peers do not hold the same policies"]
            wrong += [each.what for each in self._policies.broken(held, 0.0)]
            if not wrong:
                healed_s = self._mesh.clock() - ended_s
                break
            if self._mesh.clock() - ended_s > hypothesis.within:
                break
        await self._pass_to(self._mesh.clock() + AFTER_S, "watching the quiet")
        await self._views.look()
        at_s, judged = round(self._mesh.clock(), 3), hypothesis.judged
        found = [
            Violation(invariant=Invariant.VIEWS.value, at_s=at_s, what=what)
            for what in self._views.differences()
        ]
        if len(set(held.values())) > 1:
            sizes = ", ".join(f"{name} has {len(have)}" for name, have in sorted(held.items()))
            found.append(
                Violation(invariant=Invariant.JOURNALS.value, at_s=at_s, what=f"policies differ: {sizes}")
            )
        found += self._policies.broken(held, at_s)
        found += broken(self._mesh.callers, self._mesh.began_unix, at_s)
        found += silent_sides(self._mesh.callers, self._mesh.experiment, self._stood)
        names = {each.value for each in judged}
        journal.violations = [
            *(each for each in journal.violations if each.invariant in names),
            *(each for each in found if each.invariant in names),
        ][:VIOLATIONS_MAX]
        self._figures(healed_s)
        self._bounds(healed_s)

    def _figures(self, healed_s: float | None) -> None:
        success, control = share_of(self._mesh.callers), self._control
        self._journal.figures = {
            "heals_s": None if healed_s is None else round(healed_s, 2),
            "detected_s": round(max(self._detected), 2) if self._detected else None,
            "false_positives": self._views.wrong,
            "suspicions": self._views.suspicions,
            "acknowledged": len(self._policies.acknowledged),
            "deleted": len(self._policies.deleted),
            "unknown": len(self._policies.unknown),
            "requests": sum(len(caller.told) for caller in self._mesh.callers),
            "success": None if success is None else round(success, 5),
            "success_of_control": None if control is None else round(control, 5),
        }
        if any(isinstance(event.inject, Poisoned) for event in self._mesh.experiment.method):
            self._journal.figures["poisons_refused"] = len(self._hands.refusals)
        if self._mesh.callers:
            self._journal.series["success"] = per_second(self._mesh.callers, self._mesh.began_unix)

    def _bounds(self, healed_s: float | None) -> None:
        bounds, figures = self._mesh.experiment.hypothesis.bounds, self._journal.figures
        success, control = share_of(self._mesh.callers), self._control
        against = None if success is None or not control else success / control
        for name, value, most in (
            ("heals", healed_s if healed_s is not None else float("inf"), bounds.heals),
            ("detects", max(self._detected, default=0.0), bounds.detects),
            ("false-positives", figures["false_positives"], bounds.false_positives),
            ("suspicions", figures["suspicions"], bounds.suspicions),
        ):
            if most is not None and (value is None or value > most):
                self._violated(name, f"{value:.2f}, at most {most:g} is allowed")
        for name, share, least in (
            ("success", success, bounds.success),
            ("success-against-control", against, bounds.success_against_control),
        ):
            if least is not None and (share is None or share < least):
                words = "no requests were made" if share is None else f"{share:.2%}"
                self._violated(name, f"{words}, at least {least:.2%} is asked for")

    def _violated(self, name: str, what: str) -> None:
        at_s = round(self._mesh.clock(), 3)
        self._journal.violations.append(Violation(invariant=name, at_s=at_s, what=what))
