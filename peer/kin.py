"""Streams between members that have no valid certificate: how a mesh gets certificates when nobody has one.

Certificates live for an hour and are signed by signers over streams that are secured by certificates. When all hosts
were off for longer than that, or more than the threshold allows, nobody could be certified any more; and those who have
just founded a mesh have no certificate yet either. What they do have is their node key and a credential, signed by the
root and good for days. So orders to sign can also be carried by a stream on which both ends prove their node keys
(`peer/acquaintance.py`) and the caller shows its credential:

    caller -> "kin", then the introduction, then pack([purpose, credential])
    answerer serves `sign`, and nothing else, for a member: credential verified, not expired, not revoked

The caller knows whom it calls by the signers' keys (`peer/custody.py`), and where from the list of members, or it
asks at the seeds and at members of an earlier run who is there.

Invariant: a stream is served as that of the node whose key was proved on it, and only while its credential is good.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from gossip.events import Address
from peer.acquaintance import Introducer, UnacquaintedError
from peer.io.stream import KIN, FrameStream, StreamError
from trust.bootstrap import Card
from trust.codec import Reader, pack
from trust.credential import CREDENTIAL_BYTES_MAX, Credential, decode_credential, verify_credential
from trust.errors import CredentialError, TrustError
from trust.identity import NodeIdentity, format_id
from trust.revocation import RevocationSet
from trust.roots import Root

log = logging.getLogger("gossamer.stream")

PLACES_MAX: Final = 64  # addresses asked who is there
KNOWN_S: Final = 30.0  # how long a place is remembered
_PURPOSE_BYTES_MAX: Final = 16


@dataclass(slots=True)
class Kin:
    """See the module's theory. `certificate()` is the leaf that this peer shows (DER), `where(node)` its address if it
    is known, `places()` where members may be."""

    identity: NodeIdentity
    credential: Callable[[], Credential]
    root_public: Root
    revoked: RevocationSet
    address: Address
    certificate: Callable[[], bytes]
    where: Callable[[bytes], Address | None]
    places: Callable[[], Iterable[Address]]
    now: Callable[[], float]
    _found: dict[bytes, tuple[Address, float]] = field(default_factory=dict)
    _nodes: dict[FrameStream, bytes] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def dial(self, node: bytes, purpose: bytes) -> FrameStream:
        """A stream to `node`, which proved its key, for `purpose`. Raises StreamError."""
        address = self.where(node) or await self._look_for(node)
        stream, card = await self._call(address)
        if card.node != node:
            self._found.pop(node, None)
            stream.abort()
            raise StreamError(f"at {address[0]}:{address[1]} is another peer, {card.name}")
        stream.write(pack([purpose, self.credential().encode()]))
        return stream

    async def answer(self, stream: FrameStream) -> bytes:
        """Hear who calls, and for what purpose. `member_of` knows the stream until `forget`. Raises StreamError."""
        introducer = Introducer(self.identity, self._card, None)
        try:
            card = await introducer.answer(stream, self.certificate())
            data = await stream.read()
            if not data:
                raise StreamError("the caller only wanted to know who is here")
            reader = Reader(
                data,
                count=2,
                bytes_max=CREDENTIAL_BYTES_MAX + 64,
                what="a caller's word",
                error=CredentialError,
            )
            purpose = reader.blob(_PURPOSE_BYTES_MAX)
            credential = decode_credential(reader.blob(CREDENTIAL_BYTES_MAX))
            domain = self.credential().trust_domain
            verify_credential(credential, self.root_public, domain, self.now())
            self.revoked.check_credential(credential)
        except (UnacquaintedError, TrustError) as error:
            raise StreamError(f"a caller is refused: {error}") from error
        if credential.public_key != card.public_key:
            raise StreamError("a caller is refused: it showed another node's credential")
        self._nodes[stream] = card.node
        return purpose

    def member_of(self, stream: FrameStream) -> bytes | None:
        """The node at the other end of a stream that is being answered."""
        return self._nodes.get(stream)

    def forget(self, stream: FrameStream) -> None:
        """The stream has ended."""
        self._nodes.pop(stream, None)

    async def _call(self, address: Address) -> tuple[FrameStream, Card]:
        try:
            return await Introducer(self.identity, self._card, None).call(address, KIN)
        except UnacquaintedError as error:
            raise StreamError(str(error)) from error

    async def _look_for(self, node: bytes) -> Address:
        async with self._looking:
            found = self._found.get(node)
            if found is None or self.now() > found[1]:
                places = list(dict.fromkeys(self.places()))[:PLACES_MAX]
                await asyncio.gather(*(self._look_at(place) for place in places if place != self.address))
                found = self._found.get(node)
        if found is None:
            raise StreamError(f"nobody knows where {format_id(node)} is")
        return found[0]

    async def _look_at(self, place: Address) -> None:
        try:
            stream, card = await self._call(place)
        except StreamError as error:
            log.debug("kin_unreachable", extra={"fields": {"reason": str(error)}})
            return
        stream.abort()
        now = self.now()
        for old in [node for node, (_, ends_at) in self._found.items() if ends_at < now]:
            del self._found[old]  # whoever answers may be another one each time
        self._found[card.node] = place, now + KNOWN_S

    def _card(self) -> Card:
        credential = self.credential()
        return Card(
            public_key=self.identity.public_key, name=credential.name, host=self.address[0],
            port=self.address[1], trust_domain=credential.trust_domain, expect=0, threshold=0,
            started_at=credential.issued_at,
        ).signed(self.identity)  # fmt: skip
