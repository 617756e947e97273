"""A throw-away mesh for benchmarks: its root, certificates under it, and the same as files for proxies of others."""

import os
import time
from pathlib import Path
from typing import Final

from proxy.snapshot import Certificate
from trust.authority import SoleAuthority, root_certificate
from trust.credential import Credential
from trust.identity import NodeIdentity, format_id, spiffe_workload
from trust.issuance import issue_svid, request_svid
from trust.revocation import RevocationSet
from trust.svid import certificate_pem, keyed, new_leaf_key

TRUST_DOMAIN: Final = "bench.local"


class Issuer:
    """A throw-away mesh root, and certificates under it."""

    def __init__(self) -> None:
        self._now = int(time.time())
        self._identity = NodeIdentity.from_seed(os.urandom(32))
        self._authority = SoleAuthority.from_seed(os.urandom(32), holder=self._identity.id)
        self._root = root_certificate(self._authority, TRUST_DOMAIN, self._now)
        credential = Credential(
            trust_domain=TRUST_DOMAIN,
            public_key=self._identity.public_key,
            agreement_key=self._identity.agreement_key,
            name="bench",
            services=("*/*",),
            publish=True,
            invite=False,
            serial=os.urandom(16),
            issued_at=self._now - 60,
            expires_at=self._now + 86_400,
        )
        self._credential = credential.signed(self._authority.sign(credential.signing_bytes()))
        self.node = format_id(self._identity.id)
        self.bundle_pem = certificate_pem(self._root)

    def certificate(self, account: str) -> Certificate:
        identity = spiffe_workload(TRUST_DOMAIN, "default", account)
        key = new_leaf_key(os.urandom)
        der = issue_svid(
            self._authority,
            self._root,
            request_svid(self._identity, self._credential, identity, key, self._now),
            trust_domain=TRUST_DOMAIN,
            now=self._now,
            entropy=os.urandom,
            revoked=RevocationSet(self._authority.root_public),
        )
        svid = keyed(
            der, key, root_public=self._authority.root_public, trust_domain=TRUST_DOMAIN, now=self._now
        )
        return Certificate(
            identity=identity, chain_pem=svid.chain_pem, key_pem=svid.key_pem, not_after=svid.not_after
        )


class Identities:
    """The caller `web`, the service `far`, and `stranger`, whom no policy allows; in `folder` as PEM files:
    `<name>.pem`, `<name>.key`, both in `<name>.both`, and `root.pem`."""

    def __init__(self, folder: Path) -> None:
        issuer = Issuer()
        self.folder = folder
        self.node = issuer.node
        self.bundle_pem = issuer.bundle_pem
        self.certificates = {name: issuer.certificate(name) for name in ("web", "near", "far", "stranger")}
        (folder / "root.pem").write_bytes(issuer.bundle_pem)
        for name, certificate in self.certificates.items():
            (folder / f"{name}.pem").write_bytes(certificate.chain_pem)
            for suffix, content in (
                ("key", certificate.key_pem),
                ("both", certificate.chain_pem + certificate.key_pem),
            ):
                path = folder / f"{name}.{suffix}"
                path.touch(mode=0o600)
                path.write_bytes(content)

    def spiffe(self, name: str) -> str:
        return self.certificates[name].identity
