"""The founders of a mesh on the wire: calling those that have not been met, and letters between those that have.

Every stream is an acquaintance's (`peer/acquaintance.py`): both ends have proved their node keys and, where there is
one, the bootstrap secret, before anything is said. Then the caller names what the stream is for: `letters`, `sign`, or,
to a member of a mesh that runs already, `token`.

Invariant: letters and streams are those of peers that proved themselves and were told the same as this one.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from gossip.events import Address
from peer.acquaintance import Introducer, UnacquaintedError
from peer.io.letters import Letters
from peer.io.stream import FrameStream, StreamError
from peer.meeting import MET_MAX, Meeting
from trust.bootstrap import Card, decode_card
from trust.ceremony.statement import FRAME_BYTES_MAX, pack_many, unpack_many
from trust.errors import TrustError
from trust.identity import format_id

log = logging.getLogger("gossamer.founding")

LETTERS, SIGN = b"letters", b"sign"
CARDS, PROPOSAL, FRAME, ROOT, MEMBER = b"k", b"p", b"c", b"d", b"m"
CONTACT_S: Final = 0.3  # between two rounds of calls to those that have not been met
INBOX_MAX: Final = 1024
INBOX_EACH_BYTES_MAX: Final = 1024 * 1024  # of one founder
LETTER_BYTES_MAX: Final = FRAME_BYTES_MAX + 1
_CARDS_SENT_MAX: Final = 16
_LOUD_MAX: Final = 4 * MET_MAX

Running = Callable[[Address, FrameStream, Card], Awaitable[None]]


class Founders:
    """See the module's theory. `certificate` (DER) is what callers see, `running` is called with a stream to a member
    of a mesh that runs, `sign` serves a founder that has something signed."""

    def __init__(
        self,
        meeting: Meeting,
        introducer: Introducer,
        *,
        seeds: tuple[Address, ...],
        certificate: bytes,
        running: Running,
        sign: Callable[[FrameStream], Awaitable[None]],
    ) -> None:
        self.meeting = meeting
        self.refused: dict[Address, str] = {}  # why, by address
        self.members: set[bytes] = set()  # found in a mesh that runs
        self.heard_at = float("-inf")
        self._introducer = introducer
        self._seeds, self._certificate = seeds, certificate
        self._running, self._sign = running, sign
        self._nodes: dict[FrameStream, bytes] = {}
        self._letters = Letters(self.dial, self._nodes.get, self._received)
        self._heard_of: dict[bytes, Card] = {}
        self._own: set[Address] = {meeting.me.address}
        self._inbox: list[tuple[bytes, bytes]] = []
        self._inbox_bytes: Counter[bytes] = Counter()
        self._wake = asyncio.Event()
        self._loud: set[str] = set()

    async def contact(self) -> None:
        """Call whom this peer has not met, again and again."""
        while True:
            known = {card.address for card in self.meeting.met.values()}
            heard = [card.address for card in self._heard_of.values()]
            for address in dict.fromkeys([*self._seeds, *heard]):
                if address not in known and address not in self._own:
                    await self._call(address)
            await asyncio.sleep(CONTACT_S)

    async def _call(self, address: Address) -> None:
        try:
            stream, card = await self._introducer.call(address)
        except UnacquaintedError as error:
            self.refuse(address, str(error))
            return
        except StreamError as error:
            log.debug("founder_unreachable", extra={"fields": {"reason": str(error)}})
            return
        self.refused.pop(address, None)
        if card.node == self.meeting.me.node:
            self._own.add(address)
            stream.abort()
        elif card.expect == 0:
            await self._running(address, stream, card)
        elif reason := self.meeting.meet(card):
            self.refuse(address, reason)
            stream.abort()
        else:
            self._met(card)
            stream.write(LETTERS)
            self._letters.keep(card.node, stream)
            self._wake.set()

    async def dial(self, node: bytes, purpose: bytes = LETTERS) -> FrameStream:
        """A stream to a founder that was met. Raises StreamError."""
        card = self.meeting.met.get(node)
        if card is None:
            raise StreamError("it is no founder that is known here")
        try:
            stream, found = await self._introducer.call(card.address)
        except UnacquaintedError as error:
            raise StreamError(str(error)) from error
        if found.expect == 0:
            self.members.add(node)
            await self._running(card.address, stream, found)
        if found.node != node or found.expect == 0:
            stream.abort()
            raise StreamError(f"at its address is {found.name} now, as another peer or in a running mesh")
        stream.write(purpose)
        return stream

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Answer one caller (a handler of `peer/io/listen.py`)."""
        try:
            card = await self._introducer.answer(stream, self._certificate)
        except UnacquaintedError as error:
            self.refuse(None, str(error))
            return
        if card.node == self.meeting.me.node:
            return
        if reason := self.meeting.meet(card):
            self.refuse(card.address, reason)
            return
        self._met(card)
        self._nodes[stream] = card.node
        self._wake.set()
        try:
            purpose = await stream.read()
            if purpose == LETTERS:
                await self._letters.serve(stream, purpose)
            elif purpose == SIGN:
                await self._sign(stream)
        finally:
            self._nodes.pop(stream, None)

    def _met(self, card: Card) -> None:
        if card.name not in self._loud and len(self._loud) < _LOUD_MAX:
            self._loud.add(card.name)
            fields = {"name": card.name, "node": format_id(card.node), "missing": self.meeting.missing()}
            log.info("founder_met", extra={"fields": fields})

    def refuse(self, address: Address | None, reason: str) -> None:
        """Say, once, why somebody is no fellow founder."""
        if address is not None and (address in self.refused or len(self.refused) < _LOUD_MAX):
            self.refused[address] = reason
        if reason not in self._loud and len(self._loud) < _LOUD_MAX:
            self._loud.add(reason)
            log.warning("founder_refused", extra={"fields": {"reason": reason}})

    def propose(self) -> None:
        """Tell all that were met whom this peer knows, and whom it proposes."""
        nodes = self.meeting.proposal()
        others = sorted(self.meeting.met.keys() - {self.meeting.me.node})
        cards = pack_many([self.meeting.met[node].encode() for node in others][:_CARDS_SENT_MAX])
        for node in others:
            self._letters.send(node, CARDS + cards)
            if nodes is not None:
                flag = b"\1" if self.meeting.settled is not None else b"\0"
                self._letters.send(node, PROPOSAL + flag + b"".join(sorted(nodes)))

    def send(self, node: bytes, letter: bytes) -> None:
        """To a founder that was met; it may be lost."""
        self._letters.send(node, letter)

    def letters(self) -> list[tuple[bytes, bytes]]:
        """What has come since the last time: (node, letter)."""
        letters, self._inbox = self._inbox, []
        self._inbox_bytes.clear()
        return letters

    def hear_of(self, packed: bytes) -> None:
        """Cards that another one sent: whom to call."""
        try:
            cards = [decode_card(each) for each in unpack_many(packed)]
        except TrustError as error:
            log.debug("cards_unread", extra={"fields": {"reason": str(error)}})
            return
        for card in cards:
            if card.node not in self.meeting.met and len(self._heard_of) < MET_MAX:
                self._heard_of[card.node] = card

    async def pause(self, seconds: float) -> None:
        """Until something has come, at most so long."""
        if not self._inbox:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._wake.wait()

    def member_of(self, stream: FrameStream) -> bytes | None:
        """Which founder called."""
        return self._nodes.get(stream)

    def wake(self) -> None:
        """End a pause."""
        self._wake.set()

    async def close(self) -> None:
        """End all letters."""
        await self._letters.close()

    def _received(self, node: bytes, letter: bytes) -> None:
        self.heard_at = time.monotonic()
        fits = self._inbox_bytes[node] + len(letter) <= INBOX_EACH_BYTES_MAX
        if len(self._inbox) < INBOX_MAX and fits and len(letter) <= LETTER_BYTES_MAX:
            self._inbox.append((node, letter))
            self._inbox_bytes[node] += len(letter)
            self._wake.set()
