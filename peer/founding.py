"""N peers that are started together make a mesh: its root by distributed key generation, then by the root's own new
signers its certificate and their credentials. Nobody ever holds the key.

    meet       each contacts the seeds, both ends prove themselves (`peer/acquaintance.py`), until N founders have
               settled on who they are (`peer/meeting.py`); from then on that is in keys/founders
    ceremony   the founding ceremony (`trust/ceremony`), its memory on disk like that of any other
    sign       the new group signs the root's certificate once, for the first of its signers that asks, and each
               founder's credential for the founder itself; credential and certificate make it a member
    part       who is a member stays until all are, or enough to admit the others, and then starts as any member does

A peer that is started again at any point goes on: settled founders, the memory of the ceremony, its share, and its
credential are each durable before anything follows from them. One that comes when the mesh runs already (a founder that
was away, or one more than N) asks a member of it to be let in: founders are, whoever proves the bootstrap secret is,
and anybody else is told to join with a token (`peer/readmission.py`).

On the stream, after both have proved themselves, the caller says what it is for: `letters` (settling, the ceremony),
`sign` (`peer/cosigner.py`), or `token` to a member of a running mesh. Letters:

    b"k" <cards>             peers that the sender has met: whom to contact
    b"p" <settled> <nodes>   whom the sender proposes
    b"c" <frame>             of the ceremony
    b"d" <certificate>       the root's
    b"m"                     the sender is a member

Invariant: a peer takes part in the founding of one root and no other, and believes nothing of who proved nothing.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from gossip.events import Address
from peer import founders
from peer.acquaintance import Introducer, der_of, passing_certificate
from peer.custody import Custody
from peer.enroll import Membership
from peer.firstsigning import FirstSignatures
from peer.io.keys import KeyFile, KeyFileError, Keys, erase_private
from peer.io.listen import StreamServer
from peer.io.stream import ALPN, FOUND, FrameStream, Hello, StreamError
from peer.meeting import Meeting
from peer.readmission import NotLetInError, ask
from peer.sitting import Sitting, forget_memory
from trust.admission import Token
from trust.authority import read_root, root_fingerprint
from trust.bootstrap import BootstrapSecret, Card, decode_card
from trust.ceremony.electorate import Electorate, founding
from trust.ceremony.events import Input, Learned, Received, Rejected, Retrying, Sealed, Send, Tick, Timing
from trust.ceremony.growth import SignerRules
from trust.ceremony.statement import pack_many, unpack_many
from trust.credential import decode_credential, verify_credential
from trust.epoch import EpochRecord
from trust.errors import TrustError
from trust.identity import ID_BYTES, NodeIdentity, format_id
from trust.tls import server_context_unverified

log = logging.getLogger("gossamer.founding")

TELL_S: Final = 0.3  # between two tellings of what stays true
WAITING_TOLD_S: Final = 10.0
HOPELESS_S: Final = 10.0  # after which a peer whose secret nobody shares gives up
ROOT_RANK_S: Final = 1.5  # how much longer each next signer waits for somebody else's root certificate
PART_S: Final = 2.0  # how long a member stays for founders that are late
ALONE_S: Final = 15.0  # how long it stays where it hears of no other


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


class Founding:
    """See the module's theory. `now` is Unix time; `say` tells the operator a line at once."""

    def __init__(
        self,
        site: Site,
        keys: Keys,
        identity: NodeIdentity,
        now: Callable[[], float],
        say: Callable[[str], None],
        timing: Timing | None = None,
    ) -> None:
        self._site, self._keys, self._identity = site, keys, identity
        self._now, self._say, self._timing = now, say, timing
        self._clock = time.monotonic
        self._certificate = passing_certificate(now())
        self._meeting = Meeting(self._own_card())
        self._founders = founders.Founders(
            self._meeting,
            Introducer(identity, lambda: self._meeting.me, site.secret),
            seeds=site.seeds,
            certificate=der_of(self._certificate),
            running=self._ask_to_be_let_in,
            sign=self._serve_signing,
        )
        self._let_in: LetIn | None = None
        self._hopeless = ""
        self._custody: Custody | None = None
        self._signing: FirstSignatures | None = None
        self._root: bytes | None = None
        self._member = False

    # -------------------------------------------------------------- the whole way

    async def run(self) -> Founded | LetIn:
        """Until this peer is a member, or has a token to become one. Raises FoundingError, KeyFileError."""
        server = StreamServer(
            server_context_unverified(self._certificate, alpn=(ALPN,)), _no_mesh_yet, lambda _stream: None
        )
        server.handle(FOUND, self._founders.serve)
        try:
            await server.start(self._site.bind, self._site.address[1])
        except OSError as error:
            where = f"{self._site.bind}:{self._site.address[1]}"
            raise FoundingError(f"gossip port {where} cannot be opened: {error.strerror or error}") from error
        contacting = asyncio.create_task(self._founders.contact(), name="meeting founders")
        contacting.add_done_callback(self._contact_ended)
        try:
            self._take_up()
            membership = self._membership()
            if membership is None:
                self._warn()
                await self._settle()
                record = await self._hold()
                if record is None or self._identity.id not in record.value.ids:
                    return await self._wait_to_be_let_in()
                membership = await self._sign(record)
                if membership is None:
                    return await self._wait_to_be_let_in()
            self._member = True
            return Founded(await self._part(membership))
        finally:
            contacting.cancel()
            await asyncio.gather(contacting, return_exceptions=True)
            await self._founders.close()
            if self._signing is not None:
                await self._signing.close()
            await server.close()

    def _own_card(self) -> Card:
        known = self._keys.read(KeyFile.FOUNDER_SINCE)
        if known is None or not known.isdigit() or len(known) > 12:
            known = b"%d" % int(self._now())
            self._keys.write(KeyFile.FOUNDER_SINCE, known)
        site = self._site
        return Card(
            public_key=self._identity.public_key,
            name=site.name,
            host=site.address[0],
            port=site.address[1],
            trust_domain=site.trust_domain,
            expect=site.expect,
            threshold=site.rules.threshold_of(site.expect),
            started_at=int(known),
        ).signed(self._identity)

    def _warn(self) -> None:
        if self._site.secret is None:
            log.warning("founders_unauthenticated", extra={"fields": {"expect": self._site.expect}})
            self._say(
                "warning: no bootstrap token is given: whoever reaches this port first can found the mesh. Compare the "
                "fingerprint below on all peers, or give all of them one token (gossamer token create --bootstrap)"
            )

    def _contact_ended(self, contacting: asyncio.Task[None]) -> None:
        error = None if contacting.cancelled() else contacting.exception()
        if error is not None:
            log.error("founders_uncalled", exc_info=error)
            self._hopeless = f"other founders cannot be called: {error!r}"
            self._founders.wake()

    async def _serve_signing(self, stream: FrameStream) -> None:
        if self._signing is not None:
            await self._signing.cosigner.serve(stream, founders.SIGN)

    # -------------------------------------------------------------- meeting

    def _take_up(self) -> None:
        """The founders that an earlier life settled on."""
        packed = self._keys.read(KeyFile.FOUNDERS)
        if packed is None:
            return
        try:
            cards = [decode_card(each) for each in unpack_many(packed)]
        except TrustError as error:
            raise FoundingError(f"{self._keys.path(KeyFile.FOUNDERS)}: {error}") from error
        for card in cards:
            self._meeting.met.setdefault(card.node, card)
        self._meeting.settled = frozenset(card.node for card in cards)

    async def _settle(self) -> None:
        """Until N founders have settled on who they are, or a running mesh has let this peer in."""
        taken_up = self._meeting.settled is not None
        began = told_at = self._clock()
        while self._meeting.settled is None and self._let_in is None:
            self._read_letters()
            self._founders.propose()
            now = self._clock()
            if now - told_at >= WAITING_TOLD_S:
                told_at = now
                self._say(self._waiting_words())
            alone = len(self._meeting.met) == 1
            if self._hopeless or (self._founders.refused and alone and now - began >= HOPELESS_S):
                raise FoundingError(self._hopeless or "; ".join(sorted(set(self._founders.refused.values()))))
            await self._founders.pause(TELL_S)
        if self._meeting.settled is not None and not taken_up:
            cards = [self._meeting.met[node] for node in sorted(self._meeting.settled)]
            self._keys.write(KeyFile.FOUNDERS, pack_many([card.encode() for card in cards]))
            self._founders.propose()

    def _waiting_words(self) -> str:
        met = ", ".join(sorted(card.name for card in self._meeting.met.values()))
        reasons = "; ".join(sorted(set(self._founders.refused.values())))
        words = f"waiting for {self._meeting.missing()} more of {self._site.expect} founders; here: {met}"
        if self._meeting.without_me() is not None:
            words = "others found the mesh without this peer; waiting for it, to be let in"
        return words + (f" ({reasons})" if reasons else "")

    # -------------------------------------------------------------- letters

    def _read_letters(self) -> list[Input]:
        """Deal with what has come; the ceremony's frames are returned."""
        frames: list[Input] = []
        for node, letter in self._founders.letters():
            body = letter[1:]
            match letter[:1]:
                case founders.CARDS:
                    self._founders.hear_of(body)
                case founders.PROPOSAL if len(body) % ID_BYTES == 1:
                    nodes = frozenset(body[at : at + ID_BYTES] for at in range(1, len(body), ID_BYTES))
                    self._meeting.hear(node, nodes, settled=body[:1] == b"\1")
                case b"c":
                    frames.append(Received(node=node, data=body))
                case b"d":
                    self._hear_root(body)
                case b"m":
                    self._founders.members.add(node)
                case _:
                    log.debug("founding_letter_unread", extra={"fields": {"node": format_id(node)}})
        return frames

    def _hear_root(self, der: bytes) -> None:
        """Of two, which slow founders can have had signed, all keep the same one."""
        other = self._root is None or der < self._root
        if other and self._custody is not None and self._custody.group is not None:
            with contextlib.suppress(TrustError):
                if read_root(der, self._site.trust_domain) == self._custody.group.public:
                    self._root = der

    # -------------------------------------------------------------- the ceremony

    def _electorate(self) -> Electorate:
        assert self._meeting.settled is not None, "founders have settled"
        keys = [self._meeting.met[node].public_key for node in self._meeting.settled]
        try:
            return founding(self._site.trust_domain, keys, threshold=self._site.rules.threshold_of(len(keys)))
        except TrustError as error:
            raise FoundingError(f"these founders cannot make a mesh: {error}") from error

    async def _hold(self) -> EpochRecord | None:
        """The founding ceremony; its outcome, None if this peer was let into a mesh meanwhile."""
        if self._meeting.settled is None:
            return None
        electorate = self._electorate()
        try:
            sitting = Sitting(
                keys=self._keys, electorate=electorate, identity=self._identity, rules=self._site.rules,
                share=None, now=self._clock, timing=self._timing,
            )  # fmt: skip
        except TrustError as error:
            raise FoundingError(str(error)) from error
        told_at = self._clock()
        while True:
            frames = self._read_letters()
            if self._let_in is not None:
                frames.append(Learned(record=self._let_in.record.encode()))
            for effect in await sitting.step([*frames, Tick()]):
                match effect:
                    case Send():
                        self._founders.send(effect.node, b"c" + effect.data)
                    case Sealed():
                        return self._keep(effect)
                    case Retrying():
                        fields = {"attempt": effect.attempt, "reason": effect.reason}
                        log.info("founding_retried", extra={"fields": fields})
                    case Rejected():
                        fields = {"node": format_id(effect.node), "reason": effect.reason}
                        log.debug("founding_rejected", extra={"fields": fields})
                    case _:
                        log.critical("founder_convicted", extra={"fields": {"node": format_id(effect.node)}})
            if self._let_in is not None:
                return None
            if self._hopeless:
                raise FoundingError(self._hopeless)
            if self._clock() - told_at >= TELL_S:
                told_at = self._clock()
                self._founders.propose()
            deadline = sitting.deadline
            wait_s = TELL_S if deadline is None else min(TELL_S, deadline - self._clock())
            await self._founders.pause(wait_s)

    def _keep(self, sealed: Sealed) -> EpochRecord:
        record = sealed.record
        custody = self._custody = Custody(self._keys, record.group.public, self._identity.id)
        try:
            if sealed.share is not None:
                custody.take(record, sealed.share)
            else:
                custody.learn(record)
        except TrustError as error:
            raise FoundingError(f"what came of the ceremony cannot be kept: {error}") from error
        names = [self._name(node) for node in record.value.ids]
        self._say(
            f"founded {fingerprint(record)} by {', '.join(sorted(names))}: "
            f"{record.group.threshold} of {len(names)} sign"
        )
        fields = {"fingerprint": fingerprint(record), "founders": ", ".join(sorted(names))}
        log.info("mesh_founded", extra={"fields": fields})
        return record

    def _name(self, node: bytes) -> str:
        card = self._meeting.met.get(node)
        return format_id(node)[:8] if card is None else card.name

    # -------------------------------------------------------------- certificate and credential

    async def _sign(self, record: EpochRecord) -> Membership | None:
        """Certificate and credential, signed by the group; None if a running mesh has let this peer in meanwhile."""
        custody = self._custody
        assert custody is not None, "the ceremony is over"
        signing = self._open_signing(custody, record)
        self._root = self._keys.read(KeyFile.ROOT_CERTIFICATE)
        turn_at = self._clock() + record.value.ids.index(self._identity.id) * ROOT_RANK_S
        try:
            while self._root is None and self._let_in is None:
                self._read_letters()
                if self._root is None and self._clock() >= turn_at:
                    self._root = await signing.root_certificate()
                await self._founders.pause(TELL_S)
            if self._root is None:
                return None
            self._keys.write(KeyFile.ROOT_CERTIFICATE, self._root)
            for node in record.value.ids:
                self._founders.send(node, b"d" + self._root)
            while (encoded := await signing.credential()) is None:
                if self._let_in is not None:
                    return None
                await self._founders.pause(TELL_S)
                self._read_letters()
        except TrustError as error:
            raise FoundingError(f"this peer cannot be a founder: {error}") from error
        self._keys.write(KeyFile.CREDENTIAL, encoded)
        membership = self._membership()
        assert membership is not None, "both are stored"
        return membership

    def _open_signing(self, custody: Custody, record: EpochRecord) -> FirstSignatures:
        self._signing = FirstSignatures(
            custody=custody, record=record, identity=self._identity, name=self._site.name,
            trust_domain=self._site.trust_domain, dial=lambda node: self._founders.dial(node, founders.SIGN),
            member_of=self._founders.member_of, now=self._now,
        )  # fmt: skip
        return self._signing

    def _membership(self) -> Membership | None:
        """What an earlier life came to, or this one."""
        root, encoded = self._keys.read(KeyFile.ROOT_CERTIFICATE), self._keys.read(KeyFile.CREDENTIAL)
        if root is None or encoded is None:
            return None
        try:
            public = read_root(root, self._site.trust_domain)
            credential = decode_credential(encoded)
            verify_credential(credential, public, self._site.trust_domain, None)
        except TrustError as error:
            raise FoundingError(f"{self._keys.path(KeyFile.CREDENTIAL)}: {error}") from error
        return Membership(root_certificate=root, trust_domain=self._site.trust_domain, credential=credential)

    async def _part(self, membership: Membership) -> Membership:
        """Stay until all founders are members, or enough of them to let the others in, and PART_S more."""
        custody = self._custody
        if custody is None:
            custody = self._custody = Custody.load(
                self._keys, membership.root_public, identity=self._identity,
                trust_domain=self._site.trust_domain,
            )  # fmt: skip
            if custody.record is not None and custody.record.epoch == 0 and custody.shares:
                self._root = membership.root_certificate
                self._open_signing(custody, custody.record)
        record = custody.record
        others = set() if record is None else set(record.value.ids) - {self._identity.id}
        since = self._clock()
        while record is not None and self._let_in is None:
            for node in others:
                self._founders.send(node, b"d" + membership.root_certificate)
                self._founders.send(node, b"m")
            self._read_letters()
            if self._root is not None and self._root != membership.root_certificate:
                self._keys.write(KeyFile.ROOT_CERTIFICATE, self._root)
                membership = replace(membership, root_certificate=self._root)
                continue  # the others are told before this one goes
            members = len(self._founders.members & others) + 1
            stayed_s = self._clock() - since
            enough = members >= record.group.threshold and stayed_s >= PART_S
            if members > len(others) or enough or (stayed_s >= ALONE_S and not self._heard_lately()):
                break
            await self._founders.pause(TELL_S)
        await asyncio.sleep(TELL_S / 3)  # the last word is on its way
        forget(self._keys, founded=True)
        return membership

    def _heard_lately(self) -> bool:
        return self._clock() - self._founders.heard_at < ALONE_S

    # -------------------------------------------------------------- a mesh that runs already

    async def _ask_to_be_let_in(self, address: Address, stream: FrameStream, card: Card) -> None:
        if self._member:
            return
        try:
            token, record = await ask(stream)
        except NotLetInError as error:
            self._hopeless = f"{card.name} is a member of a mesh already: {error}"
            return
        except (StreamError, TrustError) as error:
            self._founders.refuse(address, f"{card.name}: {error}")
            return
        finally:
            stream.abort()
        known = None if self._custody is None else self._custody.group
        if known is not None and root_fingerprint(known.public) != token.root_fingerprint:
            self._hopeless = f"{card.name} is a member of another mesh than the one founded here"
            return
        self._let_in = LetIn(token, record, address)
        self._founders.wake()

    async def _wait_to_be_let_in(self) -> LetIn:
        while self._let_in is None:
            if self._hopeless:
                raise FoundingError(self._hopeless)
            self._read_letters()
            self._founders.propose()  # which calls the others, who may run by now
            await self._founders.pause(TELL_S)
        return self._let_in


def forget(keys: Keys, *, founded: bool) -> None:
    """What was only there for the founding, once this peer is a member. That it founded is forgotten when it has taken
    part in the mesh (`peer/entering.py`): until then there is no state of it that others could hold. Raises
    KeyFileError."""
    if failed := forget_memory(keys, 0):
        raise KeyFileError(failed)
    erase_private(keys.path(KeyFile.FOUNDERS))
    if not founded:
        erase_private(keys.path(KeyFile.FOUNDER_SINCE))


def fingerprint(record: EpochRecord) -> str:
    """What people compare on all founders: of the founders' keys, the root and all shares' public halves."""
    digest = record.digest.hex()[:32]
    return "-".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def _no_mesh_yet() -> Hello:
    return Hello(root_certificate=b"", issues=False, signers=())
