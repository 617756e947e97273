"""Certificates on disk: so that a peer which restarts while no signer answers still has what has not expired.

One private file (0600) beside the node's own key, replaced as a whole. What it gives away is no more than the
node's key does, which can ask for the same certificates again.

Invariant: what is loaded has been verified against the root, as if it had come from the network.
"""

import logging
import ssl
from collections.abc import Iterable

import msgpack
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from peer.io.keys import KeyFile, KeyFileError, Keys
from trust.bundle import TrustBundle
from trust.errors import SvidError, TrustError
from trust.svid import KeyedSvid, certificate_pem

log = logging.getLogger("gossamer.certify")


def save_certificates(keys: Keys, held: Iterable[KeyedSvid]) -> None:
    """Replace the file. A failure is logged: certificates serve from memory all the same."""
    rows = [[svid.chain_pem, svid.key_pem] for svid in held]
    try:
        keys.write(KeyFile.CERTIFICATES, msgpack.packb(rows))
    except KeyFileError as error:
        log.warning("certificates_unsaved", extra={"fields": {"reason": str(error)}})


def load_certificates(keys: Keys, bundle: TrustBundle, now: float) -> list[KeyedSvid]:
    """What is still valid at `now` (Unix s). A damaged or stale file means nothing: certificates are asked for
    anew."""
    try:
        data = keys.read(KeyFile.CERTIFICATES)
        rows = msgpack.unpackb(data) if data else []
        found = [_svid(chain, key, bundle) for chain, key in rows]
    except (KeyFileError, TrustError, ValueError, TypeError, msgpack.UnpackException) as error:
        log.warning("certificates_unread", extra={"fields": {"reason": str(error)}})
        return []
    return [svid for svid in found if svid.not_before <= now < svid.not_after]


def _svid(chain_pem: bytes, key_pem: bytes, bundle: TrustBundle) -> KeyedSvid:
    """Raises SvidError, ValueError, TypeError."""
    if not isinstance(chain_pem, bytes) or not isinstance(key_pem, bytes):
        raise TypeError("a certificate and its key are bytes")
    der = ssl.PEM_cert_to_DER_cert(chain_pem.decode("ascii"))
    svid = bundle.read_peer(der)
    try:
        private = load_pem_private_key(key_pem, password=None)
    except UnsupportedAlgorithm as error:
        raise SvidError(f"the key of {svid.spiffe} does not load") from error
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public != svid.public_der:
        raise SvidError(f"the key of {svid.spiffe} is not the certificate's")
    return KeyedSvid(  # written anew: OpenSSL's reading of PEM is stricter than that of others
        identity=svid.spiffe,
        chain_pem=certificate_pem(der),
        key_pem=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        not_before=svid.not_before,
        not_after=svid.not_after,
    )
