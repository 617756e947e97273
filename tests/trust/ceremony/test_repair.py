"""A lost share comes back from any t others, whatever is lost on the way, and never a wrong one."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.ceremony.network import founded
from trust.ceremony.events import Received, Rejected, Send, Tick
from trust.ceremony.repair import REPAIR_BYTES_MAX, SESSIONS_MAX, Repair, Restored
from trust.codec import pack
from trust.group import scalar_of
from trust.groupkey import KeyShare

Alter = Callable[[bytes, Send], bytes | None]


def pair(count: int) -> tuple[dict[bytes, Repair], bytes, KeyShare]:
    """Machines of all signers, the first of which lost its share."""
    record, shares, signers = founded(count)
    lost = signers[0].id
    machines = {
        each.id: Repair(
            me=each.id,
            group=record.group,
            share=None if each.id == lost else shares[each.id],
            entropy=random.Random(each.id.hex()).randbytes,
        )
        for each in signers
    }
    return machines, lost, shares[lost]


def run(machines: dict[bytes, Repair], lost: bytes, rng: random.Random, alter: Alter) -> Restored | None:
    now = 0.0
    steps = 0
    pending: list[tuple[bytes, Received | Tick]] = [(lost, Tick())]
    while steps < 3000:
        steps += 1
        if not pending:
            deadline = machines[lost].deadline
            if deadline is None:
                return None
            now = max(now, deadline)
            pending.append((lost, Tick()))
        target, given = pending.pop(rng.randrange(len(pending)))
        for output in machines[target].step(now, given):
            if isinstance(output, Restored):
                return output
            if isinstance(output, Send) and (data := alter(target, output)) is not None:
                pending.append((output.node, Received(node=target, data=data)))
    return None


def plainly(source: bytes, send: Send) -> bytes:
    return send.data


@pytest.mark.parametrize("count", [3, 5])
def test_the_share_comes_back(count: int) -> None:
    machines, lost, share = pair(count)
    restored = run(machines, lost, random.Random(1), plainly)
    assert restored is not None
    assert restored.share.secret.expose() == share.secret.expose()
    assert machines[lost].deadline is None


@given(st.integers(0, 10_000))
def test_loss_repetition_and_disorder_only_take_more_tries(seed: int) -> None:
    machines, lost, share = pair(5)
    rng = random.Random(seed)
    restored = run(machines, lost, rng, lambda source, send: send.data if rng.random() < 0.8 else None)
    assert restored is not None
    assert restored.share.secret.expose() == share.secret.expose()


def test_one_liar_among_four_helpers_is_gone_round() -> None:
    machines, lost, share = pair(5)
    liar = max(machines)

    def lie(source: bytes, send: Send) -> bytes:
        if source != liar:
            return send.data
        return send.data[:-32] + scalar_of(5)

    restored = run(machines, lost, random.Random(1), lie)
    assert restored is not None
    assert restored.share.secret.expose() == share.secret.expose()


def test_a_helper_never_sends_its_share_and_helps_the_owner_only() -> None:
    machines, lost, _ = pair(3)
    helper, other = (node for node in machines if node != lost)
    (ask, _) = machines[lost].step(0.0, Tick())
    assert isinstance(ask, Send)
    outputs = machines[helper].step(0.0, Received(node=other, data=ask.data))
    assert [type(each) for each in outputs] == [Rejected]  # it would be helper and loser
    secret = machines[helper]._share
    assert secret is not None
    outputs = machines[helper].step(0.0, Received(node=lost, data=ask.data))
    again = machines[helper].step(0.0, Received(node=lost, data=ask.data))
    assert outputs == again  # the same session, the same pieces
    assert all(secret.secret.expose() not in each.data for each in outputs if isinstance(each, Send))


def test_a_helper_remembers_a_bounded_number_of_sessions() -> None:
    machines, lost, _ = pair(3)
    helper, other = sorted(node for node in machines if node != lost)
    name, helpers = machines[lost].name, helper + other
    for at in range(5 * SESSIONS_MAX):
        ask = pack(["ask", at.to_bytes(16, "big"), helpers, b""])
        machines[helper].step(0.0, Received(node=lost, data=name + ask))
        piece = pack(["piece", (1000 + at).to_bytes(16, "big"), lost, scalar_of(1)])
        for _ in range(8):
            machines[helper].step(0.0, Received(node=other, data=name + piece))
    assert len(machines[helper]._sessions) == SESSIONS_MAX
    assert len(machines[helper]._early) <= SESSIONS_MAX * 16


@given(st.binary(max_size=200))
def test_hostile_bytes_are_rejected(data: bytes) -> None:
    machines, lost, _ = pair(3)
    helper = max(machines)
    for bad in (data, machines[helper].name + data, machines[helper].name + bytes(REPAIR_BYTES_MAX + 1)):
        outputs = machines[helper].step(0.0, Received(node=lost, data=bad))
        assert [type(each) for each in outputs] == [Rejected]
