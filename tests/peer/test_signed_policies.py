"""Documents that a person signed, at two whole peers: where one is not in force it does not count as enforced."""

from typing import Any

import pytest

from peer.api import ApiError
from peer.authored import sign
from proxy.resources import parse_documents
from proxy.snapshot import Snapshot
from tests.peer.test_daemon import ROUTE, hosts, pair, service
from trust.identity import NodeIdentity

__all__ = ["hosts"]  # a fixture

ANN = NodeIdentity.from_seed(b"a" * 32)


async def test_one_that_is_set_aside_somewhere_does_not_count_as_enforced_there(hosts: Any) -> None:
    one, two = await pair(hosts)
    await one.operations.register([service()], "test")

    def judge(snapshot: Snapshot) -> str:
        return "no" if any(d.request_timeout_s == 7.0 for d in snapshot.destinations) else ""

    two.plane.judge = judge
    documents = [
        ROUTE | {"metadata": {"name": name}, "spec": ROUTE["spec"] | {"timeouts": {"request": timeout}}}
        for name, timeout in (("bad", "7s"), ("good", "5s"))
    ]
    stamp_ms = int(one.daemon.clock.now() * 1000)
    signed = [
        sign(
            each.document, root=one.daemon.membership.root_public, key=ANN.public_key, stamp_ms=stamp_ms,
            signer=ANN.sign,
        )
        for each in parse_documents(documents, "f.yaml")
    ]  # fmt: skip
    with pytest.raises(ApiError, match=r"enforced by only 1 of 2 members .* missing: host-2") as refusal:
        await one.operations.apply(signed, "f.yaml", wait_percent=100, timeout_s=1.0)
    assert refusal.value.code == 3
    with pytest.raises(
        ApiError, match="enforced by only 1 of 2 members"
    ):  # nothing to publish, the same to wait for
        await one.operations.apply(signed, "f.yaml", wait_percent=100, timeout_s=0.5)
    described = await one.operations.describe("trafficpolicy", "default", "bad")
    states = {each["node"]: each["state"] for each in described["members"]["nodes"]}
    assert states == {"host-1": "enforced", "host-2": "held"}
    assert await one.operations.apply(signed[1:], "f.yaml", wait_percent=100, timeout_s=5.0)
