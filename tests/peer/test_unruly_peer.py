"""A peer that publishes what it has no right to: refusing that is its own duty, ignoring it everybody else's."""

from typing import Any

from tests.peer.test_daemon import CLOSED, ROUTE, hosts, pair

__all__ = ["hosts"]  # a fixture


async def test_what_a_peer_publishes_against_the_rights_is_ignored_counted_and_named(
    hosts: Any, until: Any, monkeypatch: Any, caplog: Any
) -> None:
    one, two = await pair(hosts)
    await one.operations.apply([CLOSED], "f.yaml", wait_percent=100)
    monkeypatch.setattr(two.daemon.node._writes._capabilities, "refusal", lambda _record: "")
    (row,) = await two.operations.apply([ROUTE], "f.yaml")
    assert row["action"] == "created"  # so it says
    await until(lambda: two.daemon.identity.id in one.daemon.journal.heads)
    for host in (one, two):  # even its own other half knows better
        counted = 'gossamer_policies_refused{reason="namespace_closed"} 1.0'
        await until(lambda host=host, counted=counted: counted in host.operations.metrics().decode())
        assert [each["kind"] for each in await host.operations.get("all", None, None)] == ["Capability"]
        assert "TrafficPolicy/default/one" not in host.daemon.dataplane.statuses
    one.daemon.upkeep.tell_of_refusals()
    told = [each.fields for each in caplog.records if each.message == "policy_ignored"]
    assert [(each["node"], each["why"]) for each in told] == [
        (row["version"].partition(":")[0], "namespace_closed")
    ]
