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

Invariant: whatever leaves this machine was stored before, and of each (attempt, kind, recipient) at most one statement
leaves it.
"""

from collections.abc import Callable, Iterable
from typing import Final, assert_never

from trust.ceremony.attempt import Attempt, Show
from trust.ceremony.bodies import Join, Opening, check_body, decode_join, decode_opening
from trust.ceremony.electorate import Electorate, by_id
from trust.ceremony.events import (
    CeremonyStatus,
    Convicted,
    Input,
    Learned,
    Members,
    Output,
    Received,
    Rejected,
    Retrying,
    Sealed,
    Send,
    Store,
    Tick,
    Timing,
    Wish,
)
from trust.ceremony.evidence import accusation, contradicts, judge
from trust.ceremony.gathering import Gathering, Standing
from trust.ceremony.growth import SignerRules
from trust.ceremony.lock import Lock, check_justified, check_lock
from trust.ceremony.memory import Memory, decode_memory, encode_memory
from trust.ceremony.patience import Patience
from trust.ceremony.pull import answers, want_of
from trust.ceremony.selection import check_opening
from trust.ceremony.statement import (
    ATTEMPT_MAX,
    Closed,
    Frame,
    Kind,
    Locked,
    Said,
    Statement,
    Want,
    decode_frame,
    encode_frame,
    state,
)
from trust.ceremony.voice import Voice
from trust.epoch import EpochRecord, Value, check_epoch, decode_epoch, decode_value, with_votes
from trust.errors import CeremonyError, EpochError
from trust.group import Scalar
from trust.groupkey import KeyShare
from trust.identity import NodeIdentity, node_id

JUMP_MAX: Final = 1 << 20  # attempts, at a time: nobody uses the numbers up
EARLY_MAX: Final = 256


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
        self._patience = Patience(timing or Timing())
        self._standing = Standing()
        self._gathering = Gathering(electorate, self._standing)
        self._voice = Voice(identity.id, electorate, entropy, share, secret)
        self._elects = self._me in electorate.ids
        self._attempt = Attempt(-1, self._me, electorate)
        self._early: dict[tuple[Kind, bytes], Statement] = {}
        self._heard_lock: Lock | None = None
        self._record: EpochRecord | None = None
        self._told = False
        self._wanted: tuple[bytes, ...] | None = None
        self._known: frozenset[bytes] = frozenset()
        self._answered: dict[bytes, float] = {}
        self._shown: set[tuple[bytes, bytes]] = set()
        self._out: list[Output] = []
        self._dirty = False
        self._begun = self._recalled = False
        if memory is not None:
            self._recall(decode_memory(memory))

    # -------------------------------------------------------------- the machine

    @property
    def ceremony(self) -> bytes:
        """Its name, the first 32 bytes of each of its frames."""
        return self._electorate.ceremony

    @property
    def record(self) -> EpochRecord | None:
        """The outcome, once there is one."""
        return self._record

    @property
    def deadline(self) -> float | None:
        """When `Tick` is due; None if only others can bring this further."""
        if self._record is not None:
            return None
        patience = self._patience
        times = [patience.resend_at]
        if patience.target is not None:
            times.append(patience.enter_at)
        elif not self._elects:
            times.append(patience.until)
        elif self._engaged:
            times.append(patience.until if self._begun else 0.0)
            if self._leads and self._attempt.opening is None and self._attempt.number >= 0:
                times.append(patience.gather_until)
        return min((time for time in times if time is not None), default=None)

    def step(self, now: float, given: Input) -> list[Output]:
        """What `given` leads to. `now` (s) never goes back, but may after a restart of the machine."""
        self._out, self._dirty = [], False
        match given:
            case Received():
                self._receive(now, given.node, given.data)
            case Wish():
                self._wanted = None if given.keys is None else by_id(given.keys)
            case Members():
                self._known, self._standing.barred = given.known, given.barred
            case Learned():
                self._learn(self._me, given.record)
            case Tick():
                pass
            case _:
                assert_never(given)
        if self._record is None:
            self._time(now)
            self._advance(now)
        if self._record is not None and not self._told:
            self._told = True
            self._out.append(Sealed(record=self._record, share=self._voice.own_share(self._record)))
        stored: list[Output] = [Store(data=self._memory())] if self._dirty else []
        return stored + self._out

    def status(self) -> CeremonyStatus:
        """Where it stands."""
        if self._record is not None:
            stage = "sealed"
        elif self._attempt.value is not None:
            stage = "voting"
        else:
            stage = "gathering" if self._attempt.opening is None else "dealing"
        return CeremonyStatus(
            epoch=self._electorate.epoch,
            attempt=self._attempt.number,
            stage=stage,
            awaited=tuple(sorted(self._attempt.awaited() - {self._me})),
            convicted=tuple(sorted(self._standing.convictions)),
            sealed=self._record is not None,
        )

    def wipe(self) -> bytes:
        """Forget what is secret, once the share is stored elsewhere. Returns what to store for this ceremony from now
        on."""
        self._voice.leave(self._attempt)
        self._voice.accepted.clear()
        return self._memory()

    def __repr__(self) -> str:
        return (
            f"Ceremony(epoch={self._electorate.epoch}, attempt={self._attempt.number}, sealed={self._told})"
        )

    @property
    def _engaged(self) -> bool:
        wants = self._electorate.group is None or self._wanted is not None or self._voice.lock is not None
        return self._elects and wants

    @property
    def _leads(self) -> bool:
        return self._electorate.leader(max(self._attempt.number, 0)) == self._me

    @property
    def _audience(self) -> set[bytes]:
        others = set(self._electorate.ids)
        if self._attempt.opening is not None:
            others |= self._attempt.participants
        return others - {self._me}

    # -------------------------------------------------------------- what comes in

    def _receive(self, now: float, node: bytes, data: bytes) -> None:
        try:
            frame = decode_frame(data)
            if data[: len(self.ceremony)] != self.ceremony:
                raise CeremonyError("the frame is of another ceremony")
            self._hear(now, node, frame)
        except (CeremonyError, EpochError) as error:
            self._out.append(Rejected(node=node, reason=str(error)))

    def _hear(self, now: float, node: bytes, frame: Frame) -> None:
        match frame:
            case Said():
                if self._record is not None:
                    self._answer(now, node, Want(attempt=frame.statement.attempt, kinds=0))
                    return
                self._listen(now, frame.statement)
            case Want():
                self._answer(now, node, frame)
            case Locked():
                if node not in self._electorate.ids:
                    raise CeremonyError("locks are told by electors")
                lock = check_lock(frame.value, frame.prepares, self._electorate, self._standing.convictions)
                if self._heard_lock is None or lock.attempt > self._heard_lock.attempt:
                    self._heard_lock = lock
            case Closed():
                if node not in self._members:
                    raise CeremonyError("the outcome is told by those who take part")
                self._learn(node, frame.record)
            case _:
                assert_never(frame)

    def _listen(self, now: float, said: Statement) -> None:
        node, kind = said.node, said.kind
        if node == self._me or not self._standing.counts(node):
            return
        if kind is Kind.SHARE and said.recipient != self._me:
            return
        self._check_member(said)
        if not said.genuine:
            raise CeremonyError("a statement is not signed by its sender")
        check_body(kind, said.body)
        if kind is Kind.ACCUSE:
            self._convict(now, judge(said, self._electorate), said)
        elif kind is Kind.JOIN:
            self._joined(now, said)
        elif said.attempt < self._attempt.number:
            return
        elif kind is Kind.OPEN:
            self._opened(now, said)
        elif said.attempt > self._attempt.number or self._attempt.opening is None:
            if len(self._early) < EARLY_MAX or (kind, node) in self._early:
                self._early[kind, node] = said
        elif (other := self._attempt.put(said)) is not None:
            self._accuse(now, other, said)
        self._patience.heard(now)

    def _check_member(self, said: Statement) -> None:
        """Of an attempt that it does not know yet, a node that is no elector cannot tell who takes part."""
        ahead = said.attempt > self._attempt.number and not self._elects
        if said.node in self._members or (ahead and said.kind not in {Kind.ACCUSE, Kind.JOIN}):
            return
        raise CeremonyError("a statement is of somebody who does not take part")

    @property
    def _members(self) -> set[bytes]:
        """Who may have a say: electors, participants, and whom this node knows as one that may sign."""
        return self._audience | self._known | {node_id(key) for key in self._wanted or ()}

    def _learn(self, node: bytes, data: bytes) -> None:
        if self._record is not None:
            return
        try:
            record = decode_epoch(data)
            check_epoch(record, self._electorate)
        except EpochError as error:
            self._out.append(Rejected(node=node, reason=str(error)))
            return
        self._close(record)

    def _joined(self, now: float, said: Statement) -> None:
        join, node = decode_join(said.body), said.node
        known = self._gathering.joins.get(node)
        confirmed = self._attempt.get(Kind.CONFIRM, node)
        for other in (known, confirmed):
            if other is not None and contradicts(other, said):
                self._accuse(now, other, said)
                return
        if join.lock >= said.attempt:
            raise CeremonyError("an elector says that it is locked in an attempt that is still to come")
        self._gathering.add(said)
        if said.attempt <= self._attempt.number:
            return
        if node in self._participants() and not self._did(Kind.PREPARE):
            # It has left this attempt, which therefore comes to nothing.
            self._gathering.left(said, join, self._attempt.number)
            self._move_on(now, self._attempt.number + 1, "a participant left it", (node,))
        if self._elects and (ahead := self._gathering.common_attempt()) > self._attempt.number:
            self._move_on(now, ahead, "others have left it")

    # -------------------------------------------------------------- openings

    def _opened(self, now: float, said: Statement) -> None:
        attempt = self._attempt
        if said.attempt == attempt.number and attempt.opened is not None:
            if contradicts(attempt.opened, said):
                self._accuse(now, attempt.opened, said)
            return
        if self._electorate.leader(said.attempt) != said.node:
            raise CeremonyError("an attempt is opened by its leader alone")
        if said.attempt > attempt.number + JUMP_MAX:
            raise CeremonyError("the attempt is too far ahead")
        opening = decode_opening(said.body)
        lock = check_justified(opening, said.attempt, self._electorate, self._standing.convictions)
        if lock is None and self._elects:
            wanted = {node_id(key) for key in self._wanted or ()}
            check_opening(
                opening, self._electorate, self._rules, known=self._known | wanted, barred=self._standing.barred,
                convicted=self._standing.convictions,
            )  # fmt: skip
        if not self._elects and self._me not in opening.receiver_ids:
            return
        if said.attempt > attempt.number:
            self._new_attempt(now, said.attempt)
        self._adopt(now, said, opening, None if lock is None else lock.value)

    def _adopt(self, now: float, said: Statement, opening: Opening, value: Value | None) -> None:
        attempt = self._attempt
        attempt.put(said)
        attempt.opened, attempt.opening = said, opening
        attempt.value = value
        self._patience.opened(now)
        early, self._early = self._early, {}
        for each in early.values():
            if each.attempt >= attempt.number and self._standing.counts(each.node):
                self._listen(now, each)

    def _lead(self, now: float) -> bool:
        """Open the attempt, if it is this node's to open and enough electors are there. Whether it did."""
        attempt = self._attempt
        if attempt.opening is not None or attempt.number < 0 or not self._leads:
            return False
        locks = [each for each in (self._voice.lock, self._heard_lock) if each is not None]
        opening = self._gathering.opening(
            attempt.number,
            max(locks, key=lambda each: each.attempt, default=None),
            self._rules,
            self._wanted or (),
            patient=self._patience.gather_until is not None or self._patience.until is None,
        )
        if opening is None:
            return False
        said = self._sign(Kind.OPEN, opening.encode())
        self._adopt(now, said, opening, decode_value(opening.value) if opening.value else None)
        self._tell(said)
        return True

    # -------------------------------------------------------------- what this node says

    def _advance(self, now: float) -> None:
        while self._record is None:
            progress = self._lead(now) or self._speak()
            self._weigh(now)
            self._decide()
            if not progress:
                return

    def _speak(self) -> bool:
        due = [] if self._patience.target is not None else self._voice.due(self._attempt, self._prepared)
        for kind, body, recipient in due:
            self._tell(self._sign(kind, body, recipient))
        return bool(due)

    def _prepared(self, value: Value) -> list[Statement] | None:
        prepares = self._votes(Kind.PREPARE, value.digest)
        return prepares if self._decided(prepares) else None

    def _sign(self, kind: Kind, body: bytes, recipient: bytes = b"") -> Statement:
        said = state(self._identity, self.ceremony, self._attempt.number, kind, body, recipient)
        other = self._attempt.put(said)
        assert other is None, "a node says one thing at one place"
        self._dirty = True
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
        self._out.append(Send(node=node, data=encode_frame(self.ceremony, frame)))

    def _did(self, kind: Kind) -> bool:
        return self._attempt.get(kind, self._me) is not None

    # -------------------------------------------------------------- the decision

    def _votes(self, kind: Kind, digest: bytes) -> list[Statement]:
        said = [self._attempt.get(kind, node) for node in self._electorate.ids if self._standing.counts(node)]
        return [each for each in said if each is not None and each.body == digest]

    def _decided(self, votes: Iterable[Statement]) -> bool:
        return self._electorate.decided([each.node for each in votes], self._standing.convictions)

    def _decide(self) -> None:
        value = self._attempt.proven()
        if value is None or self._record is not None:
            return
        for kind in (Kind.PREPARE, Kind.CONFIRM):
            for node in self._electorate.ids:
                vote = self._attempt.get(kind, node)
                if vote is not None and vote.body != value.digest:
                    self._show_all(vote)  # whoever holds another one has the evidence
        confirms = self._votes(Kind.CONFIRM, value.digest)
        if not self._decided(confirms):
            return
        short = len(confirms) < self._electorate.quorum
        self._close(
            with_votes(
                value, self._attempt.number, confirms, self._standing.convictions.values() if short else ()
            )
        )

    def _close(self, record: EpochRecord) -> None:
        self._record = record
        self._dirty = True
        for node in sorted(self._audience | set(record.value.ids) - {self._me}):
            self._send(node, Closed(record=record.encode()))

    # -------------------------------------------------------------- guilt

    def _weigh(self, now: float) -> None:
        findings, self._attempt.findings = self._attempt.findings, []
        for finding in findings:
            if isinstance(finding, Show):
                self._show(finding.node, finding.statement)
            else:
                self._accuse(now, *finding.parts)

    def _show_all(self, said: Statement) -> None:
        for node in sorted(self._audience - {said.node}):
            self._show(node, said)

    def _show(self, node: bytes, said: Statement) -> None:
        place = (node, said.signature)
        if place not in self._shown and node != self._me:
            self._shown.add(place)
            self._send(node, Said(statement=said))

    def _accuse(self, now: float, *parts: Statement) -> None:
        body = accusation(*parts)
        said = state(self._identity, self.ceremony, max(self._attempt.number, 0), Kind.ACCUSE, body)
        guilty = judge(said, self._electorate)
        assert guilty != self._me, "this node accuses nobody without evidence"
        self._convict(now, guilty, said)

    def _convict(self, now: float, guilty: bytes, said: Statement) -> None:
        if guilty in self._standing.convictions or guilty == self._me or guilty not in self._members:
            return
        self._standing.convictions[guilty] = said
        self._dirty = True
        self._out.append(Convicted(node=guilty, evidence=said.encode()))
        for node in sorted(self._audience):
            self._send(node, Said(statement=said))
        self._gathering.joins.pop(guilty, None)
        leads = (
            self._attempt.opening is None and self._electorate.leader(max(self._attempt.number, 0)) == guilty
        )
        if (guilty in self._participants() and self._attempt.value is None) or (leads and self._engaged):
            self._move_on(now, self._attempt.number + 1, "a participant is guilty", (guilty,))

    def _participants(self) -> frozenset[bytes]:
        return frozenset() if self._attempt.opening is None else self._attempt.participants

    # -------------------------------------------------------------- attempts and time

    def _time(self, now: float) -> None:
        patience = self._patience
        if not self._begun and self._engaged:
            self._begun = True
            if self._attempt.number < 0:
                patience.aim(now, 0, at_once=True)
        if self._recalled:
            self._resume(now)
        if patience.target is not None and patience.is_due(now):
            self._enter(now, patience.target)
        waits = patience.until is None and patience.target is None and self._attempt.opening is None
        if waits and self._gathering.quorate(self._attempt.number):
            leader = self._electorate.leader(self._attempt.number)
            patience.gathered(now, hopeless=not self._standing.counts(leader))
        if patience.gather_until is not None and now >= patience.gather_until:
            patience.gather_until = None
        if patience.is_over(now) and (self._engaged or not self._elects):
            self._give_up(now)
        if patience.must_ask(now):
            for node in sorted(self._audience):
                if self._standing.counts(node):
                    self._send(node, self._want(node))
            patience.asked(now)

    def _resume(self, now: float) -> None:
        """The first step after a restart. Nonces are gone: who promised them and did not sign leaves the attempt."""
        self._recalled = False
        if self._attempt.number < 0:
            return
        self._patience.resumed(now, opened=self._attempt.opening is not None)
        if self._did(Kind.ACCEPT) and not self._did(Kind.PROVE):
            self._patience.aim(now, self._attempt.number + 1, at_once=True)

    def _move_on(self, now: float, number: int, reason: str, awaited: tuple[bytes, ...] = ()) -> None:
        number = min(number, self._attempt.number + JUMP_MAX, ATTEMPT_MAX)
        if self._elects and self._patience.aim(now, number):
            self._out.append(Retrying(attempt=number, reason=reason, awaited=awaited))

    def _give_up(self, now: float) -> None:
        self._patience.until = None
        awaited = tuple(sorted(self._attempt.awaited() - {self._me}))
        self._move_on(now, self._attempt.number + 1, "it took too long", awaited)
        if not self._elects:
            # It has no vote, but the others learn for whom it has been waiting.
            self._patience.aim(now, self._attempt.number + 1, at_once=True)

    def _enter(self, now: float, number: int) -> None:
        if number <= self._attempt.number:
            return
        if self._patience.may_blame(now):
            self._gathering.blame(self._attempt.awaited() - {self._me}, self._attempt.number)
        self._new_attempt(now, number)
        join = Join(able=self._voice.able, blamed=self._gathering.blamed(number))
        if self._voice.lock is not None:
            join = Join(
                able=join.able,
                lock=self._voice.lock.attempt,
                locked=self._voice.lock.value.digest,
                blamed=join.blamed,
            )
            for node in sorted(set(self._electorate.ids) - {self._me}):
                self._send(node, self._voice.lock.frame())
        said = self._sign(Kind.JOIN, join.encode())
        self._gathering.joins[self._me] = said
        self._tell(said)

    def _new_attempt(self, now: float, number: int) -> None:
        """Leave the attempt for another one, with nothing said in it yet."""
        self._patience.entered(now, first=self._attempt.number < 0)
        self._voice.leave(self._attempt)
        self._attempt = Attempt(number, self._me, self._electorate)
        self._shown.clear()

    # -------------------------------------------------------------- asking and answering

    def _want(self, node: bytes) -> Want:
        return want_of(self._attempt, self._gathering, self._standing, self._me, node)

    def _answer(self, now: float, node: bytes, want: Want) -> None:
        entitled = self._audience | (set(self._record.value.ids) if self._record else set())
        if node not in entitled or not self._patience.may_answer(self._answered.get(node), now):
            return
        self._answered[node] = now
        if self._record is not None:
            self._send(node, Closed(record=self._record.encode()))
            return
        lock, me = self._voice.lock, self._me
        for frame in answers(want, self._attempt, self._gathering, self._standing, lock, me, node):
            self._send(node, frame)

    # -------------------------------------------------------------- memory

    def _memory(self) -> bytes:
        record = b"" if self._record is None else self._record.encode()
        said = () if self._record is not None else tuple(self._attempt.said.values())
        return encode_memory(
            Memory(
                ceremony=self.ceremony, attempt=self._attempt.number, said=said, seed=self._attempt.seed or b"",
                accepted=tuple(self._voice.accepted), lock=self._voice.lock,
                convictions=tuple(self._standing.convictions.values()), record=record,
            )
        )  # fmt: skip

    def _recall(self, memory: Memory) -> None:
        if memory.ceremony != self.ceremony:
            raise CeremonyError("the memory is of another ceremony")
        self._recalled = True
        self._attempt = Attempt(memory.attempt, self._me, self._electorate)
        for said in memory.said:
            self._attempt.put(said)
            if said.kind is Kind.OPEN:
                opening = decode_opening(said.body)
                self._attempt.opened, self._attempt.opening = said, opening
                if opening.value:
                    self._attempt.value = decode_value(opening.value)
        self._attempt.seed = memory.seed or None
        self._voice.accepted = list(memory.accepted)
        self._voice.lock = memory.lock
        for said in memory.convictions:
            self._standing.convictions[judge(said, self._electorate)] = said
        own = self._attempt.get(Kind.JOIN, self._me)
        if own is not None:
            self._gathering.joins[self._me] = own
        try:
            self._record = decode_epoch(memory.record) if memory.record else None
        except EpochError as error:
            raise CeremonyError(f"a ceremony's memory holds a broken record: {error}") from None
