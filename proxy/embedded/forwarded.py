"""`x-forwarded-client-cert`: how an application learns whose certificate the mesh saw.

Servers that hand headers on as variables (CGI, RFC 3875 4.1.18, and WSGI after it) make one name of `-` and `_`, so
a caller's `x_forwarded_client_cert` would stand where the application looks for what the mesh says.

Invariant: nobody but the mesh sends a field of any of these spellings to an application: not a caller in a head or
a trailer, nor a route's filter.
"""

from itertools import product
from typing import Final

FORWARDED_CERT: Final = b"x-forwarded-client-cert"


def _spellings(name: bytes) -> frozenset[bytes]:
    first, *others = name.split(b"-")
    return frozenset(
        first + b"".join(joint + part for joint, part in zip(joints, others, strict=True))
        for joints in product((b"-", b"_"), repeat=len(others))
    )


FORWARDED_CERT_SPELLINGS: Final = _spellings(FORWARDED_CERT)
