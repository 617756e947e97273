"""The ceremony that makes one epoch of the signer group: a pure machine, one at each participant.

It founds a mesh (distributed key generation, `dkg`) or moves its key to other signers (`resharing`); the difference
is only what is dealt. Electors (`electorate`) decide, dealers deal, receivers become the signers. Attempts
follow one another until one is decided:

    JOIN, OPEN     electors gather, the leader of the attempt says who deals to whom (`selection`)
    DEAL .. PROVE  the new group is made and signs its own record (`attempt`)
    PREPARE, CONFIRM   electors decide on it, so that no epoch has two outcomes (`lock`)

What is assumed: streams authenticate and encrypt. Messages may be lost, repeated, late, in any order; participants
may stop anywhere and go on from what they stored last; up to `faults` electors, and any number of receivers, lie. Then
there are never two records of one epoch and never a group that cannot sign. An attempt in which somebody is silent,
crashes or is caught lying comes to nothing, and another one follows without those that can be done without.

Everything is pulled as well as pushed: while something is missing a machine tells the others, ever more rarely, where
it stands (`Want`), and gets what it lacks. So loss costs time and nothing else, and who comes back catches up.

A machine that has sealed its epoch only answers. The old share stays good until then; whoever holds it may wipe it
after.

Here are the step, what this node says, and how it asks and answers. What it knows is its `place`; how it listens
(`hearing`), convicts (`guilt`), counts votes (`decision`) and goes from attempt to attempt (`course`) are parts of
their own, that share the place and put what is to leave into one step's outputs.

Invariant: whatever leaves this machine was stored before, and of each (attempt, kind, recipient) at most one statement
leaves it.
"""

from collections.abc import Callable
from typing import assert_never

from trust.ceremony.attempt import Attempt
from trust.ceremony.bodies import Join
from trust.ceremony.course import Course
from trust.ceremony.decision import Decision
from trust.ceremony.electorate import Electorate, by_id
from trust.ceremony.events import (
    CeremonyStatus,
    Input,
    Learned,
    Members,
    Output,
    Received,
    Rejected,
    Sealed,
    Store,
    Tick,
    Timing,
    Wish,
)
from trust.ceremony.growth import SignerRules
from trust.ceremony.guilt import Guilt
from trust.ceremony.hearing import Hearing
from trust.ceremony.patience import Patience
from trust.ceremony.place import Place
from trust.ceremony.pull import answers, want_of
from trust.ceremony.statement import Closed, Frame, Kind, Locked, Said, Statement, Want, decode_frame, state
from trust.ceremony.voice import Voice
from trust.epoch import EpochRecord, decode_value
from trust.errors import CeremonyError, EpochError
from trust.group import Scalar
from trust.groupkey import KeyShare
from trust.identity import NodeIdentity


