"""The driver `sim`: an experiment in the virtual world (`simulations/world.py`), thousands of nodes, replayed exactly.

What runs is the real node (`peer/node.py`) on a virtual clock, network and disk. Safety is looked at twice a second by
`simulations/invariants.py`; liveness once the timeline is over and everything has been undone. There is no data plane,
so requests are not sent and what is about them cannot be judged: `lacks` says so.

Invariant: the journal, but for the time it took, is a function of the resolved experiment.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from chaos.drivers.driver import Lack, Progress
from chaos.drivers.sim_faults import Hands, lack
from chaos.drivers.sim_workload import Work
from chaos.experiment import Experiment
from chaos.fault import Kill
from chaos.hypothesis import Invariant
from chaos.journal import VIOLATIONS_MAX, Happened, Journal, Lane, Seen, Violation
from chaos.plan import Moment, moments
from chaos.words import label_of, nodes_of
from gossip.member import State
from peer.messages import MemberMoved
from simulations.authority import Authority
from simulations.host import Host
from simulations.invariants import Found, Rule, Watch
from simulations.network import LAN, Latency
from simulations.sometimes import Tally
from simulations.thresholds import Thresholds
from simulations.timeline import Timeline, Truth
from simulations.world import REAL_CRYPTO_MAX, World

BEFORE_S: Final = 5.0  # how long a mesh runs before its timeline begins
AFTER_S: Final = 3.0  # how long it is watched once it is quiet
SLICE_S: Final = 0.5
STAYS: Final = ("kill", "leave", "restart", "join")  # is not undone where it has no end of its own
LANES_MAX: Final = 200

RULES: Final = {
    Rule.MONOTONE: Invariant.MONOTONE,
    Rule.BOUNDED: Invariant.BOUNDED,
    Rule.NO_REUSE: Invariant.NO_REUSE,
    Rule.VIEWS: Invariant.VIEWS,
    Rule.JOURNALS: Invariant.JOURNALS,
    Rule.EQUAL_STATE: Invariant.EQUAL_STATE,
    Rule.NO_LOSS: Invariant.NO_LOSS,
    Rule.NO_RESURRECTION: Invariant.NO_RESURRECTION,
    Rule.EVIDENCE: Invariant.EVIDENCE,
    Rule.STAMPS: Invariant.STAMPS,
    Rule.THRESHOLD: Invariant.THRESHOLD,
    Rule.ONE_ROOT: Invariant.ONE_ROOT,
    Rule.ISSUED: Invariant.ISSUED,
}


class SimDriver:
    """See the module's theory."""

    name = "sim"
    sees = frozenset(RULES.values())  # what needs a data plane is not there

    def lacks(self, experiment: Experiment) -> tuple[Lack, ...]:
        found = [
            Lack(f"{where}[{number}]", why)
            for where, method in (("method", experiment.method), ("rollbacks", experiment.rollbacks))
            for number, event in enumerate(method)
            if (why := lack(event, experiment.topology))
        ]
        if experiment.topology.signers and experiment.topology.size > REAL_CRYPTO_MAX:
            found.append(Lack("topology.signers", f"over {REAL_CRYPTO_MAX} nodes sign with stand-ins"))
        if experiment.workload.requests:
            found.append(Lack("workload.requests", "the virtual world has no data plane"))
        hypothesis = experiment.hypothesis
        for each in hypothesis.invariants:
            if each not in self.sees:
                why = f"{each.value} cannot be seen without a data plane"
                found.append(Lack("steady-state-hypothesis.invariants", why))
            elif each not in experiment.judged:
                why = f"{each.value} needs signers: give topology.signers"
                found.append(Lack("steady-state-hypothesis.invariants", why))
        bounds = hypothesis.bounds
        if bounds.success is not None or bounds.success_against_control is not None:
            found.append(Lack("steady-state-hypothesis.bounds", "there are no requests to succeed"))
        return tuple(found)

    def run(
        self, experiment: Experiment, progress: Progress, *, digest: bool = True, brief: bool = False
    ) -> Journal:
        """Do it and judge; `brief`: no further than to the first violation."""
        return _Run(experiment, progress, digest=digest, brief=brief).play()


class _EnoughError(Exception):
    """Something was violated, and no more is asked for."""


