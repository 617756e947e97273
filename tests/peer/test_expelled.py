"""What people are told of members whose records are not taken: expelled ones, and those whose clocks are ahead."""

from typing import Any

from peer.records import POLICY, encode_policy
from tests.peer.test_daemon import ROUTE, hosts, pair
from trust.identity import format_id

__all__ = ["hosts"]  # a fixture


async def test_check_names_it(hosts: Any) -> None:
    one, two = await pair(hosts)
    culprit = two.daemon.identity

    async def row() -> tuple[str, str]:
        (found,) = [each for each in await one.operations.check() if each["check"] == "expelled"]
        return found["status"], found["detail"]

    assert await row() == ("ok", "no member has equivocated")
    now_ms = int(one.daemon.clock.now() * 1000)
    contents = [
        two.daemon.journal.draft(
            writer=culprit.id, kind=POLICY, key=f"TrafficPolicy/default/{name}",
            payload=encode_policy(ROUTE | {"metadata": {"name": name, "namespace": "default"}}),
            context=(), now_ms=now_ms, sign=culprit.sign,
        )
        for name in ("left", "right")
    ]  # fmt: skip
    assert contents[0].dot == contents[1].dot
    assert one.daemon.journal.merge(contents, now_ms).equivocations
    status, detail = await row()
    assert status == "warn"
    assert f"host-2 ({format_id(culprit.id)})" in detail


async def test_check_names_whose_records_wait_and_why_until_they_need_not(hosts: Any) -> None:
    one, two = await pair(hosts)
    writer = two.daemon.identity

    async def row() -> tuple[str, str]:
        (found,) = [each for each in await one.operations.check() if each["check"] == "records"]
        return found["status"], found["detail"]

    assert await row() == ("ok", "none has to wait")
    ahead_ms = int(one.daemon.clock.now() * 1000) + 60_000
    early = two.daemon.journal.draft(
        writer=writer.id, kind="note", key="k", payload=b"x", context=(), now_ms=ahead_ms, sign=writer.sign
    )
    assert one.daemon.journal.merge([early], ahead_ms - 60_000).waiting
    assert await row() == ("warn", "waiting: 1 of host-2: stamped in the future")
    assert "gossamer_journal_waiting 1.0" in one.operations.metrics().decode()
    assert one.daemon.journal.retry_waiting(ahead_ms).accepted == (early,)
    assert await row() == ("ok", "none has to wait")
