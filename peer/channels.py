"""The streams of a peer: one TLS identity on both sides, and who may ask for what.

Invariant: a caller without a certificate reaches the issuer and nothing else; everybody else is a node of the mesh.
"""

import logging
import socket
import ssl
from collections.abc import Callable

from peer.enforcement import Enforcement
from peer.io.exchange import Exchanges
from peer.io.listen import Handler, StreamServer
from peer.io.stream import ALPN, ASK, ISSUE, SYNC, FrameStream, Hello
from peer.issuer import Issuer
from peer.messages import Input
from trust.bundle import ANY_NODE, TrustBundle
from trust.errors import RevokedError, SvidError
from trust.identity import NodeSpiffe, spiffe_node
from trust.revocation import RevocationSet
from trust.svid import KeyedSvid, Svid
from trust.tls import Caller, PeerObject, server_context

log = logging.getLogger("gossamer.stream")


class Channels:
    """Listening and calling. `hello` is what this peer says first; `feed` takes what the streams bring, `met` is
    told of those whose handshake is done."""

    def __init__(
        self,
        *,
        bundle: TrustBundle,
        revoked: RevocationSet,
        hello: Callable[[], Hello],
        feed: Callable[[Input], None],
        issuer: Issuer,
        enforcement: Enforcement,
        met: Callable[[FrameStream], None] = lambda _stream: None,
    ) -> None:
        self._bundle = bundle
        self._revoked = revoked
        self._server_tls = server_context(
            bundle=bundle,
            client_certificate="optional",
            check=revoked.check_svid,
            alpn=(ALPN,),
            on_refused=self._on_refused,
        )
        self._caller = Caller(
            certificate=None,
            bundle=bundle,
            check=revoked.check_svid,
            alpn=(ALPN,),
            on_refused=self._on_refused,
        )
        self._met = met
        self._shown: KeyedSvid | None = None
        self._presented: KeyedSvid | None = None
        self.mistrusted = 0  # handshakes that failed over a certificate, here or at the other side
        self._server = StreamServer(self._server_tls, hello, self._member_of)
        self.exchanges = Exchanges(feed, self.context_for, self._member_of)
        self._server.handle(SYNC, self.exchanges.accepted)
        self._server.handle(ISSUE, issuer.serve)
        self._server.handle(ASK, enforcement.serve)

    def handle(self, purpose: bytes, handler: Handler) -> None:
        """What to do with streams of one more purpose."""
        self._server.handle(purpose, handler)

    def _on_refused(self, reason: str) -> None:
        self.mistrusted += 1
        _refused(reason)

    def _member_of(self, stream: FrameStream) -> bytes | None:
        """Asked once the handshake is done."""
        self._met(stream)
        return node_of(stream)

    def on_broken(self, told: Callable[[], None]) -> None:
        """Call `told` when no streams are accepted any more."""
        self._server.on_broken = told

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def refused(self) -> int:
        """Connections that found no place."""
        return self._server.refused

    async def listen(self, host: str, port: int, held: socket.socket | None = None) -> None:
        """Raises OSError. Until there is a certificate to show, callers are refused."""
        await self._server.start(host, port, held)

    def copy_socket(self) -> socket.socket:
        """The listening socket once more, for a process that takes over."""
        return self._server.copy_socket()

    def present_nothing(self, certificate: KeyedSvid) -> None:
        """Until there is a certificate of the mesh: show one that says nothing, to those who prove themselves by other
        means (`peer/kin.py`). Nobody else goes on when it sees that."""
        self._shown = certificate
        self._server_tls.update(identities={}, default=certificate)

    def present(self, svid: KeyedSvid) -> None:
        """Show this certificate from now on; streams that are open go on."""
        self._shown = self._presented = svid
        self._server_tls.update(identities={}, default=svid)
        self._caller.update(certificate=svid)

    def trust(self, bundle: TrustBundle) -> None:
        """Believe certificates under these roots from now on; streams that are open go on."""
        self._bundle = bundle
        self._server_tls.update(identities={}, default=self._shown, bundle=bundle)
        self._caller.update(certificate=self._presented, bundle=bundle)

    def context_for(self, node: bytes | None) -> ssl.SSLContext:
        """For a call to that node; None: to any node of the mesh."""
        if node is None:
            return self._caller.expecting(ANY_NODE)
        return self._caller.expecting(spiffe_node(self._bundle.trust_domain, node))

    def cut(self, node: bytes) -> None:
        """End what a node that is no member any more holds open here, and what this peer opened to it."""
        self._server.cut(node)
        self.exchanges.cut(node)

    def cut_revoked(self) -> None:
        """End all streams with whoever showed a certificate that is revoked now."""
        self._server.cut_if(self.is_revoked)
        self.exchanges.cut_if(self.is_revoked)

    def cut_mistrusted(self) -> None:
        """End all streams with whoever showed a certificate of a root that counts no more."""
        self._server.cut_if(self.is_mistrusted)
        self.exchanges.cut_if(self.is_mistrusted)

    def is_mistrusted(self, stream: FrameStream) -> bool:
        """Whether the other end showed a certificate that would be refused now because of its root."""
        connection = stream.ssl_object
        assert isinstance(connection, PeerObject)
        try:
            if connection.peer is not None:
                self._bundle.read_peer(connection.peer_der)
        except SvidError:
            return True
        return False

    def is_revoked(self, stream: FrameStream) -> bool:
        """Whether the other end showed a certificate that is revoked now."""
        peer = _svid_of(stream)
        try:
            if peer is not None:
                self._revoked.check_svid(peer)
        except RevokedError:
            return True
        return False

    async def close(self) -> None:
        await self.exchanges.shut()
        await self._server.close()


def node_of(stream: FrameStream) -> bytes | None:
    """The node at the other end, as its certificate says; None if it showed none or is no node."""
    peer = _svid_of(stream)
    if peer is None or not isinstance(peer.id, NodeSpiffe):
        return None
    return peer.id.node


def _svid_of(stream: FrameStream) -> Svid | None:
    connection = stream.ssl_object
    assert isinstance(connection, PeerObject)
    return connection.peer


def _refused(reason: str) -> None:
    log.info("handshake_refused", extra={"fields": {"reason": reason}})