@dataclass(slots=True)
class _Deaths:
    """What was said of nodes that were well, and how soon of those that were not."""

    world: World
    wrong: int = 0
    suspicions: int = 0
    pending: dict[bytes, float] = field(default_factory=dict)  # killed, and not yet seen dead by all
    detected: list[float] = field(default_factory=list)

    def moved(self, host: Host, moved: MemberMoved) -> None:
        subject = self.world.host_of(moved.member.id)
        state = moved.member.state
        if subject is None or subject.id != moved.member.id or state not in (State.DEAD, State.SUSPECT):
            return
        if self.world.liars & {host.index, subject.index}:
            return
        if state is State.DEAD and subject.id in self.pending and self.world.all_see(subject, State.DEAD):
            self.detected.append(self.world.now - self.pending.pop(subject.id))
        well = subject.member and not (subject.stopped or subject.stalls or subject.service_s)
        well = well and moved.member.boot == subject.boot
        well = well and moved.member.credential.expires_at > self.world.now
        network = self.world.network
        if not well or network.is_cut(host.index, subject.index) or network.is_cut(subject.index, host.index):
            return
        self.wrong += state is State.DEAD
        self.suspicions += state is State.SUSPECT

    def killed(self, host: Host) -> None:
        if not self.world.network.walls:
            self.pending[host.id] = self.world.now


