"""TLS 1.3 between members: contexts for asyncio and uvloop that judge SPIFFE IDs inside the handshake.

OpenSSL validates the path, the dates and the signature of the handshake. What it cannot know, `PeerObject` adds before
`do_handshake` returns: the SVID rules (`trust/svid.py`), the identity expected, and a `check` for what has been
revoked. No application byte is read or written before all of it held. Host names are never compared: names find a
service, identities prove it.

Event loops insist on an `ssl.SSLContext`, ask it for one object per connection (`wrap_bio`) and for nothing else.
So the contexts handed to them are shells: each connection is made from whatever real context is current. Replacing
that one is a certificate rotation; it touches no listener and no connection. A shell that is used in any other way
has neither certificate nor anchor, so it fails closed.

There are no session tickets, for a resumed session would outlive a revocation, and private keys reach OpenSSL
through anonymous memory (memfd), for it can load them from files only.

The side that is refused sees its connection closed, not why (in TLS 1.3 a client is done before the server has judged
it, and event loops discard the alert of a failed handshake); the side that refuses knows, and says so in `on_refused`.

Invariant: `PeerObject.peer` is set only for a peer that passed every check.
"""

import hashlib
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, Protocol, TypeAlias

from trust.bundle import ANY_MEMBER, Expectation, TrustBundle
from trust.errors import SvidError, TrustError
from trust.svid import Svid, verify_seed

CONTEXTS_CACHED_MAX: Final = 1024  # client shells per caller, about 13 KiB each

_APPLICATION_VERIFICATION: Final = 50  # X509_V_ERR_APPLICATION_VERIFICATION

ClientCertificate: TypeAlias = Literal["required", "optional"]
Check: TypeAlias = Callable[[Svid], None]  # raises TrustError, whose words go into the handshake's error
OnRefused: TypeAlias = Callable[[str], None]


class Presented(Protocol):
    """A certificate with its key, as one presents it (`trust.svid.KeyedSvid`, `proxy.snapshot.Certificate`)."""

    @property
    def identity(self) -> str: ...
    @property
    def chain_pem(self) -> bytes: ...
    @property
    def key_pem(self) -> bytes: ...


# ------------------------------------------------------------------ one connection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guard:
    """What a connection is judged by. Connections keep the guard they began with."""

    bundle: TrustBundle | None  # None: a joining client, which judges by `verify_introduction`
    expected: str | Expectation
    check: Check | None
    on_refused: OnRefused | None
    by_sni: Mapping[str, ssl.SSLContext]
    has_default: bool

    def judge(self, der: bytes) -> Svid | None:
        """Who the peer is. Raises TrustError."""
        if self.bundle is None:
            return None
        svid = self.bundle.read_peer(der)
        expected = self.expected
        if isinstance(expected, str):
            if svid.spiffe != expected:
                raise SvidError(f"the peer is {svid.spiffe}, expected {expected}")
        elif not expected.matches(svid):
            raise SvidError(f"the peer is {svid.spiffe}, expected {expected.description}")
        if self.check is not None:
            self.check(svid)
        return svid


class PeerObject(ssl.SSLObject):
    """One TLS connection, as `transport.get_extra_info("ssl_object")` returns it."""

    _guard: _Guard
    _judged: bool = False
    _unserved: str = ""  # why no identity could be presented
    # None: the client showed no certificate (servers), or this side has no anchors yet (joining clients).
    peer: Svid | None = None
    peer_der: bytes = b""
    sni: str = ""  # servers: the name asked for, in lower case

    def do_handshake(self) -> None:
        """One step of the handshake. Raises ssl.SSLCertVerificationError, naming who was found and who expected."""
        try:
            super().do_handshake()
            if not self._judged:
                self._judge()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self._guard.on_refused is not None:
                self._guard.on_refused(self._unserved or str(error))
            raise

    def _judge(self) -> None:
        self.peer_der = self.getpeercert(binary_form=True) or b""
        # Without a certificate OpenSSL lets pass only whom `client_certificate="optional"` admits.
        if self.peer_der:
            try:
                self.peer = self._guard.judge(self.peer_der)
            except TrustError as error:
                raise _refusal(error) from error
        self._judged = True


