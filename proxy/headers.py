"""Header fields that the proxies themselves answer for, so that a policy cannot use them like any other.

What a rule could never see, or a filter must not write, is refused by name where the policy is written: a DENY that
asks for a field which ends at the proxy would deny nothing, and nobody would know.

Servers that hand headers on as variables (CGI, RFC 3875 4.1.18, and WSGI after it) make one name of `-` and `_`, so
a caller's `x_forwarded_client_cert` would stand where the application looks for what the mesh says.

Invariant: all names are in lower case.
"""

from itertools import product
from typing import Final


def _spellings(name: str) -> frozenset[str]:
    first, *others = name.split("-")
    return frozenset(
        first + "".join(joint + part for joint, part in zip(joints, others, strict=True))
        for joints in product("-_", repeat=len(others))
    )


# Of one connection: they end at each proxy (RFC 9110, 7.6.1), so no rule sees them. What is asked for with `upgrade`
# is not among them: rules see that, with what `expect` and `content-length` say.
CONNECTION_FIELDS: Final = frozenset(
    {
        "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
        "te", "transfer-encoding",
    }
)  # fmt: skip
# Whose certificate the mesh saw: what a caller says of that is dropped.
FORWARDED_CERT: Final = "x-forwarded-client-cert"
FORWARDED_CERT_SPELLINGS: Final = _spellings(FORWARDED_CERT)
# Set by whoever frames the message or picks the destination; a filter that wrote them could smuggle requests.
UNWRITABLE: Final = (
    CONNECTION_FIELDS | FORWARDED_CERT_SPELLINGS | {"content-length", "expect", "host", "trailer", "upgrade"}
)
# Written anew at every hop: a request that had them from a filter too would have them twice.
WRITTEN_IN_REQUESTS: Final = frozenset({"traceparent", "x-request-id"})
