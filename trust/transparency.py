"""Transparency: how a certificate that nobody asked for comes to light, and what proves it.

Whoever holds the root key, or t of its shares, can sign a certificate for any node. Nothing prevents that; it is made
impossible to *use* unseen, and to get from honest signers unseen. A node knows every key it ever asked to have
certified. It hears of what else is certified in its name in two ways:

    the log     The signers record every certificate in their journals (`trust/issued.py`, `peer/issuances.py`): those
                that are shown to them, and those they gave a share of. Entries carry the root's signature, so that
                nobody can raise an alarm with what was never issued.
    the use     Whoever meets a certificate in a handshake shows it, once, to the node it is made out to, and where the
                log does not have it after minutes, to a signer (`peer/sightings.py`).

What a node did not ask for it denies: it publishes a *denial*, a record whose payload is the certificate itself. The
certificate carries the root's signature and the node's id, the record the node's: both together convince everybody who
knows the root, and need no trust in whoever hands them on. It says that the node denies, not that the node is honest:
one that lies about its own certificate raises an alarm too, and in its own name.

What each attacker leaves behind. Who has a node's key, and asks the signers in its name: an entry in the log, however
he coordinates, as long as fewer than t signers lie. Who has t shares and tells nobody: a certificate without an entry,
which the first one who meets it shows to its node and to the signers; if that node is down, the entry waits for it
there. Who has t shares and records what he signs: the entry.

Why signers write the log, and not each node its own certificates: nobody gets a signature past them, while whoever
steals a node's key writes as that node. And it is cheaper. They write all of a minute on one page, where each node
would write a record for each certificate, which every other one pushes on several times (`benchmarks/issuance.py`).

Invariant: a denial that `read_denial` returns is signed by the root and made out to whoever denies it.
"""

import hashlib
from typing import Final

from trust.authority import CERTIFICATE_BYTES_MAX
from trust.errors import SvidError
from trust.identity import format_id
from trust.roots import Root
from trust.svid import Svid, read_svid

DENIAL_BYTES_MAX: Final = CERTIFICATE_BYTES_MAX
DENIALS_PER_NODE_MAX: Final = 16  # at a time; one is proof enough


def key_digest(public_der: bytes) -> bytes:
    """What a node remembers of a key it asked to have certified."""
    return hashlib.sha256(public_der).digest()


def denial_key(svid: Svid) -> str:
    """The key of the record that denies this certificate."""
    return svid.serial.hex()


def read_denial(payload: bytes, *, root_public: Root, trust_domain: str, writer: bytes) -> Svid:
    """The certificate that node `writer` says it did not ask for. Raises SvidError unless the root signed it, and for
    that very node."""
    svid = read_svid(payload, root_public=root_public, trust_domain=trust_domain)
    if svid.node != writer:
        raise SvidError(
            f"node {format_id(writer)} denies a certificate that was made out to {format_id(svid.node)}"
        )
    return svid
