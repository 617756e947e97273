"""The log of what the root has signed: this peer's part in writing it, and what it reads there.

Every certificate goes into the log that the signers write (`peer/issuelog.py`, `peer/recording.py`). Whoever had one
signed shows it to a signer, by the purpose `seen`; who gave a share of one that nobody shows, and who meets one that
nobody has recorded, sees to it (`peer/awaiting.py`). An entry in this node's name that it never asked for is denied as
if it had been met (`peer/sightings.py`).

Invariant: nothing here can end the peer, and what fails is tried again.
"""

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from peer.api import ApiError
from peer.awaiting import FRESH_S, Awaiting, Certificate, Share
from peer.issuelog import Entry, IssueLog
from peer.recording import WRITTEN_S, Recording, spare
from trust.authority import load_certificate
from trust.credential import decode_credential
from trust.errors import SvidError, TrustError
from trust.identity import format_id
from trust.issuance import decode_svid_request
from trust.issued import issued_of, leaf_of, leaf_of_key
from trust.order import Draft, Order
from trust.roots import signer_of
from trust.svid import KeyedSvid, Svid

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.certify")

LOOK_S: Final = 1.0
VERIFIED_MAX: Final = 64  # entries of new pages, each look
AT_ONCE_MAX: Final = 8  # certificates shown or signed again, each look
SPARED_S: Final = 600.0
RETRY_S: Final = 5.0
LISTED_MAX: Final = 5000
LISTED_AT_ONCE: Final = 8


