"""One founder: what it knows of the others, of the root they make, and of a mesh that runs already.

The steps of a founding (`peer/founding.py`) read it and add to it. Letters come to all of them here, so that one that
is about another step than the current one is not lost: founders are seldom at the same step.

Invariant: at most one root is believed in, and of a mesh that runs only what its member said for itself.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gossip.events import Address
from peer import founders
from peer.acquaintance import Introducer, der_of, passing_certificate
from peer.custody import Custody
from peer.enroll import Membership
from peer.firstsigning import FirstSignatures
from peer.io.keys import KeyFile, Keys
from peer.io.stream import FrameStream, StreamError
from peer.meeting import Meeting
from peer.readmission import NotLetInError, ask
from trust.admission import Token
from trust.authority import read_root, root_fingerprint
from trust.bootstrap import BootstrapSecret, Card
from trust.ceremony.events import Input, Received
from trust.ceremony.growth import SignerRules
from trust.epoch import EpochRecord
from trust.errors import TrustError
from trust.identity import ID_BYTES, NodeIdentity, format_id

log = logging.getLogger("gossamer.founding")

TELL_S: Final = 0.3  # between two tellings of what stays true


class FoundingError(Exception):
    """This peer cannot found a mesh together with the others; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """This peer as a founder. `secret` is None where people compare fingerprints instead."""

    name: str
    bind: str
    address: Address
    seeds: tuple[Address, ...]
    expect: int
    secret: BootstrapSecret | None
    trust_domain: str
    rules: SignerRules


@dataclass(frozen=True, slots=True)
class Founded:
    """The mesh is there, and this peer is its member. What is durable: all of it."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class LetIn:
    """The mesh runs already, and a member of it sent this token. `record` is the epoch the mesh was founded with."""

    token: Token
    record: EpochRecord
    seed: Address


class Founder:
    """See the module's theory. `now` is Unix time, `clock` counts seconds; `say` tells the operator a line at once.
    `others` are the founders on the wire, `let_in` and `hopeless` are the ends that others can bring about."""

    def __init__(
        self,
        site: Site,
        keys: Keys,
        identity: NodeIdentity,
        now: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.site, self.keys, self.identity = site, keys, identity
        self.now, self.say = now, say
        self.clock = time.monotonic
        self.certificate = passing_certificate(now())
        self.meeting = Meeting(self._own_card())
        self.others = founders.Founders(
            self.meeting,
            Introducer(identity, lambda: self.meeting.me, site.secret),
            seeds=site.seeds,
            certificate=der_of(self.certificate),
            running=self._ask_to_be_let_in,
            sign=self._serve_signing,
        )
        self.let_in: LetIn | None = None
        self.hopeless = ""
        self.custody: Custody | None = None
        self.signing: FirstSignatures | None = None
        self.root: bytes | None = None
        self.member = False

    def _own_card(self) -> Card:
        known = self.keys.read(KeyFile.FOUNDER_SINCE)
        if known is None or not known.isdigit() or len(known) > 12:
            known = b"%d" % int(self.now())
            self.keys.write(KeyFile.FOUNDER_SINCE, known)
        site = self.site
        return Card(
            public_key=self.identity.public_key,
            name=site.name,
            host=site.address[0],
            port=site.address[1],
            trust_domain=site.trust_domain,
            expect=site.expect,
            threshold=site.rules.threshold_of(site.expect),
            started_at=int(known),
        ).signed(self.identity)

    async def _serve_signing(self, stream: FrameStream) -> None:
        if self.signing is not None:
            await self.signing.cosigner.serve(stream, founders.SIGN)

    def name(self, node: bytes) -> str:
        """What people call a founder; the beginning of its id where its card is unknown."""
        card = self.meeting.met.get(node)
        return format_id(node)[:8] if card is None else card.name

    # -------------------------------------------------------------- letters

    def read_letters(self) -> list[Input]:
        """Deal with what has come; the ceremony's frames are returned."""
        frames: list[Input] = []
        for node, letter in self.others.letters():
            body = letter[1:]
            match letter[:1]:
                case founders.CARDS:
                    self.others.hear_of(body)
                case founders.PROPOSAL if len(body) % ID_BYTES == 1:
                    nodes = frozenset(body[at : at + ID_BYTES] for at in range(1, len(body), ID_BYTES))
                    self.meeting.hear(node, nodes, settled=body[:1] == b"\1")
                case founders.FRAME:
                    frames.append(Received(node=node, data=body))
                case founders.ROOT:
                    self._hear_root(body)
                case founders.MEMBER:
                    self.others.members.add(node)
                case _:
                    log.debug("founding_letter_unread", extra={"fields": {"node": format_id(node)}})
        return frames

    def _hear_root(self, der: bytes) -> None:
        """Of two, which slow founders can have had signed, all keep the same one."""
        other = self.root is None or der < self.root
        if other and self.custody is not None and self.custody.group is not None:
            with contextlib.suppress(TrustError):
                if read_root(der, self.site.trust_domain) == self.custody.group.public:
                    self.root = der

    # -------------------------------------------------------------- a mesh that runs already

    async def _ask_to_be_let_in(self, address: Address, stream: FrameStream, card: Card) -> None:
        if self.member:
            return
        try:
            token, record = await ask(stream)
        except NotLetInError as error:
            self.hopeless = f"{card.name} is a member of a mesh already: {error}"
            return
        except (StreamError, TrustError) as error:
            self.others.refuse(address, f"{card.name}: {error}")
            return
        finally:
            stream.abort()
        known = None if self.custody is None else self.custody.group
        if known is not None and root_fingerprint(known.public) != token.root_fingerprint:
            self.hopeless = f"{card.name} is a member of another mesh than the one founded here"
            return
        self.let_in = LetIn(token, record, address)
        self.others.wake()

    async def wait_to_be_let_in(self) -> LetIn:
        """Until a member of the mesh that runs has sent a token. Raises FoundingError."""
        while self.let_in is None:
            if self.hopeless:
                raise FoundingError(self.hopeless)
            self.read_letters()
            self.others.propose()  # which calls the others, who may run by now
            await self.others.pause(TELL_S)
        return self.let_in
