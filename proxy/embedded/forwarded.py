"""`x-forwarded-client-cert`, as bytes: how an application learns whose certificate the mesh saw (proxy/headers.py).

Invariant: nobody but the mesh sends a field of any of these spellings to an application: not a caller in a head or
a trailer, nor a route's filter.
"""

from typing import Final

from proxy import headers

FORWARDED_CERT: Final = headers.FORWARDED_CERT.encode()
FORWARDED_CERT_SPELLINGS: Final = frozenset(each.encode() for each in headers.FORWARDED_CERT_SPELLINGS)
