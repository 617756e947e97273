"""What people are told of members whose records are not taken: expelled ones, those who contradict themselves, and
those whose clocks are ahead."""

from collections.abc import Sequence
from typing import Any

from crdt.delta import Delta
from crdt.record import Record
from peer.records import POLICY, encode_policy
from tests.peer.test_daemon import ROUTE, hosts, pair
from trust.identity import format_id

__all__ = ["hosts"]  # a fixture


async def test_check_names_it(hosts: Any) -> None:
    one, two = await pair(hosts)
    culprit = two.daemon.identity

    assert await one.checked("expelled") == ("ok", "no member has equivocated")
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
    status, detail = await one.checked("expelled")
    assert status == "warn"
    assert f"host-2 ({format_id(culprit.id)})" in detail


async def test_check_names_whose_records_wait_and_why_until_they_need_not(hosts: Any) -> None:
    one, two = await pair(hosts)
    writer = two.daemon.identity

    assert await one.checked("records") == ("ok", "none has to wait")
    ahead_ms = int(one.daemon.clock.now() * 1000) + 60_000
    early = two.daemon.journal.draft(
        writer=writer.id, kind="note", key="k", payload=b"x", context=(), now_ms=ahead_ms, sign=writer.sign
    )
    assert one.daemon.journal.merge([early], ahead_ms - 60_000).waiting
    assert await one.checked("records") == ("warn", "waiting: 1 of host-2: stamped in the future")
    assert "gossamer_journal_waiting 1.0" in one.operations.metrics().decode()
    assert one.daemon.journal.retry_waiting(ahead_ms).accepted == (early,)
    assert await one.checked("records") == ("ok", "none has to wait")
    one.daemon.journal.merge(own_records(two, "k", "l", after=[early])[1:], ahead_ms)
    assert await one.checked("records") == ("ok", "held back until those before them come: 1 of host-2")


def own_records(host: Any, *keys: str, after: Sequence[Record] = ()) -> list[Record]:
    """What a node could sign next, one after the other, behind `after`."""
    identity, journal = host.daemon.identity, host.daemon.journal
    batch = journal.batch(identity.id, after)
    return [
        journal.draft(
            writer=identity.id, kind="note", key=key, payload=b"x", context=(),
            now_ms=int(host.daemon.clock.now() * 1000), sign=identity.sign, batch=batch,
        )
        for key in keys
    ]  # fmt: skip


async def test_check_names_who_contradicts_itself_without_a_proof(hosts: Any) -> None:
    one, two = await pair(hosts)
    journal, liar = one.daemon.journal, two.daemon.identity.id
    now_ms = int(one.daemon.clock.now() * 1000)

    assert await one.checked("contradictions") == ("ok", "no member contradicts itself")
    [base] = own_records(two, "base")
    [told] = own_records(two, "told", after=[base])
    _, last = own_records(two, "kept", "kept", after=[base])  # behind another one of the same number
    assert journal.merge([base, told], now_ms).accepted == (base, told)
    assert journal.merge([last], now_ms).refused
    assert await one.checked("contradictions") == (
        "warn", "host-2: what came last does not add up with what is held, all of it is asked for",
    )  # fmt: skip
    whole = Delta(writer=liar, after=0, upto=last.seq, target=last.seq, records=(base, last))
    assert journal.absorb(whole, now_ms).contradictions
    assert await one.checked("contradictions") == (
        "warn", "host-2: what it signed last counts, which is not what it had published before",
    )  # fmt: skip
    assert not journal.forks
