"""One identity's outgoing TLS, and what it offers to speak by ALPN (RFC 7301).

A service's protocol says what is offered: HTTP/2 first, so that requests share connections, records and writes, and
nothing for plain TCP, in which a name would be a lie. A request to upgrade wants a connection that can become something
else, and gets one of HTTP/1.1. What was agreed on is asked of each connection (http2_pool.py).

Invariant: after `__init__` no context fails for a reason that is in the certificate.
"""

import ssl
from collections.abc import Mapping
from typing import Final

from proxy.snapshot import Certificate
from trust.bundle import TrustBundle
from trust.tls import Caller, Check

H2: Final = "h2"
HTTP_1_1: Final = "http/1.1"
NOTHING: Final[tuple[str, ...]] = ()
UPGRADE: Final = "upgrade"  # beside the protocols of services
OFFERED: Final[Mapping[str, tuple[str, ...]]] = {
    "grpc": (H2, HTTP_1_1), "http": (H2, HTTP_1_1), UPGRADE: (HTTP_1_1,), "tcp": NOTHING,
}  # fmt: skip
ACCEPTED: Final = (H2, HTTP_1_1)  # by inbound listeners, the first that a caller offers too


class TlsIdentity:
    """`key` tells certificates under different anchors apart."""

    __slots__ = ("_bundle", "_callers", "_certificate", "_check", "key")

    def __init__(self, key: str, certificate: Certificate, bundle: TrustBundle, check: Check) -> None:
        """Raises SvidError."""
        self.key = key
        self._certificate = certificate
        self._bundle = bundle
        self._check = check
        self._callers = {NOTHING: self._caller(NOTHING)}

    def __repr__(self) -> str:
        return f"<TlsIdentity {self._certificate.identity}>"

    def _caller(self, offered: tuple[str, ...]) -> Caller:
        return Caller(certificate=self._certificate, bundle=self._bundle, check=self._check, alpn=offered)

    def expecting(self, identity: str, offered: tuple[str, ...]) -> ssl.SSLContext:
        """A context whose handshakes offer `offered` and succeed only with `identity`."""
        caller = self._callers.get(offered)
        if caller is None:
            caller = self._callers[offered] = self._caller(offered)
        return caller.expecting(identity)
