"""Certificates and an engine without a worker process, for the parts of the embedded data plane."""

import asyncio
import os
import random
import time
from collections.abc import Callable

import pytest

from proxy.embedded.engine import Engine
from proxy.snapshot import Certificate
from trust.authority import SoleAuthority, root_certificate
from trust.credential import Credential
from trust.identity import NodeIdentity, spiffe_workload
from trust.issuance import issue_svid, request_svid
from trust.revocation import RevocationSet
from trust.svid import certificate_pem, keyed, new_leaf_key

TRUST_DOMAIN = "unit.mesh"


class Issuer:
    """A throw-away root and what it signs."""

    def __init__(self) -> None:
        self._now = int(time.time())
        self._identity = NodeIdentity.from_seed(os.urandom(32))
        self._authority = SoleAuthority.from_seed(os.urandom(32), holder=self._identity.id)
        self._root = root_certificate(self._authority, TRUST_DOMAIN, self._now)
        credential = Credential(
            trust_domain=TRUST_DOMAIN, public_key=self._identity.public_key,
            agreement_key=self._identity.agreement_key, name="unit", services=("*/*",), publish=True, invite=False,
            serial=os.urandom(16), issued_at=self._now - 60, expires_at=self._now + 86_400,
        )  # fmt: skip
        self._credential = credential.signed(self._authority.sign(credential.signing_bytes()))
        self.bundle_pem = certificate_pem(self._root)

    def certificate(self, account: str) -> Certificate:
        identity = spiffe_workload(TRUST_DOMAIN, "default", account)
        key = new_leaf_key(os.urandom)
        der = issue_svid(
            self._authority, self._root, request_svid(self._identity, self._credential, identity, key, self._now),
            trust_domain=TRUST_DOMAIN, now=self._now, entropy=os.urandom,
            revoked=RevocationSet(self._authority.root_public),
        )  # fmt: skip
        svid = keyed(
            der, key, root_public=self._authority.root_public, trust_domain=TRUST_DOMAIN, now=self._now
        )
        return Certificate(
            identity=identity, chain_pem=svid.chain_pem, key_pem=svid.key_pem, not_after=svid.not_after
        )


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def engine() -> Engine:
    return Engine(asyncio.get_running_loop(), random.Random(1), None)


@pytest.fixture
def spiffe() -> Callable[[str], str]:
    return lambda account: spiffe_workload(TRUST_DOMAIN, "default", account)
