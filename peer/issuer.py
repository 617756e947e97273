"""The answering side of identity: a signer judges requests to join, to renew, and for certificates.

    caller -> "issue"                         purpose
    caller -> b"c" <request to join or renew> answered by b"c" <credential>
    caller -> b"v" <certificate request>      answered by b"v" <certificate, DER>
    caller -> b"r" <request to revoke>        answered by b"r" <revocation>
    either refused by b"e" <reason, UTF-8>    the stream stays open
    or put off by b"l" <reason, UTF-8>        this signer cannot now; another one, or later

Every request carries its own proof (`trust/admission.py`, `trust/issuance.py`, `trust/revoking.py`), so a caller needs
no certificate here: a host that was off for a day has none that is still valid. A peer that is no signer answers with
where the signers are (its greeting).

Invariant: a token's use is on disk before the credential leaves the host.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from peer.io.store import StoreError
from peer.io.stream import FrameStream
from trust.admission import Spend, TokenLedger, decode_request, issue_credential
from trust.authority import Authority
from trust.credential import Credential
from trust.errors import TrustError
from trust.identity import ID_BYTES
from trust.issuance import SVID_TTL_S, SvidRequest, decode_svid_request, issue_svid
from trust.revocation import Revocation, RevocationSet
from trust.revoking import RevocationRequest, decode_revocation_request, issue_revocation

log = logging.getLogger("gossamer.issuer")

CREDENTIAL, SVID, REVOCATION, REFUSED, LATER = b"c", b"v", b"r", b"e", b"l"
REQUESTS_MAX: Final = 64  # on one stream


@dataclass(slots=True)
class Issuer:
    """What this host can issue. `authority` is None on a peer that is no signer.

    `spent(spend)` makes a token's use durable and returns when it is. Raises StoreError.
    """

    authority: Authority | None
    root_certificate: bytes
    trust_domain: str
    revoked: RevocationSet
    ledger: TokenLedger
    now: Callable[[], float]
    spent: Callable[[Spend], Awaitable[None]]
    node: bytes = bytes(ID_BYTES)  # this peer's own
    svid_ttl_s: int = SVID_TTL_S
    _unsaved: list[Spend] = field(default_factory=list)  # counted by the ledger, not known to be on disk

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
                    return SVID + self.svid(decode_svid_request(body))
                case b"r":
                    return REVOCATION + self.revocation(decode_revocation_request(body)).encode()
                case _:
                    return REFUSED + b"this request is not known here"
        except TrustError as error:
            log.warning("issue_refused", extra={"fields": {"reason": str(error)}})
            return REFUSED + str(error).encode()[:1000]
        except StoreError as error:
            log.error("issue_failed", extra={"fields": {"reason": str(error)}})
            return LATER + b"the signer cannot write to its disk: try again later"

    async def credential(self, body: bytes) -> Credential:
        """Judge an encoded request to join or renew. Raises TrustError or StoreError.

        The ledger counts a use at once, so a host whose first request met a full disk, or that asks twice at the
        same time, is admitted for free the second time: what is not on disk by then is waited for again.
        """
        issued = issue_credential(
            self._signer(),
            decode_request(body),
            trust_domain=self.trust_domain,
            now=int(self.now()),
            entropy=secrets.token_bytes,
            ledger=self.ledger,
            revoked=self.revoked,
        )
        if issued.spend is not None:
            self._unsaved.append(issued.spend)
        for spend in tuple(self._unsaved):
            await self.spent(spend)
            if spend in self._unsaved:
                self._unsaved.remove(spend)
        fields = {"name": issued.credential.name, "node": issued.credential.spiffe}
        log.info("credential_issued", extra={"fields": fields})
        return issued.credential

    def svid(self, request: SvidRequest) -> bytes:
        """Judge a certificate request; the certificate (DER). Raises TrustError."""
        return issue_svid(
            self._signer(),
            self.root_certificate,
            request,
            trust_domain=self.trust_domain,
            now=int(self.now()),
            entropy=secrets.token_bytes,
            revoked=self.revoked,
            ttl_s=self.svid_ttl_s,
        )

    def revocation(self, request: RevocationRequest) -> Revocation:
        """Judge a request to revoke. Raises TrustError."""
        revocation = issue_revocation(
            self._signer(),
            request,
            trust_domain=self.trust_domain,
            now=int(self.now()),
            revoked=self.revoked,
        )
        fields = {"subject": revocation.subject, "reason": revocation.reason}
        log.warning("revocation_signed", extra={"fields": fields})
        return revocation

    def _signer(self) -> Authority:
        if self.authority is None or not self.authority.can_sign:
            raise TrustError("this peer is no signer")
        self.revoked.check_signer(self.trust_domain, self.node)
        return self.authority
