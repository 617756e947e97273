"""A member's answer to peers that were started to found this mesh and come when it runs already.

They call with purpose `found`, as they call each other (`peer/acquaintance.py`), and find a member whose card expects
nobody. Who is one of the founders by the record of epoch 0 (it crashed, or was away, while the others went on) gets a
join token with a founder's rights; who proved the bootstrap secret that this peer was started with, one like
`gossamer token create` makes; anybody else the words to ask for one. The token goes over the stream on which both have
proved themselves, admits one node, and is good for TOKEN_S.

The secret opens the mesh for SECRET_S after the founding and never beyond its own end: it was handed round to make a
mesh, and stays in unit files and shell histories when the mesh has long been made. A founder that comes later has its
key. That claim ends FOUNDER_S after the founding and with its first revocation, even when that has expired: the key
of a host that was given up years ago must not open the mesh to whoever finds it.

Invariant: who proved neither gets nothing but words, and tokens are made at most once in PAUSE_S.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gossip.events import Address
from peer.acquaintance import REFUSED, Introducer, UnacquaintedError
from peer.io.stream import FrameStream, StreamError
from peer.messages import Level, Note
from peer.node_notes import Complaints
from trust.authority import root_fingerprint
from trust.bootstrap import BootstrapSecret, Card
from trust.codec import Reader, pack
from trust.credential import CREDENTIAL_TTL_S_MAX, Credential
from trust.epoch import RECORD_BYTES_MAX, EpochRecord, decode_epoch
from trust.errors import BootstrapError, TokenError, TrustError, span
from trust.identity import NodeIdentity, format_id, spiffe_node
from trust.invitation import TOKEN_CHARS_MAX, Token, create_token, parse_token
from trust.revocation import RENEWAL_GRACE_S, RevocationSet
from trust.roots import Root

log = logging.getLogger("gossamer.founding")

TOKEN, GRANTED, LATER = b"token", b"t", b"l"
TOKEN_S: Final = 120.0
FOUNDER_S: Final = float(
    CREDENTIAL_TTL_S_MAX + RENEWAL_GRACE_S
)  # as long as its first credential can be renewed
SECRET_S: Final = 86_400.0  # a day in which whoever was late on the day of the founding still comes
PAUSE_S: Final = 0.2


class NotLetInError(Exception):
    """The mesh runs already and does not let this peer in; the message says what to do."""


async def ask(stream: FrameStream) -> tuple[Token, EpochRecord]:
    """At a member of a running mesh, to be let in: the token, and how the mesh was founded. Raises StreamError (later
    it may), NotLetInError, TrustError."""
    stream.write(TOKEN)
    answer = await stream.read()
    words = answer[1:400].decode(errors="replace")
    if answer[:1] == REFUSED:
        raise NotLetInError("".join(each if each.isprintable() else " " for each in words))
    if answer[:1] != GRANTED:
        raise StreamError(words if answer[:1] == LATER else "it ended the stream")
    reader = Reader(
        answer[1:], count=2, bytes_max=RECORD_BYTES_MAX + TOKEN_CHARS_MAX + 64, what="an admission",
        error=BootstrapError,
    )  # fmt: skip
    token = parse_token(reader.text(TOKEN_CHARS_MAX))
    record = decode_epoch(reader.blob(RECORD_BYTES_MAX))
    if not record.value.proven or root_fingerprint(record.group.public) != token.root_fingerprint:
        raise BootstrapError("the token and the epoch are of different meshes")
    return token, record


@dataclass(slots=True)
class Readmission:
    """See the module's theory. `certificate()` is the leaf that callers see (DER; b"" while there is none),
    `founding()` the record of epoch 0, if it is known here, `founded_at` (Unix s) when the root began to be valid."""

    identity: NodeIdentity
    secret: BootstrapSecret | None
    credential: Callable[[], Credential]
    root_public: Root
    revoked: RevocationSet
    address: Address
    certificate: Callable[[], bytes]
    founding: Callable[[], EpochRecord | None]
    founded_at: float
    now: Callable[[], float]
    _card: Card | None = None
    _last: float = float("-inf")
    _complaints: Complaints = field(default_factory=Complaints)

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Answer one caller (a handler of `peer/io/listen.py`)."""
        introducer = Introducer(self.identity, self._own_card, self.secret)
        try:
            card = await introducer.answer(stream, self.certificate())
        except UnacquaintedError as error:
            self._complain("founder_refused", {"reason": str(error)})
            return
        if await stream.read() != TOKEN:
            return
        record = self.founding()
        if record is None:
            answer = LATER + b"this member does not know yet how the mesh was founded"
        else:
            answer = self._judge(card, record)
        fields: dict[str, str | int | float] = {"name": card.name, "node": format_id(card.node)}
        if answer[:1] == GRANTED:
            log.warning("founder_let_in", extra={"fields": fields})  # at most one in PAUSE_S
        else:
            self._complain("founder_not_let_in", fields | {"reason": answer[1:].decode(errors="replace")})
        stream.write(answer)
        await stream.flush()

    def _complain(self, event: str, fields: dict[str, str | int | float]) -> None:
        """Callers may be anybody, so that what is told of them is told once a while."""
        now = self.now()
        note = Note(level=Level.WARNING, event=event, fields=fields)
        for each in (*self._complaints.due(now), *self._complaints.tell(now, None, note)):
            log.warning(each.event, extra={"fields": each.fields})

    def _judge(self, card: Card, record: EpochRecord) -> bytes:
        """The frame that answers."""
        credential = self.credential()
        subject = spiffe_node(credential.trust_domain, card.node)
        late = self.now() > self.founded_at + FOUNDER_S
        founder = card.public_key in record.value.keys and not late and not self.revoked.ever_covered(subject)
        if card.trust_domain != credential.trust_domain:
            return REFUSED + f"it is of trust domain {credential.trust_domain!r}".encode()
        try:
            self.revoked.check(subject)
            if not founder and (words := self._secret_is_none()):
                return REFUSED + words.encode()
            if self.now() < self._last + PAUSE_S:
                return LATER + b"others are being let in"
            self._last = self.now()
            token = create_token(
                self.identity, credential, root_public=self.root_public, seeds=[self.address],
                services=["*/*"], now=self.now(), entropy=secrets.token_bytes, ttl_s=TOKEN_S,
                invite=True, govern=founder and credential.govern,
            )  # fmt: skip
        except TokenError as error:  # this member's rights do not go so far; another one's may
            return LATER + f"this member lets nobody in: {error}".encode()[:400]
        except TrustError as error:
            return REFUSED + str(error).encode()[:400]
        return GRANTED + pack([token.text, record.encode()])

    def _secret_is_none(self) -> str:
        """Why the secret lets nobody in, and what does; "" if it does."""
        instead = "join it with a token (made by `gossamer token create` on a member)"
        if self.secret is None:
            return instead
        ends = self.founded_at + SECRET_S
        if self.secret.expires_at:
            ends = min(ends, self.secret.expires_at)
        late_s = self.now() - ends
        return f"the bootstrap secret let peers in until {span(late_s)} ago: {instead}" if late_s >= 0 else ""

    def _own_card(self) -> Card:
        if self._card is None:
            credential = self.credential()
            self._card = Card(
                public_key=self.identity.public_key, name=credential.name, host=self.address[0],
                port=self.address[1], trust_domain=credential.trust_domain, expect=0, threshold=0,
                started_at=int(self.now()),
            ).signed(self.identity)  # fmt: skip
        return self._card