class _Run:
    """One run of one experiment."""

    def __init__(
        self, experiment: Experiment, progress: Progress, *, digest: bool, brief: bool = False
    ) -> None:
        self._experiment = experiment
        self._brief = brief
        self._progress = progress
        topology = experiment.topology
        self._world = World(
            seed=experiment.seed,
            config=topology.profile,
            size=topology.size,
            between=_apart(experiment),
            ttl_s=int(topology.certificates),
            digest=digest,
        )
        self._watch = Watch(self._world)
        self._tally = Tally(self._world)
        self._timeline = Timeline(self._world)
        self._deaths = _Deaths(self._world)
        self._world.on_moved.append(self._deaths.moved)
        self._journal = Journal(experiment=experiment, driver=SimDriver.name, seed=experiment.seed)
        self._populate()
        self._authority = (
            Authority(self._world, signers=topology.signers, ttl_s=int(topology.certificates))
            if topology.signers
            else None
        )
        self._thresholds = Thresholds(self._world, self._authority) if self._authority else None
        self._hands = Hands(self._world, experiment, self._authority)
        self._open: dict[int, float] = {}

    # ------------------------------------------------------------------ the play

    def play(self) -> Journal:
        began = time.perf_counter()
        try:
            healed_s = self._story()
        except _EnoughError:
            healed_s = None
        journal, world = self._journal, self._world
        self._judge(healed_s)
        journal.lasted_s = world.now - world.start_at
        journal.took_s = time.perf_counter() - began
        journal.sometimes = {each.value: count for each, count in self._tally.finish().items()}
        if self._authority is not None:
            journal.sometimes |= self._authority.counts
        journal.lanes = list(self._lanes())
        journal.digest = world.digest() if world.trace is not None else ""
        journal.status = "failed" if journal.violations else "completed"
        return journal

    def _story(self) -> float | None:
        """From beginning to end; how long the mesh took to heal."""
        experiment, world = self._experiment, self._world
        self._start()
        self._pass(BEFORE_S, "the mesh settles")
        begins_at = world.now
        for host in world.hosts:
            host.disk.backup = host.disk.copy()
        work = Work(world, experiment)
        work.begin()
        self._walk(experiment, begins_at)
        work.end()
        self._undo()
        for number, event in enumerate(experiment.rollbacks):
            self._hands.begin(len(experiment.method) + number, event)
        healed_s = self._quiet()
        self._watch.final()
        if self._thresholds is not None:
            self._thresholds.final()
        return healed_s

    def _populate(self) -> None:
        topology, world = self._experiment.topology, self._world
        for index in range(topology.size):
            seeds = tuple(range(min(topology.seeds, index)))
            world.add(zone=topology.zone_of(index), seeds=seeds)

    def _start(self) -> None:
        topology, world = self._experiment.topology, self._world
        if topology.start == "warm":
            world.start_warm(world.hosts)
        else:
            for host in world.hosts:
                world.start(host)

    def _walk(self, experiment: Experiment, begins_at: float) -> None:
        """Through the timeline, moment by moment."""
        for moment in moments(experiment.method):
            self._pass_to(begins_at + moment.at_s, label_of(experiment.method[moment.number]))
            self._change(moment)
        self._pass_to(begins_at + experiment.timeline_s, "the timeline ends")

    def _change(self, moment: Moment) -> None:
        event = self._experiment.method[moment.number]
        if moment.begins:
            self._open[moment.number] = self._now
            if isinstance(event.inject, Kill):
                for name in event.inject.pick.nodes:
                    self._deaths.killed(self._world.hosts[int(name[1:])])
            self._hands.begin(moment.number, event)
            if event.lasts is None:
                self._note(moment.number, None)
        else:
            self._hands.end(moment.number, event)
            self._note(moment.number, self._now)

    def _note(self, number: int, ends_s: float | None) -> None:
        event = self._experiment.method[number]
        self._journal.happened.append(
            Happened(
                label=label_of(event),
                kind=event.inject.fault,
                at_s=self._open[number] if ends_s is None else self._open.pop(number),
                ends_s=ends_s,
                nodes=nodes_of(event),
            )
        )

    def _undo(self) -> None:
        """End what stands: what had no end of its own, but for nodes that were killed or left for good."""
        for number in sorted(self._open):
            event = self._experiment.method[number]
            if event.lasts is None and event.inject.fault in STAYS:
                continue
            self._hands.end(number, event)
        self._open.clear()

    def _quiet(self) -> float | None:
        """Seconds until the mesh first agreed; None: it did not in time. Then it is watched: what only looks settled,
        or a write that was held while it looked so, has time to show, and to settle."""
        world, within_s = self._world, self._experiment.hypothesis.within
        since, healed_s = world.now, None
        while world.now - since < within_s:
            if not self._settled():
                self._pass(0.05, "waiting for the mesh to heal")
                continue
            healed_s = world.now - since if healed_s is None else healed_s
            self._pass(AFTER_S, "watching the quiet")
            if self._settled():
                break
        return healed_s

    def _settled(self) -> bool:
        return self._watch.settled() and (self._thresholds is None or self._thresholds.settled())

    @property
    def _found(self) -> list[Found]:
        """What was violated, in order."""
        of_signers = [] if self._thresholds is None else self._thresholds.found
        return sorted([*self._watch.found, *of_signers], key=lambda found: found.at_s)

    @property
    def _now(self) -> float:
        return self._world.now - self._world.start_at

    def _pass(self, seconds: float, what: str) -> None:
        self._pass_to(self._world.now + seconds, what)

    def _pass_to(self, until: float, what: str) -> None:
        total = BEFORE_S + self._experiment.timeline_s + self._experiment.hypothesis.within + AFTER_S
        while self._world.now < until:
            self._world.run_to(min(until, self._world.now + SLICE_S))
            self._progress(self._now, total, what)
            if self._brief and self._found:
                raise _EnoughError

    # ------------------------------------------------------------------ the verdict

    def _judge(self, healed_s: float | None) -> None:
        hypothesis, journal, deaths = self._experiment.hypothesis, self._journal, self._deaths
        judged = self._experiment.judged
        journal.violations = [
            Violation(invariant=RULES[found.rule].value, at_s=found.at_s, what=found.what)
            for found in self._found
            if RULES[found.rule] in judged
        ][:VIOLATIONS_MAX]
        journal.figures = {
            "heals_s": None if healed_s is None else round(healed_s, 3),
            "detected_s": round(max(deaths.detected), 3) if deaths.detected else None,
            "false_positives": deaths.wrong,
            "suspicions": deaths.suspicions,
            "events": self._world.events,
            "acknowledged": len(self._watch.acknowledged),
        }
        if self._authority is not None:
            journal.figures["certificates"] = self._authority.issued
        bounds = hypothesis.bounds
        if bounds.heals is not None and (healed_s is None or healed_s > bounds.heals):
            took = f"not within {hypothesis.within:g} s" if healed_s is None else f"after {healed_s:.2f} s"
            self._violated("heals", f"views and journals agreed {took}, {bounds.heals:g} s are allowed")
        if bounds.detects is not None:
            for seen_s in (each for each in deaths.detected if each > bounds.detects):
                self._violated(
                    "detects", f"a kill was known to all after {seen_s:.2f} s, {bounds.detects:g} are allowed"
                )
            for node in deaths.pending:
                self._violated("detects", f"not everybody saw that {self._world.name_of(node)} was killed")
        for bound, count, most in (
            ("false-positives", deaths.wrong, bounds.false_positives),
            ("suspicions", deaths.suspicions, bounds.suspicions),
        ):
            if most is not None and count > most:
                self._violated(bound, f"{count} of nodes that ran and could be reached, {most} are allowed")

    def _violated(self, name: str, what: str) -> None:
        self._journal.violations.append(Violation(invariant=name, at_s=round(self._now, 3), what=what))

    def _lanes(self) -> Iterable[Lane]:
        names: dict[Truth, str] = {Truth.RUNNING: "running", Truth.IMPAIRED: "impaired", Truth.DOWN: "down"}
        for index in list(self._timeline.hosts)[:LANES_MAX]:
            yield Lane(
                node=self._world.hosts[index].name,
                seen=tuple(
                    Seen(
                        at_s=step.at,
                        alive=step.seen[0],
                        suspect=step.seen[1],
                        dead=step.seen[2],
                        left=step.seen[3],
                    )
                    for step in self._timeline.steps(index)
                ),
                truth=tuple((at, names[truth]) for at, truth in self._timeline.truth(index)),
            )


def _apart(experiment: Experiment) -> dict[tuple[str, str], Latency]:
    return {
        link.between: Latency(base_s=LAN.base_s + link.delay, jitter_s=LAN.jitter_s + link.jitter)
        for link in experiment.topology.links
    }
