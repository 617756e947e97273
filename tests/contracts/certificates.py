"""A throw-away root of a mesh, and certificates under it."""

import os
import time

from proxy.snapshot import (
    Certificate,
)
from trust.authority import SoleAuthority, root_certificate
from trust.credential import Credential
from trust.identity import NodeIdentity, spiffe_workload
from trust.issuance import issue_svid, request_svid
from trust.revocation import RevocationSet
from trust.svid import certificate_pem, keyed, new_leaf_key

TRUST_DOMAIN = "test.mesh"


class MeshRoot:
    """A throw-away mesh root, and certificates under it."""

    def __init__(self) -> None:
        self.now = int(time.time())
        self.identity = NodeIdentity.from_seed(os.urandom(32))
        self.authority = SoleAuthority.from_seed(os.urandom(32), holder=self.identity.id)
        self.root_der = root_certificate(self.authority, TRUST_DOMAIN, self.now)
        credential = Credential(
            trust_domain=TRUST_DOMAIN, public_key=self.identity.public_key, agreement_key=self.identity.agreement_key,
            name="tests", services=("*/*",), publish=True, invite=False, serial=os.urandom(16),
            issued_at=self.now - 60, expires_at=self.now + 86_400,
        )  # fmt: skip
        self.credential = credential.signed(self.authority.sign(credential.signing_bytes()))
        self.bundle_pem = certificate_pem(self.root_der)

    def certificate(self, account: str, namespace: str = "default") -> Certificate:
        """A fresh one each time, as after a rotation."""
        identity = spiffe_workload(TRUST_DOMAIN, namespace, account)
        key = new_leaf_key(os.urandom)
        der = issue_svid(
            self.authority, self.root_der, request_svid(self.identity, self.credential, identity, key, self.now),
            trust_domain=TRUST_DOMAIN, now=self.now, entropy=os.urandom,
            revoked=RevocationSet(self.authority.root_public),
        )  # fmt: skip
        svid = keyed(
            der, key, root_public=self.authority.root_public, trust_domain=TRUST_DOMAIN, now=self.now
        )
        return Certificate(
            identity=identity, chain_pem=svid.chain_pem, key_pem=svid.key_pem, not_after=svid.not_after
        )


def spiffe(account: str, namespace: str = "default") -> str:
    return spiffe_workload(TRUST_DOMAIN, namespace, account)