class Ceremony:
    """See the module's theory. `share` is this node's share of the epoch before, if it has one. `secret` is for a node
    that founds alone with a root that exists already: the scalar of the root key. `memory` is what was stored last:
    raises CeremonyError if it is broken, and then this node must not vote in this epoch any more."""

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        electorate: Electorate,
        rules: SignerRules,
        entropy: Callable[[int], bytes],
        share: KeyShare | None = None,
        secret: Scalar | None = None,
        timing: Timing | None = None,
        memory: bytes | None = None,
    ) -> None:
        assert secret is None or (electorate.group is None and len(electorate.keys) == 1), "founds alone"
        self._identity, self._me = identity, identity.id
        self._electorate, self._rules = electorate, rules
        self._voice = Voice(identity.id, electorate, entropy, share, secret)
        self._place = place = Place(identity.id, electorate, self._voice)
        if memory is not None:
            place.recall(memory)
        self._patience = patience = Patience(timing or Timing())
        self._course = Course(place, patience, self._put, recalled=memory is not None)
        self._guilt = Guilt(identity, place, self._course, self._put)
        self._decision = Decision(place, self._guilt, self._put)
        self._hearing = Hearing(place, rules, patience, self._course, self._guilt, self._put)
        self._told = False
        self._answered: dict[bytes, float] = {}
        self._out: list[Output] = []

    # -------------------------------------------------------------- the machine

    @property
    def ceremony(self) -> bytes:
        """Its name, the first 32 bytes of each of its frames."""
        return self._electorate.ceremony

    @property
    def record(self) -> EpochRecord | None:
        """The outcome, once there is one."""
        return self._place.record

    @property
    def deadline(self) -> float | None:
        """When `Tick` is due; None if only others can bring this further."""
        return None if self.record is not None else self._course.deadline

    def step(self, now: float, given: Input) -> list[Output]:
        """What `given` leads to. `now` (s) never goes back, but may after a restart of the machine."""
        place = self._place
        self._out, place.unstored = [], False
        match given:
            case Received():
                self._receive(now, given.node, given.data)
            case Wish():
                place.wanted = None if given.keys is None else by_id(given.keys)
            case Members():
                place.seen, place.standing.barred = given, given.barred
            case Learned():
                self._decision.learn(self._me, given.record)
            case Tick():
                pass
            case _:
                assert_never(given)
        if place.record is None:
            self._time(now)
            self._advance(now)
        if place.record is not None and not self._told:
            self._told = True
            self._put(Sealed(record=place.record, share=self._voice.own_share(place.record)))
        stored: list[Output] = [Store(data=place.remember())] if place.unstored else []
        return stored + self._out

    def status(self) -> CeremonyStatus:
        """Where it stands."""
        return self._place.status()

    def wipe(self) -> bytes:
        """Forget what is secret, once the share is stored elsewhere. Returns what to store for this ceremony from now
        on."""
        self._voice.leave(self._attempt)
        self._voice.accepted.clear()
        return self._place.remember()

    def __repr__(self) -> str:
        return (
            f"Ceremony(epoch={self._electorate.epoch}, attempt={self._attempt.number}, sealed={self._told})"
        )

    @property
    def _attempt(self) -> Attempt:
        return self._place.attempt

    @property
    def _audience(self) -> set[bytes]:
        return self._place.audience

    # -------------------------------------------------------------- what comes in

    def _receive(self, now: float, node: bytes, data: bytes) -> None:
        try:
            frame = decode_frame(data)
            if data[: len(self.ceremony)] != self.ceremony:
                raise CeremonyError("the frame is of another ceremony")
            self._hear(now, node, frame)
        except (CeremonyError, EpochError) as error:
            self._put(Rejected(node=node, reason=str(error)))

    def _hear(self, now: float, node: bytes, frame: Frame) -> None:
        match frame:
            case Said():
                if self.record is not None:
                    self._answer(now, node, Want(attempt=frame.statement.attempt, kinds=0))
                    return
                self._hearing.listen(now, frame.statement)
            case Want():
                self._answer(now, node, frame)
            case Locked():
                self._hearing.locked(node, frame)
            case Closed():
                if node not in self._place.members:
                    raise CeremonyError("the outcome is told by those who take part")
                self._decision.learn(node, frame.record)
            case _:
                assert_never(frame)

    def _time(self, now: float) -> None:
        join = self._course.enter(now)
        if join is not None:
            self._join(join)
        self._course.wait(now)
        if self._patience.must_ask(now):
            self._ask()
            self._patience.asked(now)

    # -------------------------------------------------------------- what this node says

    def _advance(self, now: float) -> None:
        while self.record is None:
            progress = self._lead(now) or self._speak()
            self._guilt.weigh(now)
            self._decision.decide()
            if not progress:
                return

    def _join(self, join: Join) -> None:
        if self._voice.lock is not None:
            for node in sorted(set(self._electorate.ids) - {self._me}):
                self._send(node, self._voice.lock.frame())
        said = self._sign(Kind.JOIN, join.encode())
        self._place.gathering.joins[self._me] = said
        self._tell(said)

    def _lead(self, now: float) -> bool:
        """Open the attempt, if it is this node's to open and enough electors are there. Whether it did."""
        place, attempt = self._place, self._attempt
        if attempt.opening is not None or attempt.number < 0 or place.leader != self._me:
            return False
        opening = place.gathering.opening(
            attempt.number,
            place.highest_lock,
            self._rules,
            place.wanted or (),
            patient=self._patience.gather_until is not None or self._patience.until is None,
        )
        if opening is None:
            return False
        said = self._sign(Kind.OPEN, opening.encode())
        self._hearing.adopt(now, said, opening, decode_value(opening.value) if opening.value else None)
        self._tell(said)
        return True

    def _speak(self) -> bool:
        leaving = self._patience.target is not None
        due = [] if leaving else self._voice.due(self._attempt, self._decision.prepared)
        for kind, body, recipient in due:
            self._tell(self._sign(kind, body, recipient))
        return bool(due)

    def _sign(self, kind: Kind, body: bytes, recipient: bytes = b"") -> Statement:
        said = state(self._identity, self.ceremony, self._attempt.number, kind, body, recipient)
        other = self._attempt.put(said)
        assert other is None, "a node says one thing at one place"
        self._place.unstored = True
        return said

    def _tell(self, said: Statement) -> None:
        if said.kind is Kind.SHARE:
            nodes = {said.recipient} - {self._me}
        elif said.kind is Kind.JOIN:
            nodes = set(self._electorate.ids) - {self._me}
        else:
            nodes = self._audience
        for node in sorted(nodes):
            self._send(node, Said(statement=said))

    def _send(self, node: bytes, frame: Frame) -> None:
        self._put(self._place.letter(node, frame))

    def _put(self, output: Output) -> None:
        self._out.append(output)

    # -------------------------------------------------------------- asking and answering

    def _ask(self) -> None:
        place = self._place
        for node in sorted(self._audience):
            if place.standing.counts(node):
                self._send(node, want_of(place.attempt, place.gathering, place.standing, self._me, node))

    def _answer(self, now: float, node: bytes, want: Want) -> None:
        place = self._place
        entitled = self._audience | (set(place.record.value.ids) if place.record else set())
        if node not in entitled or not self._patience.may_answer(self._answered.get(node), now):
            return
        self._answered[node] = now
        if place.record is not None:
            self._send(node, Closed(record=place.record.encode()))
            return
        lock, me = self._voice.lock, self._me
        for frame in answers(want, place.attempt, place.gathering, place.standing, lock, me, node):
            self._send(node, frame)
