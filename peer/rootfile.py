"""The line of roots on disk: the certificate of the first one, which never changes, and the rollovers after it.

    keys/root.der    the certificate of the root this mesh was founded with (DER)
    keys/roots       the rollovers that followed, in order; no such file where there was none

All of it is public and every member has the same. What cannot be read comes back from the others.

Invariant: what is loaded was verified step by step.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from gossip.events import Address
from peer.enroll import EnrollError, Membership, hear_roots
from peer.io.keys import KeyFile, KeyFileError, Keys
from trust.ceremony.statement import pack_many, unpack_many
from trust.credential import decode_credential
from trust.errors import TrustError
from trust.rollover import decode_rollover
from trust.roots import ROLLOVERS_MAX, Roots

log = logging.getLogger("gossamer.rollover")

_KEPT_MAX: Final = 2 * ROLLOVERS_MAX  # each step, and the one that contradicts it


def load_roots(keys: Keys, certificate: bytes, trust_domain: str) -> Roots:
    """What follows on the root with this certificate (DER). Raises SvidError for that one, KeyFileError."""
    roots = Roots(certificate, trust_domain)
    data = keys.read(KeyFile.ROOTS)
    try:
        for each in unpack_many(data, count_max=_KEPT_MAX) if data else ():
            roots.add(decode_rollover(each))
    except TrustError as error:
        fields = {"file": str(keys.path(KeyFile.ROOTS)), "reason": str(error)}
        log.warning("roots_unreadable", extra={"fields": fields})
    return roots


def store_roots(keys: Keys, roots: Roots) -> None:
    """Durable when it returns. Raises KeyFileError."""
    if not roots.rollovers:
        return
    kept = [*roots.rollovers, *(other for _, other in roots.conflicts)]
    keys.write(KeyFile.ROOTS, pack_many([each.encode() for each in kept]))


def told_roots(keys: Keys, roots: Roots) -> bool:
    """`store_roots` for what others can tell again: whether it is on disk. A full disk is no reason not to follow."""
    try:
        store_roots(keys, roots)
    except KeyFileError as error:
        log.warning("roots_not_stored", extra={"fields": {"reason": str(error)}})
        return False
    return True


async def complete_line(keys: Keys, members: Iterable[Address], now: Callable[[], float]) -> None:
    """Where the line of roots on disk does not reach the one that signed this host's credential, ask for the rest. Any
    member tells, and what it tells is verified from the first root on. Whatever
    is wrong is found where the credential is judged. Raises KeyFileError."""
    encoded, root = keys.read(KeyFile.CREDENTIAL), keys.read(KeyFile.ROOT_CERTIFICATE)
    if encoded is None or root is None:
        return
    try:
        credential = decode_credential(encoded)
        roots = load_roots(keys, root, credential.trust_domain)
        if roots.signer_of(credential.signing_bytes(), credential.signature) is not None:
            return
        member = Membership(
            root_certificate=root, trust_domain=credential.trust_domain, credential=credential, line=roots
        )
        await hear_roots(member, members, now)
        store_roots(keys, roots)
    except (EnrollError, TrustError) as error:
        log.warning("roots_unheard", extra={"fields": {"reason": str(error)}})