def _refusal(error: TrustError) -> ssl.SSLCertVerificationError:
    refusal = ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, f"certificate refused: {error}")
    refusal.verify_code = _APPLICATION_VERIFICATION
    refusal.verify_message = str(error)
    return refusal


class _Shell(ssl.SSLContext):
    """An `ssl.SSLContext` in name: `wrap_bio` makes connections from the real context that is current."""

    def __new__(cls, *_args: object, **_kwargs: object) -> "_Shell":
        # Client protocol on both sides: unlike the server's it starts out demanding a certificate and a host name.
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def _current(self) -> tuple[ssl.SSLContext, _Guard]:
        raise NotImplementedError

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> PeerObject:
        """One connection from the current real context. Sessions are never resumed."""
        assert session is None, "sessions are never resumed: one would outlive a revocation"
        context, guard = self._current()
        connection = context.wrap_bio(
            incoming, outgoing, server_side=server_side, server_hostname=server_hostname
        )
        assert isinstance(connection, PeerObject)
        connection._guard = guard
        return connection

    def wrap_socket(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refused: blocking sockets would bypass the checks, which live in `PeerObject`."""
        raise NotImplementedError("mesh contexts serve event loops (wrap_bio), not blocking sockets")


# ------------------------------------------------------------------ servers


class ServerContext(_Shell):
    """The server side of a listener: identities by SNI, replaceable while it listens (`update`)."""

    def __init__(
        self, *, bundle: TrustBundle, client_certificate: ClientCertificate, expected: str | Expectation,
        check: Check | None, alpn: Sequence[str], on_refused: OnRefused | None,
    ) -> None:  # fmt: skip
        self._bundle = bundle
        self._client_certificate = client_certificate
        self._expected = expected
        self._check = check
        self._alpn = tuple(alpn)
        self._on_refused = on_refused
        self._serving: tuple[ssl.SSLContext, _Guard] | None = None
        self._built: dict[tuple[bytes, bytes], ssl.SSLContext] = {}

    def update(
        self,
        *,
        identities: Mapping[str, Presented],
        default: Presented | None,
        bundle: TrustBundle | None = None,
    ) -> None:
        """From now on present `identities` by SNI, and `default` to clients that name nothing else (None: those
        are refused). All or nothing: raises SvidError and serves what it served. Live connections do not notice."""
        built = self._built if bundle is None or bundle is self._bundle else {}
        bundle = bundle or self._bundle
        fresh: dict[tuple[bytes, bytes], ssl.SSLContext] = {}

        def real(certificate: Presented) -> ssl.SSLContext:
            key = (certificate.chain_pem, hashlib.sha256(certificate.key_pem).digest())
            if key not in fresh:
                fresh[key] = built.get(key) or self._build(certificate, bundle)
            return fresh[key]

        by_sni = {name.lower(): real(certificate) for name, certificate in identities.items()}
        # The entrance: every connection starts here, and `_select_identity` moves it on to the identity it names.
        entrance = self._build(default, bundle)
        entrance.sni_callback = _select_identity
        guard = _Guard(
            bundle=bundle,
            expected=self._expected,
            check=self._check,
            on_refused=self._on_refused,
            by_sni=by_sni,
            has_default=default is not None,
        )
        self._built, self._bundle, self._serving = fresh, bundle, (entrance, guard)

    def _build(self, certificate: Presented | None, bundle: TrustBundle) -> ssl.SSLContext:
        context = _real_context(ssl.PROTOCOL_TLS_SERVER, certificate, bundle, self._alpn)
        optional = self._client_certificate == "optional"
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        context.num_tickets = 0  # no session tickets, see above
        return context

    def _current(self) -> tuple[ssl.SSLContext, _Guard]:
        assert self._serving is not None, "made by server_context, which updates it"
        return self._serving

    def __repr__(self) -> str:
        names = len(self._serving[1].by_sni) if self._serving is not None else 0
        return f"ServerContext({self._bundle.trust_domain}, {names} names, client {self._client_certificate})"


def server_context(
    *, bundle: TrustBundle, identities: Mapping[str, Presented] | None = None, default: Presented | None = None,
    client_certificate: ClientCertificate = "required", expected: str | Expectation = ANY_MEMBER,
    check: Check | None = None, alpn: Sequence[str] = (), on_refused: OnRefused | None = None,
) -> ServerContext:  # fmt: skip
    """A context for `create_server(ssl=…)` and `start_tls(server_side=True)`. Raises SvidError."""
    context = ServerContext(
        bundle=bundle,
        client_certificate=client_certificate,
        expected=expected,
        check=check,
        alpn=alpn,
        on_refused=on_refused,
    )
    context.update(identities=identities or {}, default=default)
    return context


def _select_identity(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
    assert isinstance(connection, PeerObject)
    guard = connection._guard
    connection.sni = (name or "").lower()
    chosen = guard.by_sni.get(connection.sni)
    if chosen is not None:
        connection.context = chosen
        return None
    if guard.has_default:
        return None
    connection._unserved = f"nothing here is called {connection.sni!r}"
    return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


# ------------------------------------------------------------------ clients


class Caller:
    """One identity's outgoing TLS: a certificate, replaceable at any time, and a shell for each peer it expects.

    A shell knows what it presents and not the caller, so that contexts, which are large, end with their last user.
    """

    __slots__ = ("_alpn", "_presenting", "_shells")

    def __init__(
        self, *, certificate: Presented | None, bundle: TrustBundle, check: Check | None = None,
        alpn: Sequence[str] = (), on_refused: OnRefused | None = None,
    ) -> None:  # fmt: skip
        self._alpn = tuple(alpn)
        self._shells: OrderedDict[str, _ClientShell] = OrderedDict()
        real, identity = self._built(certificate, bundle)
        self._presenting = _Presenting(
            real=real, identity=identity, bundle=bundle, check=check, on_refused=on_refused
        )

    @property
    def identity(self) -> str:
        """Whose certificate is presented; "" for none."""
        return self._presenting.identity

    def update(self, *, certificate: Presented | None, bundle: TrustBundle | None = None) -> None:
        """Present `certificate` (None: none) in every connection from now on, also through contexts handed out
        before. Raises SvidError and changes nothing."""
        presenting = self._presenting
        bundle = bundle or presenting.bundle
        presenting.real, presenting.identity = self._built(certificate, bundle)
        presenting.bundle = bundle

    def _built(self, certificate: Presented | None, bundle: TrustBundle) -> tuple[ssl.SSLContext, str]:
        real = _real_context(ssl.PROTOCOL_TLS_CLIENT, certificate, bundle, self._alpn)
        return real, certificate.identity if certificate is not None else ""

    def expecting(self, expected: str | Expectation) -> ssl.SSLContext:
        """A context whose handshakes succeed only with `expected`: a SPIFFE ID, or an Expectation. Those for SPIFFE
        IDs are kept (bounded), so that asking again is free."""
        if not isinstance(expected, str):
            return _ClientShell(self._presenting, expected)
        shell = self._shells.get(expected)
        if shell is not None:
            self._shells.move_to_end(expected)
            return shell
        shell = self._shells[expected] = _ClientShell(self._presenting, expected)
        if len(self._shells) > CONTEXTS_CACHED_MAX:
            self._shells.popitem(last=False)
        return shell

    def __repr__(self) -> str:
        return f"Caller({self.identity or 'anonymous'})"


@dataclass(slots=True, kw_only=True)
class _Presenting:
    """What a caller's next handshakes present and ask for."""

    real: ssl.SSLContext
    identity: str
    bundle: TrustBundle
    check: Check | None
    on_refused: OnRefused | None

    def guard(self, expected: str | Expectation) -> _Guard:
        return _Guard(
            bundle=self.bundle,
            expected=expected,
            check=self.check,
            on_refused=self.on_refused,
            by_sni={},
            has_default=False,
        )


class _ClientShell(_Shell):
    def __init__(self, presenting: _Presenting, expected: str | Expectation) -> None:
        self._presenting = presenting
        self._expected = expected

    def _current(self) -> tuple[ssl.SSLContext, _Guard]:
        return self._presenting.real, self._presenting.guard(self._expected)

    def __repr__(self) -> str:
        wanted = self._expected if isinstance(self._expected, str) else self._expected.description
        return f"ClientContext({self._presenting.identity or 'anonymous'} -> {wanted})"


class _JoiningShell(_Shell):
    def __init__(self, alpn: Sequence[str]) -> None:
        self._real = _real_context(ssl.PROTOCOL_TLS_CLIENT, None, None, tuple(alpn))

    def _current(self) -> tuple[ssl.SSLContext, _Guard]:
        return self._real, _Guard(
            bundle=None, expected=ANY_MEMBER, check=None, on_refused=None, by_sni={}, has_default=False
        )


class _OpenShell(_Shell):
    def __init__(self, certificate: Presented, alpn: Sequence[str]) -> None:
        self._real = _real_context(ssl.PROTOCOL_TLS_SERVER, certificate, None, tuple(alpn))
        self._real.num_tickets = 0

    def _current(self) -> tuple[ssl.SSLContext, _Guard]:
        return self._real, _Guard(
            bundle=None, expected=ANY_MEMBER, check=None, on_refused=None, by_sni={}, has_default=True
        )


def server_context_unverified(certificate: Presented, *, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """For a node that founds a mesh and has no anchors yet: encrypts towards *whoever calls*, showing `certificate`.
    Both ends have to prove themselves inside (`trust/bootstrap.py`) before anything else is said."""
    return _OpenShell(certificate, alpn)


def client_context_unverified(*, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """For a node that joins and has no anchors yet: encrypts towards *whoever answers*. Send nothing before
    `verify_introduction` has returned."""
    return _JoiningShell(alpn)


def verify_introduction(
    ssl_object: ssl.SSLObject,
    root_der: bytes,
    *,
    fingerprint: bytes,
    trust_domain: str,
    now: float | None = None,
    rollovers: Sequence[bytes] = (),
    member: bool = False,
) -> Svid:
    """Who answered a joining client: `root_der` and `rollovers` are in the first frame the peer sent, `fingerprint` and
    `trust_domain` are the token's. The handshake proved that the peer holds the leaf's key. Raises SvidError."""
    assert isinstance(ssl_object, PeerObject), "made by client_context_unverified"
    return verify_seed(
        ssl_object.peer_der,
        root_der,
        fingerprint=fingerprint,
        trust_domain=trust_domain,
        now=time.time() if now is None else now,
        rollovers=rollovers,
        member=member,
    )


# ------------------------------------------------------------------ what OpenSSL is told


def _real_context(
    protocol: "ssl._SSLMethod",
    certificate: Presented | None,
    bundle: TrustBundle | None,
    alpn: tuple[str, ...],
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslobject_class = PeerObject
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # identities are compared, not host names
    context.verify_mode = ssl.CERT_REQUIRED if bundle is not None else ssl.CERT_NONE
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if bundle is not None:
        context.load_verify_locations(cadata=b"".join(bundle.anchors))
    if alpn:
        context.set_alpn_protocols(alpn)
    if certificate is not None:
        _load(context, certificate)
    return context


def _load(context: ssl.SSLContext, certificate: Presented) -> None:
    """Give OpenSSL a key it can only read from a file, without one: memfd pages belong to no file system."""
    descriptor = os.memfd_create("gossamer-svid", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as memory:
        memory.write(certificate.key_pem + b"\n" + certificate.chain_pem)
        memory.flush()
        try:
            # A password callback, for without one OpenSSL would ask the terminal about an encrypted key.
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: b"")
        except (ssl.SSLError, ValueError):
            raise SvidError(
                f"the certificate for {certificate.identity} and its key do not load or do not match"
            ) from None