class Issuances:
    """See the module's docstring."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        member = daemon.membership
        node = daemon.identity.id
        self.log = IssueLog(daemon.journal, self._believed, member.trust_domain, node)
        self.recording = Recording()
        self.awaiting = Awaiting(node, daemon.rng)
        self._liars: set[bytes] = set()
        self._written_at = self._spared_at = float("-inf")

    # ------------------------------------------------------------------ what happens

    def signed(self, der: bytes) -> None:
        """This peer has had a certificate signed."""
        try:
            svid = self._daemon.bundle.read_peer(der)
        except SvidError as error:
            log.error(
                "issuance_unread", extra={"fields": {"reason": str(error)}}
            )  # its caller has it all the same
        else:
            self.awaiting.coordinated(svid, der, self._now())

    def met(self, svid: Svid, der: bytes) -> None:
        """A certificate is in use: this peer's own, or one it met."""
        self.awaiting.met(svid, der, self._now())

    def hold(self, certificates: Iterable[KeyedSvid]) -> None:
        """These are this peer's own now."""
        for each in certificates:
            der = ssl.PEM_cert_to_DER_cert(each.chain_pem.decode("ascii"))
            try:
                self.met(self._daemon.bundle.read_peer(der), der)
            except SvidError as error:
                log.error("issuance_unread", extra={"fields": {"reason": str(error)}})

    def shared(self, order: Order, draft: Draft, coordinator: bytes) -> None:
        """This node has given `coordinator` a share of the signature of a certificate."""
        request = decode_svid_request(order.request)
        node = decode_credential(request.credential).node
        leaf = leaf_of_key(node, request.spiffe_id, request.public_key_der)
        self.awaiting.shared(leaf, node, order, draft, coordinator, self._now())

    @property
    def records(self) -> bool:
        """Whether this node is one of those who write the log."""
        return self._daemon.outlook.signs

    def shown(self, svid: Svid, der: bytes, by: bytes) -> None:
        """Node `by` wants a certificate to be written down here. Raises SvidError."""
        now, member = self._now(), self._daemon.membership
        leaf = leaf_of(svid)
        if svid.not_after < now or leaf in self.recording or self.log.find(leaf) is not None:
            return
        self.recording.add(issued_of(svid, der, self._signer_of(der), member.trust_domain, by), now)

    def _believed(self) -> tuple[bytes, ...]:
        """The certificates (DER) of all roots that the mesh has had, newest first."""
        roots = self._daemon.membership.roots
        return tuple(roots.certificate(each) for each in reversed(roots.line))

    def _signer_of(self, der: bytes) -> bytes:
        """The certificate of the root that signed this one. Raises SvidError."""
        certificate = load_certificate(der, "a certificate")
        roots = self._daemon.membership.roots
        signed, signature = certificate.tbs_certificate_bytes, certificate.signature
        return roots.certificate(signer_of(roots, signed, signature))

    # ------------------------------------------------------------------ again and again

    async def run(self) -> None:
        """Look every second, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Do what is due."""
        now = self._now()
        self.log.catch_up()
        for entry in self.log.take_mine(VERIFIED_MAX):
            self._daemon.sightings.recorded(entry.der)
        self._tell_of_liars()
        shows = [self._show(each) for each in self.awaiting.to_show(self.log.find, now)[:AT_ONCE_MAX]]
        again = [
            self._sign_again(leaf, share)
            for leaf, share in self.awaiting.to_sign(self.log.find, now)[:AT_ONCE_MAX]
        ]
        await asyncio.gather(*shows, *again)
        if now - self._written_at >= RETRY_S:
            await self._write(now)

    async def _show(self, certificate: Certificate) -> None:
        """To a signer: to the same one as everybody in this minute, for one page makes fewer streams than several; and
        to others where that has not helped. Who is a signer itself needs no other."""
        daemon, svid = self._daemon, certificate.svid
        if self.records:
            self._take(svid, certificate.der, daemon.identity.id)
            return
        record, minute = daemon.custody.record, int(self._now() // WRITTEN_S)
        signers = [] if record is None else sorted(record.value.ids, key=lambda each: _rank(each, minute))
        live = [each for each in signers if (m := daemon.node.engine.member(each)) is not None and m.live]
        if live:
            await daemon.sightings.show(live[(certificate.tries - 1) % len(live)], certificate.der)

    async def _sign_again(self, leaf: bytes, share: Share) -> None:
        if leaf in self.recording:
            return  # somebody has shown it, and it will be written
        order, fields = (
            share.order,
            {"node": format_id(share.node), "coordinator": format_id(share.coordinator)},
        )
        if self._now() - order.issued_at > FRESH_S:
            self.awaiting.give_up(leaf)
            log.error("issuance_unrecorded", extra={"fields": fields})
            return
        try:
            der = await self._daemon.signing.sign(order, share.draft)
            svid = self._daemon.bundle.read_peer(der)
        except TrustError as error:
            log.debug("issuance_unsigned", extra={"fields": fields | {"reason": str(error)}})
            return
        log.warning("issuance_withheld", extra={"fields": fields | {"identity": svid.spiffe}})
        self._take(svid, der, share.coordinator)

    def _take(self, svid: Svid, der: bytes, by: bytes) -> None:
        try:
            self.shown(svid, der, by)
        except SvidError as error:
            log.warning("issuance_unfit", extra={"fields": {"reason": str(error)}})

    async def _write(self, now: float) -> None:
        daemon = self._daemon
        places = self.log.places(daemon.identity.id)
        group = daemon.custody.group
        pages = self.recording.pages(now, 0 if group is None else group.epoch, places)
        drafts = [draft for draft, _ in pages.values()]
        if now - self._spared_at >= SPARED_S:
            self._spared_at = now
            drafts += [draft for draft in spare(places, now) if draft.key not in pages]
        if not drafts:
            return
        try:
            await daemon.write(drafts)
        except ApiError as error:
            self._written_at = now
            log.warning("issuances_unwritten", extra={"fields": {"reason": str(error)}})
        else:
            self.log.catch_up()  # first, so that nobody's second showing finds them in neither
            for _, leafs in pages.values():
                self.recording.written(leafs)

    # ------------------------------------------------------------------ for people

    def unrecorded(self) -> list[Certificate]:
        """Certificates in use that ought to be in the log and are not. Nothing is said where nobody writes one yet: the
        signers are of an older version."""
        return self.awaiting.unrecorded(self.log.find, self._now()) if len(self.log) else []

    async def listing(self) -> list[tuple[Entry, Svid]]:
        """What is recorded of certificates that are valid, newest first, LISTED_MAX at most."""
        rows: list[tuple[Entry, Svid]] = []
        for number, entry in enumerate(self.log.entries(self._now())):
            if number % LISTED_AT_ONCE == 0:
                await asyncio.sleep(0)  # each may be a signature to be verified
            if entry is None:
                continue
            try:
                rows.append((entry, self._daemon.bundle.read_peer(entry.der)))
            except SvidError:
                continue  # signed by the root, and not what a peer would take for a certificate
            if len(rows) == LISTED_MAX:
                break
        return rows

    def _tell_of_liars(self) -> None:
        liars = self.log.liars
        for writer in liars - self._liars:
            log.warning("issuance_false", extra={"fields": {"writer": format_id(writer)}})
        self._liars = liars

    def _now(self) -> float:
        return self._daemon.clock.now()


def _rank(signer: bytes, minute: int) -> bytes:
    return hashlib.sha256(signer + minute.to_bytes(8, "big")).digest()
