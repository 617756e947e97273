"""Where one participant stands in a ceremony: all it knows, and what follows from that without a clock.

The parts of the machine (`machine`, `hearing`, `guilt`, `decision`, `course`) share one of these and own nothing of
each other. What a participant must find again after a crash is exactly what `remember` writes and `recall` reads.

Invariant: nothing here speaks or waits. Whoever changes what `remember` writes sets `unstored`, and then nothing leaves
the machine before that was stored.
"""

from trust.ceremony.attempt import Attempt
from trust.ceremony.bodies import decode_opening
from trust.ceremony.electorate import Electorate
from trust.ceremony.events import CeremonyStatus, Members, Send
from trust.ceremony.evidence import judge
from trust.ceremony.gathering import Gathering, Standing
from trust.ceremony.lock import Lock
from trust.ceremony.memory import Memory, decode_memory, encode_memory
from trust.ceremony.statement import Frame, Kind, encode_frame
from trust.ceremony.voice import Voice
from trust.epoch import EpochRecord, decode_epoch, decode_value
from trust.errors import CeremonyError, EpochError
from trust.identity import node_id


class Place:
    """See the module's theory. `me` is this node's id."""

    def __init__(self, me: bytes, electorate: Electorate, voice: Voice) -> None:
        self.me = me
        self.electorate = electorate
        self.voice = voice
        self.elects = me in electorate.ids
        self.standing = Standing()
        self.gathering = Gathering(electorate, self.standing)
        self.attempt = Attempt(-1, me, electorate)
        self.record: EpochRecord | None = None  # the outcome
        self.heard_lock: Lock | None = None  # the highest that others told
        self.wanted: tuple[bytes, ...] | None = None  # public keys: who should be the signers
        self.seen = Members(known=frozenset())  # who may, as this node sees it
        self.refused: tuple[bytes, str] | None = (
            None  # the last opening that was not carried out: whose, and why
        )
        self.refused_in = -1  # its attempt
        self.unstored = False

    # -------------------------------------------------------------- who

    @property
    def engaged(self) -> bool:
        """Whether this node has a vote and a reason to bring the ceremony further."""
        wants = self.electorate.group is None or self.wanted is not None or self.voice.lock is not None
        return self.elects and wants

    @property
    def leader(self) -> bytes:
        """The node that opens the attempt (the first one, before there is any)."""
        return self.electorate.leader(max(self.attempt.number, 0))

    @property
    def participants(self) -> frozenset[bytes]:
        """Dealers and receivers; nobody before the attempt is open."""
        return frozenset() if self.attempt.opening is None else self.attempt.participants

    @property
    def audience(self) -> set[bytes]:
        """Who hears what this node says: the other electors and participants."""
        return (set(self.electorate.ids) | self.participants) - {self.me}

    @property
    def candidates(self) -> frozenset[bytes]:
        """Whom this node knows as one that may sign."""
        return self.seen.known | {node_id(key) for key in self.wanted or ()}

    @property
    def members(self) -> set[bytes]:
        """Who may have a say: the audience and the candidates."""
        return self.audience | self.candidates

    # -------------------------------------------------------------- what

    @property
    def highest_lock(self) -> Lock | None:
        """Of those that are known here."""
        locks = [each for each in (self.voice.lock, self.heard_lock) if each is not None]
        return max(locks, key=lambda each: each.attempt, default=None)

    def did(self, kind: Kind) -> bool:
        """Whether this node has said `kind` in this attempt."""
        return self.attempt.get(kind, self.me) is not None

    def awaited(self) -> frozenset[bytes]:
        """The others for whom the attempt waits."""
        return self.attempt.awaited() - {self.me}

    def letter(self, node: bytes, frame: Frame) -> Send:
        """A frame of this ceremony to `node`."""
        return Send(node=node, data=encode_frame(self.electorate.ceremony, frame))

    def status(self) -> CeremonyStatus:
        """For people."""
        if self.record is not None:
            stage = "sealed"
        elif self.attempt.value is not None:
            stage = "voting"
        else:
            stage = "gathering" if self.attempt.opening is None else "dealing"
        return CeremonyStatus(
            epoch=self.electorate.epoch,
            attempt=self.attempt.number,
            stage=stage,
            awaited=tuple(sorted(self.awaited())),
            convicted=tuple(sorted(self.standing.convictions)),
            sealed=self.record is not None,
            refused=self.refused,
        )

    # -------------------------------------------------------------- memory

    def remember(self) -> bytes:
        """What to store. Secret."""
        record = b"" if self.record is None else self.record.encode()
        said = () if self.record is not None else tuple(self.attempt.said.values())
        return encode_memory(
            Memory(
                ceremony=self.electorate.ceremony, attempt=self.attempt.number, said=said,
                seed=self.attempt.seed or b"", accepted=tuple(self.voice.accepted), lock=self.voice.lock,
                convictions=tuple(self.standing.convictions.values()), record=record,
            )
        )  # fmt: skip

    def recall(self, data: bytes) -> None:
        """Take up what was stored last. Raises CeremonyError: it is broken, or another ceremony's, and this place must
        not be used."""
        memory = decode_memory(data)
        if memory.ceremony != self.electorate.ceremony:
            raise CeremonyError("the memory is of another ceremony")
        self.attempt = Attempt(memory.attempt, self.me, self.electorate)
        for said in memory.said:
            self.attempt.put(said)
            if said.kind is Kind.OPEN:
                opening = decode_opening(said.body)
                self.attempt.opened, self.attempt.opening = said, opening
                if opening.value:
                    self.attempt.value = decode_value(opening.value)
        self.attempt.seed = memory.seed or None
        self.voice.accepted = list(memory.accepted)
        self.voice.lock = memory.lock
        for said in memory.convictions:
            self.standing.convictions[judge(said, self.electorate)] = said
        own = self.attempt.get(Kind.JOIN, self.me)
        if own is not None:
            self.gathering.joins[self.me] = own
        try:
            self.record = decode_epoch(memory.record) if memory.record else None
        except EpochError as error:
            raise CeremonyError(f"a ceremony's memory holds a broken record: {error}") from None
