"""Transparency: how a certificate that nobody asked for comes to light, and what proves it.

Whoever holds the root key, or t of its shares, can sign a certificate for any node. Nothing prevents that; it is made
impossible to *use* unseen. A node knows every key it ever asked to have certified. Whoever meets a certificate in a
handshake shows it, once, to the node it is made out to (`peer/sightings.py`), and that node publishes what it did
not ask for: a *denial*, a record whose payload is the certificate itself. The certificate carries the root's
signature and the node's id, the record the node's: both together convince everybody who knows the root, and need no
trust in whoever hands them on. It says that the node denies, not that the node is honest: one that lies about its
own certificate raises an alarm too, and in its own name.

Why not a record for every certificate: 10,000 nodes with two certificates each, renewed every half hour, are 11
records a second. At some 350 bytes, received about four times over epidemic push, that is 16 kB/s at every node for
ever, besides 7 MB of state and the same number of commits to disk, growing with n; and the one who signs in secret is
the one who would have to write the record. Sightings cost each node a short stream for each certificate it meets
and never met before, and nothing is gossiped unless something is wrong.

Invariant: a denial that `read_denial` returns is signed by the root and made out to whoever denies it.
"""

import hashlib
from typing import Final

from trust.authority import CERTIFICATE_BYTES_MAX
from trust.errors import SvidError
from trust.identity import format_id
from trust.svid import Svid, read_svid

DENIAL_BYTES_MAX: Final = CERTIFICATE_BYTES_MAX
DENIALS_PER_NODE_MAX: Final = 16  # at a time; one is proof enough


def key_digest(public_der: bytes) -> bytes:
    """What a node remembers of a key it asked to have certified."""
    return hashlib.sha256(public_der).digest()


def denial_key(svid: Svid) -> str:
    """The key of the record that denies this certificate."""
    return svid.serial.hex()


def read_denial(payload: bytes, *, root_public: bytes, trust_domain: str, writer: bytes) -> Svid:
    """The certificate that node `writer` says it did not ask for. Raises SvidError unless the root signed it, and for
    that very node."""
    svid = read_svid(payload, root_public=root_public, trust_domain=trust_domain)
    if svid.node != writer:
        raise SvidError(
            f"node {format_id(writer)} denies a certificate that was made out to {format_id(svid.node)}"
        )
    return svid
