"""Certificates met in handshakes: shown to the nodes they are made out to, which deny what they never asked for.

Every member this peer has a stream with showed a certificate, and so did every caller and server its data plane shook
hands with (`proxy/embedded/met.py`). Each one is sent, once, to the node it is made out to, at the address by which the
mesh knows that node (purpose `seen`). A node that is shown one it never asked for publishes a denial
(`trust/transparency.py`), which every peer's metrics and `check` tell from then on. Whoever uses a misissued
certificate towards one honest member, or a service on its host, is found out by it.

Invariant: bounded in what is remembered, waits, and is taken from one stream; nothing here can end the peer.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from crdt.record import Record
from peer.api import ApiError
from peer.asked import AskedKeys
from peer.io.stream import SEEN, FrameStream, StreamError, connect, greet
from peer.messages import Draft
from peer.records import DENIAL
from trust.errors import SvidError
from trust.identity import format_id
from trust.svid import Svid
from trust.tls import PeerObject
from trust.transparency import DENIAL_BYTES_MAX, DENIALS_PER_NODE_MAX, denial_key, read_denial

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.certify")

MET_MAX: Final = 8192  # certificates remembered as shown
WAITING_MAX: Final = 256  # to be shown; what does not fit is shown by the next one who meets it
TAKEN_MAX: Final = 16  # from one stream
TELL_S_MAX: Final = 3.0
RETRY_S: Final = 5.0
DENIED_KEPT_S: Final = 7 * 86_400  # after the certificate's end


class Sightings:
    """See the module's docstring. `denied` are certificates in this node's name that it never asked for."""

    def __init__(self, daemon: "Daemon", asked: AskedKeys) -> None:
        self._daemon = daemon
        self._asked = asked
        self._met: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: deque[tuple[bytes, bytes]] = deque()  # (node, certificate)
        self._wake = asyncio.Event()
        self.denied: dict[str, bytes] = {}  # certificate by the key of its denial
        self.untold = 0  # found no place among those that wait
        self._read: dict[tuple[bytes, str, int], Svid | None] = {}

    # ------------------------------------------------------------------ meeting

    def met(self, stream: FrameStream) -> None:
        """A stream's handshake is done."""
        connection = stream.ssl_object
        assert isinstance(connection, PeerObject)
        if connection.peer is None:
            return
        if self._is_new(connection.peer_der):
            self._take(connection.peer, connection.peer_der)

    def met_by_plane(self, certificates: Iterable[bytes]) -> None:
        """The data plane's handshakes, where each of these (DER) passed every check."""
        for der in certificates:
            if not self._is_new(der):
                continue
            try:
                svid = self._daemon.bundle.read_peer(der)
            except SvidError as error:
                log.warning("sighting_unread", extra={"fields": {"reason": str(error)}})
            else:
                self._take(svid, der)

    def _is_new(self, der: bytes) -> bool:
        digest = hashlib.sha256(der).digest()
        if digest in self._met:
            return False
        self._met[digest] = None
        if len(self._met) > MET_MAX:
            self._met.popitem(last=False)
        return True

    def _take(self, svid: Svid, der: bytes) -> None:
        """One that nobody here has met before."""
        self._daemon.issuances.met(svid, der)
        if svid.node == self._daemon.identity.id:
            self._judge(svid, der)
        elif len(self._waiting) >= WAITING_MAX:
            self.untold += 1
        else:
            self._waiting.append((svid.node, der))
            self._wake.set()

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Look at the certificates a member has met, and on a signer at those it has had signed (a handler of
        `peer/io/listen.py`)."""
        if not isinstance(stream.ssl_object, PeerObject) or stream.ssl_object.peer is None:
            raise StreamError("certificates are shown by members")
        daemon, by = self._daemon, stream.ssl_object.peer.node
        for _ in range(TAKEN_MAX):
            der = await stream.read()
            if not der:
                return
            try:
                svid = daemon.bundle.read_peer(der[: DENIAL_BYTES_MAX + 1])
                if svid.node == daemon.identity.id:
                    self._judge(svid, der)
                if daemon.issuances.records:
                    daemon.issuances.shown(svid, der, by)
                elif svid.node != daemon.identity.id:
                    raise SvidError(f"it is made out to {format_id(svid.node)}")
            except SvidError as error:
                raise StreamError(f"shown what is no certificate of this node: {error}") from error

    def recorded(self, der: bytes) -> None:
        """A certificate that the log has in this node's name, which the root signed."""
        try:
            svid = self._daemon.bundle.read_peer(der)
        except SvidError as error:
            log.warning("sighting_unread", extra={"fields": {"reason": str(error)}})
        else:
            self._judge(svid, der)

    def _judge(self, svid: Svid, der: bytes) -> None:
        """One that is made out to this node."""
        key = denial_key(svid)
        if key in self.denied or self._asked.includes(svid) or len(self.denied) >= DENIALS_PER_NODE_MAX:
            return
        self.denied[key] = der
        self._wake.set()
        fields = {"identity": svid.spiffe, "serial": key, "ends": svid.not_after}
        log.critical("certificate_misissued", extra={"fields": fields})

    # ------------------------------------------------------------------ telling

    async def run(self) -> None:
        """Show what was met, and publish what is denied; for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self.show(*self._waiting.popleft())
            try:
                await self._publish()
            except ApiError as error:
                log.error("denial_unpublished", extra={"fields": {"reason": str(error)}})
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def show(self, node: bytes, der: bytes) -> None:
        """Show a certificate to a member that lives. Whether it was looked at is not told."""
        member = self._daemon.node.engine.member(node)
        if member is None or not member.live:
            return
        try:
            async with asyncio.timeout(TELL_S_MAX):
                stream = await connect(member.address, self._daemon.channels.context_for(node))
                try:
                    await greet(stream, SEEN)
                    stream.write(der)
                    await stream.flush()
                finally:
                    await stream.closed()
        except (StreamError, TimeoutError) as error:
            fields = {"node": format_id(node), "reason": str(error) or "took too long"}
            log.debug("sighting_untold", extra={"fields": fields})

    async def _publish(self) -> None:
        daemon = self._daemon
        mine = {r.key for r in daemon.journal.records(DENIAL) if r.writer == daemon.identity.id and r.payload}
        new = [
            Draft(kind=DENIAL, key=key, payload=der) for key, der in self.denied.items() if key not in mine
        ]
        if new:
            await daemon.write(new)

    # ------------------------------------------------------------------ what the mesh says

    def standing(self) -> Iterator[tuple[bytes, Svid]]:
        """(who denies, what) of all denials in force, at most DENIALS_PER_NODE_MAX of one node."""
        daemon, now = self._daemon, self._daemon.clock.now()
        counts: dict[bytes, int] = {}
        read: dict[tuple[bytes, str, int], Svid | None] = {}
        for record in sorted(daemon.journal.records(DENIAL), key=lambda r: (r.writer, r.key)):
            if not record.payload:
                continue
            key = (record.writer, record.key, record.seq)
            svid = read[key] = self._read[key] if key in self._read else self._decode(record)
            if svid is None or now > svid.not_after + DENIED_KEPT_S:
                continue
            counts[record.writer] = counts.get(record.writer, 0) + 1
            if counts[record.writer] <= DENIALS_PER_NODE_MAX:
                yield record.writer, svid
        self._read = read

    def over(self, now: float) -> list[str]:
        """Keys of this node's own denials that say nothing any more."""
        daemon = self._daemon
        mine = [r for r in daemon.journal.records(DENIAL) if r.writer == daemon.identity.id and r.payload]
        ended = ((r.key, self._decode(r)) for r in mine)
        return [key for key, svid in ended if svid is None or now > svid.not_after + DENIED_KEPT_S]

    def _decode(self, record: Record) -> Svid | None:
        registry = self._daemon.registry
        if registry.objection(record):
            return None
        try:
            return read_denial(
                record.payload,
                root_public=registry.root,
                trust_domain=registry.trust_domain,
                writer=record.writer,
            )
        except SvidError:
            return None  # `objection` has said so
