"""The answering side of identity: every member that knows who signs takes requests to join, to renew, for certificates.

    caller -> "issue"                         purpose
    caller -> b"c" <request to join or renew> answered by b"c" <credential>
    caller -> b"v" <certificate request>      answered by b"v" <certificate, DER>
    caller -> b"r" <request to revoke>        answered by b"r" <revocation>
    either refused by b"e" <reason, UTF-8>    the stream stays open
    or put off by b"l" <reason, UTF-8>        not now; another member, or later

Every request carries its own proof (`trust/admission.py`, `trust/issuance.py`, `trust/revoking.py`), so a caller needs
no certificate here: a host that was off for a day has none that is still valid. This peer turns it into an order
(`trust/order.py`) and has that signed (`peer/signing.py`); the signers judge it again, each for itself.

Invariant: nothing leaves here that does not verify under the mesh root.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from peer.io.stream import FrameStream
from peer.messages import Level, Note
from peer.node_notes import Complaints
from peer.signing import LaterError
from trust.credential import CREDENTIAL_TTL_S, Credential, decode_credential
from trust.errors import TrustError
from trust.issuance import SVID_TTL_S, SvidRequest
from trust.order import ENTROPY_BYTES, Draft, Kind, Order, Rules, derive
from trust.revocation import Revocation, decode_revocation
from trust.revoking import RevocationRequest

log = logging.getLogger("gossamer.issuer")

CREDENTIAL, SVID, REVOCATION, REFUSED, LATER = b"c", b"v", b"r", b"e", b"l"
REQUESTS_MAX: Final = 64  # on one stream


class Signatures(Protocol):
    """What gets orders signed (`peer/signing.py`)."""

    @property
    def ready(self) -> bool: ...

    async def sign(self, order: Order, draft: Draft) -> bytes: ...


@dataclass(slots=True)
class Issuer:
    """What this peer can have issued. `now` is Unix time."""

    signing: Signatures
    rules: Rules
    now: Callable[[], float]
    svid_ttl_s: int = SVID_TTL_S
    root: Callable[[], bytes | None] = lambda: (
        None
    )  # the one that signs now, if it may be another than the rules'
    signed: Callable[[bytes], None] = lambda _der: None  # told of each certificate
    _complaints: Complaints = field(default_factory=Complaints)

    @property
    def ready(self) -> bool:
        """Whether asking here is worth the while: the signers are known."""
        return self.signing.ready

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Answer requests until the caller goes (a handler of `peer/io/listen.py`)."""
        for _ in range(REQUESTS_MAX):
            frame = await stream.read()
            if not frame:
                return
            stream.write(await self._answer(frame))
            await stream.flush()

    async def _answer(self, frame: bytes) -> bytes:
        tag, body = frame[:1], frame[1:]
        try:
            match tag:
                case b"c":
                    return CREDENTIAL + (await self.credential(body)).encode()
                case b"v":
                    return SVID + await self.svid(body)
                case b"r":
                    return REVOCATION + (await self.revocation(body)).encode()
                case _:
                    return REFUSED + b"this request is not known here"
        except LaterError as error:
            return LATER + str(error).encode()[:1000]
        except TrustError as error:
            self._complain(str(error))
            return REFUSED + str(error).encode()[:1000]

    async def credential(self, request: bytes) -> Credential:
        """For an encoded request to join or renew. Raises TrustError, LaterError among them."""
        credential = decode_credential(await self._issue(Kind.CREDENTIAL, request, CREDENTIAL_TTL_S))
        fields = {"name": credential.name, "node": credential.spiffe}
        log.info("credential_issued", extra={"fields": fields})
        return credential

    async def svid(self, request: bytes | SvidRequest) -> bytes:
        """The certificate (DER) for a request. Raises TrustError, LaterError among them."""
        encoded = request.encode() if isinstance(request, SvidRequest) else request
        der = await self._issue(Kind.SVID, encoded, self.svid_ttl_s)
        self.signed(der)
        return der

    async def revocation(self, request: bytes | RevocationRequest) -> Revocation:
        """What a request to revoke comes to. Raises TrustError, LaterError among them."""
        encoded = request.encode() if isinstance(request, RevocationRequest) else request
        revocation = decode_revocation(await self._issue(Kind.REVOCATION, encoded, 0))
        fields = {"subject": revocation.subject, "reason": revocation.reason}
        log.warning("revocation_signed", extra={"fields": fields})
        return revocation

    async def _issue(self, kind: Kind, request: bytes, ttl_s: int) -> bytes:
        order = Order(
            kind=kind,
            request=request,
            issued_at=int(self.now()),
            entropy=secrets.token_bytes(ENTROPY_BYTES),
            ttl_s=ttl_s,
        )
        root = self.root()
        rules = self.rules if root is None else self.rules.under(root)
        return await self.signing.sign(order, derive(order, rules))

    def _complain(self, reason: str) -> None:
        """Callers may be anybody, so that what is told of them is told once a while."""
        note = Note(level=Level.WARNING, event="issue_refused", fields={"reason": reason})
        now = self.now()
        for each in (*self._complaints.due(now), *self._complaints.tell(now, None, note)):
            log.warning(each.event, extra={"fields": each.fields})
