"""A signer's part in a rollover: from the request of a node that governs to a rollover that both roots have signed.

The request goes from whoever asks to the signers, and from signer to signer. Each that finds it good
(`trust/rolling.py`) keeps it and sits down to the ceremony it names, beside whatever else the signers do; what comes of
that is a new root that nobody follows yet. Then whoever has the turn asks the old signers to name it and the new ones
to accept it (`peer/rootnaming.py`).

    keys/rollover-request   the request; there as long as the rollover is under way
    keys/rollover.key       the memory of its ceremony, and so this node's share of the new root; secret

Whatever is cut short goes on from these files. A request ends when the mesh has gone over, when the signers change
under it, or when it is too old. A root that was made may have been named then, and nobody here has heard of it: so its
share is not erased but set aside (`peer/unnamed.py`). Until the old root has signed, nothing of all that is visible to
anybody but the signers.

Invariant: whatever this node says in the ceremony is on its disk before, and a root that was made signs nothing but
what it takes to follow on the old one until that has named it. Which one it names: `peer/rootvote.py`.
"""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from peer.api import ApiError
from peer.io.keys import KeyFile, KeyFileError, Keys, erase_private
from peer.post import REQUEST, STEP, Post
from peer.rootnaming import Naming
from peer.signing import SigningError
from peer.sitting import Sitting
from trust.ceremony.electorate import DIGEST_BYTES
from trust.ceremony.events import (
    Convicted,
    Input,
    Learned,
    Received,
    Refused,
    Rejected,
    Retrying,
    Sealed,
    Send,
    Tick,
)
from trust.credential import decode_credential
from trust.epoch import EpochRecord
from trust.errors import CeremonyError, RolloverError, TrustError
from trust.order import Rolling
from trust.rolling import (
    RolloverRequest,
    decode_rollover_request,
    judge_request,
    rolling_electorate,
    rolling_rules,
)
from trust.rollover import name_of

if TYPE_CHECKING:
    from peer.daemon import Daemon
    from peer.signing import Signing

log = logging.getLogger("gossamer.rollover")

TELL_S: Final = 2.0  # between two tellings of the request to signers that may not have heard it
TURN_S: Final = 1.0  # times the rank among the signers: who asks for the signatures first
RETRY_S: Final = 5.0
IDLE_S: Final = 5.0


