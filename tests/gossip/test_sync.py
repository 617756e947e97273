import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.config import lan
from gossip.engine import Engine
from gossip.errors import MalformedError
from gossip.events import MembersReceived, Rejected
from gossip.roster import Link
from gossip.sync import CHUNK_BYTES_MAX, Divergence, SyncGate, decode_members
from tests.gossip.world import START, acquaint, engine_of, identity_of, suspicion

OURS, THEIRS = b"o" * 16, b"t" * 16


def told(engine: Engine, payload: tuple[bytes, ...]) -> list[Rejected]:
    return [
        output
        for chunk in payload
        for output in engine.step(START, MembersReceived(node=None, data=chunk))
        if isinstance(output, Rejected)
    ]


def test_a_payload_tells_everything_with_its_proofs() -> None:
    teller, pupil = engine_of("teller"), engine_of("pupil")
    acquaint(teller, "a", "b", "c", "d")
    judge = teller._parts.judge
    for accuser in ("b", "c", "d"):
        judge.hear(START, suspicion(accuser, "a"))
    judge.condemn_due(START + 1000)
    judge.hear(START, suspicion("c", "b"))
    assert told(pupil, teller.members_payload()) == []
    states = {member.name: member.state.value for member in pupil.members()}
    assert states == dict.fromkeys(("pupil", "teller", "c", "d"), "alive") | {"a": "dead", "b": "suspect"}


def test_large_payloads_come_in_bounded_chunks() -> None:
    teller, pupil = engine_of("teller"), engine_of("pupil")
    for start in range(0, 300, 50):
        acquaint(teller, *(f"m{index}" for index in range(start, start + 50)))
    payload = teller.members_payload()
    assert len(payload) > 1
    assert all(len(chunk) <= CHUNK_BYTES_MAX for chunk in payload)
    assert told(pupil, payload) == []
    assert len(pupil.members()) == 302


def test_evicted_and_expired_members_are_not_passed_on() -> None:
    teller = engine_of("teller")
    acquaint(teller, "a", "b")
    teller._parts.judge.evict(START, identity_of("a").id, "revoked")
    nodes = {statement.node for chunk in teller.members_payload() for statement in decode_members(chunk)}
    assert nodes == {identity_of("teller").id, identity_of("b").id}
    teller._now = START + 8 * 86_400
    assert len(decode_members(teller.members_payload()[0])) == 1


@given(st.binary(max_size=400))
def test_any_bytes_are_members_or_malformed(data: bytes) -> None:
    try:
        decode_members(data)
    except MalformedError:
        pass


def test_a_chunk_too_large_is_refused_unread() -> None:
    with pytest.raises(MalformedError, match="at most"):
        decode_members(bytes(CHUNK_BYTES_MAX + 1))


def test_one_stream_per_address_within_the_spacing() -> None:
    gate = SyncGate(2.0)
    address, other = ("10.0.0.1", 1), ("10.0.0.2", 1)
    assert [gate.ask(0.0, address), gate.ask(1.9, address), gate.ask(1.9, other), gate.ask(2.0, address)] == [
        True, False, True, True,
    ]  # fmt: skip


def test_the_gate_is_bounded() -> None:
    gate = SyncGate(2.0)
    asked = [gate.ask(0.0, (f"10.{i // 65536}.{i // 256 % 256}.{i % 256}", 1)) for i in range(5000)]
    assert asked.count(True) == 4096
    assert gate.ask(2.0, ("10.200.0.1", 1))


def divergence() -> Divergence:
    return Divergence(lan(), OURS, now=0.0)


def test_a_settled_difference_is_told_at_once_and_then_at_a_rate() -> None:
    judge, link = divergence(), Link()
    assert judge.judge(10.0, link, THEIRS, settled=True)
    assert not judge.judge(11.9, link, THEIRS, settled=True)
    assert judge.judge(12.0, link, THEIRS, settled=True)


def test_a_push_in_flight_on_either_side_is_no_difference() -> None:
    judge, link = divergence(), Link()
    assert not judge.judge(10.0, link, THEIRS, settled=False)
    judge.observe(10.0, b"n" * 16)
    assert not judge.judge(10.4, link, THEIRS, settled=True)
    assert not judge.judge(10.4, link, b"n" * 16, settled=True)
    assert judge.judge(10.5, link, THEIRS, settled=True)


def test_under_constant_writes_a_lasting_difference_still_counts() -> None:
    judge, link = divergence(), Link()
    results = []
    for tenth in range(60):
        now = 10 + tenth / 10
        judge.observe(now, tenth.to_bytes(16, "big"))
        results.append(judge.judge(now, link, THEIRS, settled=False))
    assert results.index(True) == 50
    assert results.count(True) == 1


def test_agreement_starts_the_patience_afresh() -> None:
    judge, link = divergence(), Link()
    for now in range(10, 20):
        judge.observe(now, now.to_bytes(16, "big"))
        assert not judge.judge(now, link, THEIRS, settled=False) or now >= 15
        if now % 3 == 0:
            assert not judge.judge(now, link, now.to_bytes(16, "big"), settled=True)
            assert link.differs_since is None
