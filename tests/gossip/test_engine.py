import pytest

from gossip.config import lan
from gossip.errors import LimitError
from gossip.events import (
    Evict,
    Join,
    Leave,
    LeaveSpread,
    LoopLag,
    MemberChanged,
    Publish,
    Rejected,
    Renewed,
    RequestSync,
    Send,
    SetMeta,
    SyncFailed,
    Tick,
)
from gossip.member import State
from gossip.message import Gossip
from gossip.statement import Left, decode_statement
from tests.gossip.test_conversation import only, quiet
from tests.gossip.world import START, Datagram, Speaker, credential_of, engine_of, identity_of

SEED = ("10.0.0.99", 7946)


def test_joining_asks_for_a_stream_to_each_seed_but_this_node() -> None:
    engine = engine_of("own", address=("10.0.0.1", 7946))
    assert engine.step(START, Join(seeds=(SEED, ("10.0.0.1", 7946)))) == [
        RequestSync(address=SEED, node=None, reason="join")
    ]


def test_a_seed_that_fails_is_tried_again() -> None:
    engine = engine_of("own")
    engine.step(START, Join(seeds=(SEED,)))
    assert engine.step(START + 1, SyncFailed(address=SEED)) == []
    assert engine.statistics().syncs_failed == 1
    outputs = []
    while (now := engine.deadline or 0) < START + 5:
        outputs += engine.step(now, Tick())
    assert 2 <= len(outputs) <= 5
    assert set(outputs) == {RequestSync(address=SEED, node=None, reason="seed")}


def test_more_seeds_than_the_bound_are_refused_whole() -> None:
    engine = engine_of("own")
    with pytest.raises(LimitError):
        engine.step(START, Join(seeds=tuple(("10.0.0.9", port) for port in range(1, 66))))
    assert len(engine._parts.seeds) == 0


def test_random_bytes_are_rejected() -> None:
    assert engine_of("own").step(START, Datagram(source=SEED, data=b"\x01hello")) == [
        Rejected(source=SEED, reason="a datagram of 6 bytes")
    ]


def test_publishing_alone_reaches_nobody_and_keeps_nothing() -> None:
    engine = engine_of("own")
    assert engine.step(START, Publish(payload=b"x")) == []
    assert engine.statistics().payloads_queued == 0


def test_a_publish_is_sent_at_once_to_a_few_members() -> None:
    engine = quiet(*(f"m{index}" for index in range(8)))
    for entry in engine._parts.roster.entries():
        entry.link.knows_us = True
    outputs = engine.step(START, Publish(payload=b"news"))
    assert len(outputs) == len(only(outputs, Send)) == lan().gossip_nodes
    for send in outputs:
        assert isinstance(send, Send)
        name = next(m.name for m in engine.members() if m.address == send.address)
        packet, body = Speaker(name).read(send.data, of="own")
        assert (body.message, body.payloads, packet.introduction) == (Gossip(), (b"news",), b"")


def test_a_record_too_large_is_refused() -> None:
    engine = quiet("a")
    with pytest.raises(LimitError):
        engine.step(START, Publish(payload=bytes(1201)))
    assert engine.statistics().payloads_queued == 0


def test_leaving_tells_at_once_and_ends_with_leave_spread() -> None:
    engine = quiet("a", "b")
    outputs = engine.step(START, Leave())
    (changed,) = only(outputs, MemberChanged)
    assert isinstance(changed, MemberChanged)
    assert (changed.member.id, changed.member.state) == (engine.id, State.LEFT)
    told = [
        decode_statement(update)
        for name, address in (("a", "10.9.0.1"), ("b", "10.9.0.2"))
        for output in outputs
        if isinstance(output, Send) and output.address[0] == address
        for update in Speaker(name).read(output.data, of="own")[1].updates
    ]
    assert [type(statement) for statement in told] == [Left, Left]
    later = []
    while not only(later, LeaveSpread):
        later += engine.step(engine.deadline or 0, Tick())
    assert (engine.deadline or 0) - START <= lan().leave_timeout_s + 11
    assert engine.step(START, Leave()) == []


def test_leaving_alone_is_spread_with_the_next_tick() -> None:
    engine = engine_of("own")
    engine.step(START, Leave())
    assert engine.step(engine.deadline or 0, Tick()) == [LeaveSpread()]


def test_who_has_left_can_join_again() -> None:
    engine = engine_of("own")
    engine.step(START, Leave())
    outputs = engine.step(START + 1, Join(seeds=()))
    assert outputs == [MemberChanged(member=engine.members()[0], previous=State.LEFT)]
    assert (engine.members()[0].state, engine.members()[0].rank) == (State.ALIVE, (1, 2))


def test_renewal_and_metadata_are_announced_one_incarnation_up_each() -> None:
    engine = engine_of("own")
    renewed = credential_of("own", issued_at=int(START) + 5)
    (first,) = engine.step(START + 9, Renewed(credential=renewed))
    (second,) = engine.step(START + 9, SetMeta(meta={"draining": True}))
    assert isinstance(first, MemberChanged)
    assert isinstance(second, MemberChanged)
    assert first.member.credential == renewed
    assert second.member.meta == {"draining": True}
    assert second.member.rank == (1, 2)


def test_metadata_too_large_is_refused_and_changes_nothing() -> None:
    engine = engine_of("own")
    with pytest.raises(LimitError):
        engine.step(START, SetMeta(meta={"k": "v" * 500}))
    assert engine.members()[0].rank == (1, 0)


def test_an_eviction_takes_the_member_out_at_once() -> None:
    engine = quiet("a", "b")
    outputs = engine.step(START, Evict(node=identity_of("a").id, reason="revoked"))
    (changed,) = only(outputs, MemberChanged)
    assert isinstance(changed, MemberChanged)
    assert (changed.member.name, changed.member.state, changed.previous) == ("a", State.DEAD, State.ALIVE)
    assert engine.step(START, Evict(node=identity_of("a").id, reason="revoked")) == []


def test_time_that_runs_backwards_is_taken_as_standing_still() -> None:
    engine = quiet("a")
    deadline = engine.deadline
    engine.step(START - 1000, LoopLag(lag_s=0.0))
    engine.step(START - 1000, Tick())
    assert engine.deadline == deadline


def test_members_are_told_with_this_node_first() -> None:
    engine = quiet("a", "b")
    assert [member.name for member in engine.members()] == ["own", "a", "b"]
    assert engine.member(engine.id) == engine.members()[0]
    assert engine.member(bytes(16)) is None


def test_objects_explain_themselves() -> None:
    engine = quiet("a")
    assert "boot 1, 2 live members" in repr(engine)
    assert "alive, 10.9.0.1:7946" in repr(engine.members()[1])
    statistics = engine.statistics()
    assert (statistics.alive, statistics.dead, statistics.health) == (2, 0, 0)