class RolloverCeremony:
    """See the module's theory."""

    def __init__(self, daemon: "Daemon", signing: "Signing") -> None:
        """`signing` obtains signatures of the root that is being made."""
        self._daemon = daemon
        self._naming = Naming(daemon, signing)
        self._post = Post(self._send)
        self._wake = asyncio.Event()
        self._request: RolloverRequest | None = None
        self._sitting: Sitting | None = None
        self._obtaining: asyncio.Task[None] | None = None
        self._try_at = self._tell_at = 0.0
        self._taking = asyncio.Lock()
        self.barred = False  # the memory of this ceremony cannot be read
        self.recalled = False  # whether what is on disk has been taken up
        self.problem = ""  # why the signatures were not obtained last
        self.rival = ""  # who asks for another one while this one is under way

    # -------------------------------------------------------------- what others ask of it

    @property
    def request(self) -> RolloverRequest | None:
        """The one under way here."""
        return self._request

    @property
    def awaited(self) -> tuple[bytes, ...]:
        """The nodes for whom the ceremony waits."""
        return () if self._sitting is None else self._sitting.status.awaited

    def receive(self, node: bytes, letter: bytes) -> None:
        """A letter of a rollover came, over an authenticated stream from `node`."""
        if self._post.receive(node, letter):
            self._wake.set()

    def changed(self) -> None:
        """The signers, or the root, may be others now."""
        self._wake.set()

    async def ask(self, request: RolloverRequest) -> bool:
        """Begin, as a signer, or ask the signers to; whether this node is one. Raises TrustError: it is not good, or
        another one is under way; KeyFileError."""
        record = self._daemon.custody.record
        if record is None:
            raise RolloverError("this peer does not know yet who signs for the mesh")
        if self._daemon.identity.id not in record.value.ids:
            self._judge(request, record)
            self.pass_on(request)
            return False
        await self._take(request, record)
        self._wake.set()
        return True

    def pass_on(self, request: RolloverRequest) -> None:
        """Tell the signers. It may be lost, and then has to be told again."""
        record = self._daemon.custody.record
        for node in () if record is None else record.value.ids:
            if node != self._daemon.identity.id:
                self._post.send(node, REQUEST, request.encode())

    async def run(self) -> None:
        """Take part in whatever is asked for; for ever."""
        while True:
            self._wake.clear()
            try:
                await self._turn()
            except KeyFileError as error:
                log.error("rollover_interrupted", extra={"fields": {"reason": str(error)}})
                self._sitting = None  # taken up again from what is stored
                await asyncio.sleep(RETRY_S)
            self.recalled = True
            try:
                async with asyncio.timeout(self._wait_s()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """End what is under way; it is taken up by the next life."""
        if self._obtaining is not None:
            self._obtaining.cancel()
            await asyncio.gather(self._obtaining, return_exceptions=True)

    def __repr__(self) -> str:
        return f"RolloverCeremony(asked={self._request is not None}, sitting={self._sitting!r})"

    # -------------------------------------------------------------- turns

    def _wait_s(self) -> float:
        if self._request is None:
            return IDLE_S * 10
        now = self._clock()
        times = [now + IDLE_S]
        if self._daemon.membership.roots.newest == self._request.old:  # once it is named, others go on
            times.append(self._tell_at)
            if self._daemon.custody.next is not None and not self._busy:
                times.append(self._try_at)
        if self._sitting is not None and self._sitting.deadline is not None:
            times.append(self._sitting.deadline)
        return max(0.02, min(times) - now)

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def _turn(self) -> None:
        if not self.recalled:
            await self._recall()
        given = await self._read()
        request, record = self._request, self._daemon.custody.record
        if request is None or record is None:
            return
        if reason := self._over(request, record):
            await self._remember(request)
            self._end(reason)
            return
        self._sit(request, record)
        given += self._outcome(request)
        await self._step(given, record)
        if self._daemon.membership.roots.newest == request.old:
            self._tell(request)
            self._obtain(request, record)

    async def _recall(self) -> None:
        data = self._daemon.keys.read(KeyFile.ROLLOVER_REQUEST)
        if data is None or not any(data):
            return
        try:
            self._request = decode_rollover_request(data)
        except RolloverError as error:
            log.error("rollover_request_unreadable", extra={"fields": {"reason": str(error)}})

    async def _remember(self, request: RolloverRequest) -> None:
        """A root that an earlier life made, before the memory of it goes."""
        before = next((r for r in self._daemon.custody.chain.records if r.digest == request.before), None)
        if before is None or self._sitting is not None or not memory_path(self._daemon.keys).exists():
            return
        self._sit(request, before)
        await self._step([], before)

    def _over(self, request: RolloverRequest, record: EpochRecord) -> str:
        """Why the request has ended; "" while it has not."""
        daemon = self._daemon
        if daemon.custody.root != request.old:
            return "the mesh has gone over"
        if record.digest != request.before:
            return "the signers have changed"
        if daemon.membership.roots.newest != request.old:
            return ""  # named: what is left to do is to go over
        try:
            self._judge(request, record)
        except TrustError as error:
            return str(error)
        return ""

    def _judge(self, request: RolloverRequest, record: EpochRecord) -> None:
        daemon = self._daemon
        judge_request(
            request,
            record,
            daemon.membership.roots,
            trust_domain=daemon.membership.trust_domain,
            now=daemon.clock.now(),
            revoked=daemon.revocations,
            carries=daemon.rootline.carries,
        )

    async def _take(self, request: RolloverRequest, record: EpochRecord) -> None:
        self._judge(request, record)
        async with self._taking:
            if self._request is not None:
                raise RolloverError("the mesh is on its way to a new root already")
            await asyncio.to_thread(self._daemon.keys.write, KeyFile.ROLLOVER_REQUEST, request.encode())
            self._request = request
        self._tell_at = self._try_at = 0.0
        fields = {
            "root": name_of(request.old),
            "overlap_s": request.overlap_s,
            "compromised": request.compromised,
        }
        log.warning("rollover_asked", extra={"fields": fields})

    def _end(self, reason: str) -> None:
        """Raises KeyFileError: it is tried again."""
        self._daemon.custody.abandon()  # first: else its share is nowhere
        if self._sitting is not None:
            self._sitting.forget()
            self._sitting = None
        erase_private(memory_path(self._daemon.keys))
        erase_private(self._daemon.keys.path(KeyFile.ROLLOVER_REQUEST))
        self._request = None
        self.barred = False
        self.problem = self.rival = ""
        self._daemon.rootline.tell_moved()
        log.info("rollover_ended", extra={"fields": {"reason": reason}})

    # -------------------------------------------------------------- letters

    def _send(self, node: bytes, letter: bytes) -> None:
        self._daemon.succession.letters.send(node, letter)

    async def _read(self) -> list[Input]:
        frames: list[Input] = []
        record = self._daemon.custody.record
        for node, sort, content in self._post.read():
            if record is not None and sort == REQUEST:
                await self._hear(node, content, record)  # whoever carries it: it proves itself
            elif record is None or node not in record.value.ids:
                self._post.reject(node, "a new root is the signers' business")
            elif self._request is not None and content[:DIGEST_BYTES] == self._name(self._request, record):
                frames.append(Received(node=node, data=content))
        return frames

    def _name(self, request: RolloverRequest, record: EpochRecord) -> bytes:
        return rolling_electorate(request, record).ceremony if self._sitting is None else self._sitting.name

    async def _hear(self, node: bytes, content: bytes, record: EpochRecord) -> None:
        if self._daemon.identity.id not in record.value.ids:
            return
        try:
            request = decode_rollover_request(content)
            if self._request is None:
                await self._take(request, record)
            elif request != self._request and not self.rival:
                self._judge(request, record)
                self.rival = decode_credential(request.credential).name
                log.warning("rollover_rivalled", extra={"fields": {"asked_by": self.rival}})
        except TrustError as error:
            self._post.reject(node, str(error))

    def _tell(self, request: RolloverRequest) -> None:
        """Those who have not heard of it yet do not sit down."""
        now = self._clock()
        if now < self._tell_at:
            return
        self._tell_at = now + TELL_S
        self.pass_on(request)

    # -------------------------------------------------------------- the ceremony

    def _sit(self, request: RolloverRequest, record: EpochRecord) -> None:
        if self._sitting is not None or self.barred or self._daemon.identity.id not in record.value.ids:
            return
        try:
            self._sitting = Sitting(
                keys=self._daemon.keys,
                electorate=rolling_electorate(request, record),
                identity=self._daemon.identity,
                rules=rolling_rules(record),
                share=None,
                now=self._clock,
                path=memory_path(self._daemon.keys),
            )
        except CeremonyError as error:
            # What it said there is unknown, and to say other things would convict it. The others go on without it.
            log.error("rollover_memory_lost", extra={"fields": {"reason": str(error)}})
            self.barred = True

    @property
    def unsealed(self) -> bool:
        """Whether this node may yet find its share of a root that the others have made."""
        return self._sitting is not None and self._daemon.custody.next is None

    def _outcome(self, request: RolloverRequest) -> list[Input]:
        """What the journal tells of a ceremony whose end this node has missed."""
        step = self._daemon.membership.roots.step_from(request.old)
        if step is None or not self.unsealed:
            return []
        record = self._daemon.rootline.first_epoch(step)
        return [] if record is None else [Learned(record=record.encode())]

    async def _step(self, given: list[Input], record: EpochRecord) -> None:
        sitting = self._sitting
        if sitting is None:
            return
        members = self._daemon.succession.candidates.members(record)
        for effect in await sitting.step([members, *given, Tick()]):
            match effect:
                case Sealed():
                    rolling = Rolling(before=record, after=effect.record)
                    self._daemon.custody.prepare(rolling, effect.share)
                    rank = record.value.ids.index(self._daemon.identity.id)
                    self._try_at = self._clock() + TURN_S * rank
                    fields = {"root": name_of(effect.record.group.public), "share": effect.share is not None}
                    log.info("root_made", extra={"fields": fields})
                case Send():
                    self._post.send(effect.node, STEP, effect.data)
                case Convicted():
                    log.critical("signer_convicted", extra={"fields": sitting.told(effect)})
                case Retrying():
                    log.info("rollover_retrying", extra={"fields": sitting.told(effect)})
                case Refused():
                    log.warning("opening_refused", extra={"fields": sitting.told(effect)})
                case Rejected():
                    self._post.reject(effect.node, effect.reason)
                case _:
                    assert_never(effect)

    # -------------------------------------------------------------- the signatures

    def _obtain(self, request: RolloverRequest, record: EpochRecord) -> None:
        rolling = self._daemon.custody.next
        if rolling is None or rolling.before.digest != record.digest:
            return
        if self._busy or self._clock() < self._try_at:
            return
        self._try_at = self._clock() + RETRY_S
        self._obtaining = asyncio.create_task(self._announce(request, rolling))

    @property
    def _busy(self) -> bool:
        return self._obtaining is not None and not self._obtaining.done()

    async def _announce(self, request: RolloverRequest, rolling: Rolling) -> None:
        try:
            terms = await self._naming.name(request, rolling)
        except (TrustError, ApiError) as error:
            self.problem = str(error)
            level = logging.INFO if isinstance(error, SigningError) else logging.WARNING
            log.log(level, "rollover_unsigned", extra={"fields": {"reason": str(error)}})
        else:
            self.problem = ""
            fields = {"old": name_of(terms.old), "new": name_of(terms.new), "ends_at": terms.ends_at}
            log.warning("root_named", extra={"fields": fields})


def memory_path(keys: Keys) -> Path:
    """Where the memory of the ceremony of a rollover is."""
    return keys.directory / "rollover.key"
