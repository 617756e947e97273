"""The plane tells which certificates its callers and servers showed, for they may be ones that nobody asked for."""

import ssl
from dataclasses import replace

import pytest

from proxy.snapshot import Certificate

from .application import App
from .client import call
from .patience import until
from .twohosts import Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.chain_pem.decode())


async def told(mesh: Mesh, host: str, certificate: Certificate) -> list[bytes]:
    """All the plane has told of, once it has told of this one."""
    seen: list[bytes] = []

    def there() -> bool:
        seen.extend(mesh.planes[host].observations().met)
        return der(certificate) in seen

    await until(there, "the certificate to be told of")
    return seen


async def test_both_ends_of_a_call_tell_of_the_other_ends_certificate_once(mesh: Mesh, app: App) -> None:
    mesh.certificates.clear()
    await mesh.serve(Service("echo", {"b": app.port}))
    for _ in range(3):
        assert (await call(mesh.port())).status == 200
    for host, far_end in (("b", mesh.certificate("web")), ("a", mesh.certificate("echo"))):
        seen = await told(mesh, host, far_end)  # a report may also tell of connections that were there before
        assert seen.count(der(far_end)) == 1


async def test_a_caller_that_renewed_is_told_of_again_and_one_that_did_not_is_not(
    mesh: Mesh, app: App
) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    for account in ("first", "first", "second"):
        async with mesh.inbound("echo", account=account) as connection:
            assert (await connection.request()).status == 200
    seen = await told(mesh, "b", mesh.certificate("second"))
    assert [each for each in seen if each == der(mesh.certificate("first"))] == [
        der(mesh.certificate("first"))
    ]
    renewed = mesh.certificates["first"] = mesh.root.certificate("first")
    async with mesh.inbound("echo", account="first") as connection:
        assert (await connection.request()).status == 200
    assert await told(mesh, "b", renewed) == [der(renewed)]


async def test_a_certificate_that_was_refused_is_not_told_of(mesh: Mesh, app: App) -> None:
    await mesh.serve(Service("echo", {"b": app.port}))
    mesh.certificates.pop("cut", None)
    serial = der(mesh.certificate("cut"))
    snapshot = mesh.snapshots["b"]
    mesh.version += 1
    cut = replace(snapshot, version=mesh.version, revoked=(mesh.certificate("cut").identity,))
    await mesh.apply("b", cut)
    with pytest.raises((ssl.SSLError, ConnectionError, OSError, EOFError)):
        async with mesh.inbound("echo", account="cut") as connection:
            await connection.request()
    async with mesh.inbound("echo", account="last") as connection:
        assert (await connection.request()).status == 200
    assert serial not in await told(mesh, "b", mesh.certificate("last"))
