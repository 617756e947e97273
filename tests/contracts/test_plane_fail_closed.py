"""What a peer compiles from a policy it cannot obey, on real workers: nobody passes, and the log says why."""

from typing import Any

import pytest

from peer.compile import compile_snapshot
from proxy.snapshot import Authorization
from tests.peer.meshview import authz, instance, view

from .application import App
from .twohosts import BOTH, REMOTE, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def compiled(**spec: Any) -> Authorization:
    """What holds for `echo` when a member of a newer version has published this."""
    found = compile_snapshot(view(instance("echo"), authz("newer", **spec)), version=1)
    assert not found.statuses["AuthorizationPolicy/default/newer"].accepted
    return found.snapshot.inbound[0].authorization


@BOTH
async def test_nobody_passes_a_policy_that_cannot_be_read(mesh: Mesh, app: App, where: str) -> None:
    shut = compiled(newer=1, targetRefs=[{"kind": "Service", "name": "echo"}])
    await mesh.serve(Service("echo", {where: app.port}, authorization=shut))
    assert (await mesh.call(path=f"/shut-{where}")).status == 403
    assert app.received == []
    reporter = {"reporter": "destination"} if where == REMOTE else {}
    line = await mesh.log_line(where, path=f"/shut-{where}", code=403, **reporter)
    assert "default/newer" in line["authz_policy"]
    other = compiled(newer=1, targetRefs=[{"kind": "Service", "name": "other"}])
    await mesh.serve(Service("echo", {where: app.port}, authorization=other))
    assert (await mesh.call(path="/")).status == 200
