import itertools
from dataclasses import replace

from gossip.config import lan
from gossip.contact import URGENT_ATTEMPTS
from gossip.engine import Engine
from gossip.events import Datagram, LoopLag, MemberChanged, Output, RequestSync, Send, Tick
from gossip.member import State
from gossip.message import Message, Nack, Ping, PingRequest
from gossip.probe import Probe, Purpose
from gossip.statement import Suspect, decode_statement
from tests.gossip.test_conversation import only, quiet
from tests.gossip.world import START, Speaker, ack, engine_of, identity_of, ping_request, suspicion

NAMES = ["t", "a", "b", "c"]
ENDS_S = lan().probe_timeout_s * (1 + lan().indirect_timeout_mult)  # of a probe, while no round trip is known
ADDRESS = {name: (f"10.9.0.{index + 1}", 7946) for index, name in enumerate(NAMES)}


def probing(*names: str) -> tuple[Engine, Probe]:
    """An engine that has just begun to probe `t`, all other clockwork far away."""
    engine = quiet(*names)
    clockwork = engine._clockwork
    clockwork._probe_at = clockwork._gossip_at = clockwork._push_pull_at = clockwork._reap_at = START + 1e6
    entry = engine._parts.roster.get(identity_of("t").id)
    assert entry is not None
    probe = engine._parts.probe(START, entry, Purpose.ROUND)
    assert probe is not None
    engine._parts.out.clear()
    engine.deadline = clockwork.deadline  # as after a step
    return engine, probe


def messages(outputs: list[Output], name: str) -> list[Message]:
    reader = Speaker(name)
    return [
        reader.read(output.data, of="own")[1].message
        for output in outputs
        if isinstance(output, Send) and output.address == ADDRESS[name]
    ]


def test_a_ping_unanswered_is_sent_again_relayed_and_tried_by_stream() -> None:
    engine, probe = probing(*NAMES)
    assert engine.deadline == START + 0.5
    outputs = engine.step(START + 0.5, Tick())
    (again,) = messages(outputs, "t")
    assert isinstance(again, Ping)
    assert again.sequence == probe.sequence
    for relay in "abc":
        (request,) = messages(outputs, relay)
        assert isinstance(request, PingRequest)
        assert (request.sequence, request.target) == (probe.sequence, identity_of("t").id)
    assert RequestSync(address=ADDRESS["t"], node=identity_of("t").id, reason="no answer to pings") in outputs


def test_the_second_ping_introduces_this_node_in_case_it_was_forgotten() -> None:
    engine, _ = probing(*NAMES)
    entry = engine._parts.roster.get(identity_of("t").id)
    assert entry is not None
    entry.link.knows_us = True
    outputs = engine.step(START + 0.5, Tick())
    (again,) = [o for o in outputs if isinstance(o, Send) and o.address == ADDRESS["t"]]
    assert Speaker("t").read(again.data, of="own")[0].introduction == engine._parts.presence.encoded


def test_a_probe_that_fails_makes_a_suspect_at_its_end() -> None:
    engine, _ = probing(*NAMES)
    engine.step(START + 0.5, Tick())
    assert engine.deadline == START + ENDS_S
    outputs = engine.step(START + ENDS_S, Tick())
    (changed,) = only(outputs, MemberChanged)
    assert isinstance(changed, MemberChanged)
    assert (changed.member.name, changed.member.state) == ("t", State.SUSPECT)


def test_a_relayed_ack_saves_the_target() -> None:
    engine, probe = probing(*NAMES)
    engine.step(START + 0.5, Tick())
    engine.step(START + 0.7, Speaker("b").datagram("own", ack(probe.sequence)))
    assert only(engine.step(START + ENDS_S, Tick()), MemberChanged) == []


def test_better_news_during_the_probe_saves_the_target() -> None:
    engine, _ = probing(*NAMES)
    engine.step(START + 0.5, Tick())
    engine._parts.judge.hear(START + 0.6, Speaker("t", address=ADDRESS["t"]).alive(incarnation=1))
    assert only(engine.step(START + ENDS_S, Tick()), MemberChanged) == []


def test_missing_nacks_lower_the_trust_in_this_node_and_nacks_keep_it() -> None:
    for nackers, score in (("", 3), ("a", 2), ("abc", 0)):
        engine, probe = probing(*NAMES)
        engine.step(START + 0.5, Tick())
        for name in nackers:
            engine.step(START + 0.9, Speaker(name).datagram("own", Nack(sequence=probe.sequence)))
        engine.step(START + ENDS_S, Tick())
        assert engine.statistics().health == score


def test_with_no_relays_a_failed_probe_costs_one_point() -> None:
    engine, _ = probing("t")
    engine.step(START + 0.5, Tick())
    engine.step(START + ENDS_S, Tick())
    assert engine.statistics().health == 1


def test_a_relay_nacks_in_time() -> None:
    engine, asker = quiet("t", "a"), Speaker("a", address=ADDRESS["a"])
    request = ping_request(5, identity_of("t").id)
    engine.step(START, Datagram(source=asker.address, data=asker.say("own", request)))
    outputs: list[Output] = []
    while (now := engine.deadline or 0) <= START + 0.4:
        outputs += engine.step(now, Tick())
    assert Nack(sequence=5) in messages(outputs, "a")


def test_a_zone_whose_round_trips_were_measured_is_waited_for_no_longer_than_they_say() -> None:
    engine, probe = probing(*NAMES)
    engine.step(START + 0.01, Speaker("t", address=ADDRESS["t"]).datagram("own", ack(probe.sequence)))
    entry = engine._parts.roster.get(identity_of("t").id)
    assert entry is not None
    again = engine._parts.probe(START + 1, entry, Purpose.ROUND)
    assert again is not None
    floor_s = lan().probe_timeout_s_min
    assert again.asks_at == START + 1 + floor_s < START + 1 + lan().probe_timeout_s
    assert again.ends_at == START + 1 + floor_s * (1 + lan().indirect_timeout_mult)


def test_doubt_stretches_both_stages_of_a_probe() -> None:
    engine = quiet(*NAMES)
    engine._parts.health.adjust(2)
    entry = engine._parts.roster.get(identity_of("t").id)
    assert entry is not None
    probe = engine._parts.probe(START, entry, Purpose.ROUND)
    assert probe is not None
    assert (probe.asks_at, probe.ends_at) == (START + 3 * lan().probe_timeout_s, START + 3 * ENDS_S)


def test_a_late_tick_counts_against_this_node_and_not_against_the_target() -> None:
    engine, _ = probing(*NAMES)
    outputs = engine.step(START + 30.0, Tick())
    assert only(outputs, MemberChanged) == []
    assert engine.statistics().health == 1
    assert engine.deadline == START + 30.0 + lan().probe_timeout_s


def test_lag_told_by_the_driver_and_by_the_tick_counts_once() -> None:
    engine, _ = probing(*NAMES)
    engine.step(START + 30.0, LoopLag(lag_s=29.5))
    before = engine.deadline
    engine.step(START + 30.0, LoopLag(lag_s=29.5))
    assert (engine.statistics().health, engine.deadline) == (1, before)


def test_lag_too_small_to_matter_changes_nothing() -> None:
    engine, _ = probing(*NAMES)
    engine.step(START + 0.1, LoopLag(lag_s=0.1))
    assert (engine.statistics().health, engine.deadline) == (0, START + 0.5)


def test_constant_lag_delays_verdicts_but_does_not_stop_time() -> None:
    engine = quiet("t", "a")
    engine._parts.judge.hear(START, suspicion("a", "t"))
    now = START
    for _ in range(1000):
        now += 0.5
        engine.step(now, LoopLag(lag_s=0.3))
        if (
            engine._parts.judge.suspicions.deadline is not None
            and engine._parts.judge.suspicions.deadline <= now
        ):
            break
    assert START + 24 < now < START + 24 * 6


def test_a_paused_node_does_not_condemn_on_waking() -> None:
    engine = quiet("t", "a", "b")
    engine._parts.judge.hear(START, suspicion("a", "t"))
    engine.step(START + 3600, Tick())
    member = engine.member(identity_of("t").id)
    assert member is not None
    assert member.state is State.SUSPECT


def test_an_idle_engine_alone_sleeps_until_it_reaps() -> None:
    engine = engine_of("own")
    assert engine.deadline == START + 10
    assert engine.step(START + 10, Tick()) == []
    assert engine.deadline == START + 20


def test_each_tick_moves_the_deadline_forward() -> None:
    engine = quiet(*NAMES)
    now = START
    for _ in range(500):
        deadline = engine.deadline
        assert deadline is not None
        assert deadline > now
        now = deadline
        engine.step(now, Tick())
        assert (engine.deadline or now) > now


def test_seeds_are_tried_for_ever_at_a_capped_rate_until_a_live_member_has_the_address() -> None:
    engine = engine_of("own")
    engine._parts.seeds.add(("10.9.0.1", 7946), START)
    asked = []
    while (now := engine.deadline or 0) < START + 3600:
        asked += [now for output in engine.step(now, Tick()) if isinstance(output, RequestSync)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert max(gaps[:15]) <= 2.0  # nobody is known yet: the seed may just be busy with others who start too
    assert 25 < max(gaps[-50:]) < 32
    assert len(asked) < 3600 / 20 + URGENT_ATTEMPTS
    engine._parts.judge.hear(now, Speaker("t", address=("10.9.0.1", 7946)).alive())
    engine._clockwork._push_pull_at = now + 1e6
    seeds = []
    for incarnation in range(1, 200):
        engine._parts.judge.hear(now, Speaker("t", address=("10.9.0.1", 7946)).alive(incarnation=incarnation))
        now = engine.deadline or 0
        outputs = engine.step(now, Tick())
        seeds += [output for output in outputs if isinstance(output, RequestSync) and output.reason == "seed"]
    assert now > asked[-1] + 30
    assert seeds == []


def accusing(**settings: bool) -> Engine:
    """An engine that has just accused `t`, and whose own probe rounds are far away."""
    engine = quiet(*NAMES, config=replace(lan(), suspicion_max_mult=1e3, **settings))
    clockwork = engine._clockwork
    clockwork._probe_at = clockwork._gossip_at = clockwork._push_pull_at = clockwork._reap_at = START + 1e6
    entry = engine._parts.roster.get(identity_of("t").id)
    assert entry is not None
    assert engine._parts.probe(START, entry, Purpose.ROUND) is not None
    engine.step(START + 0.5, Tick())
    engine.step(START + ENDS_S, Tick())
    assert entry.member.state is State.SUSPECT
    return engine


def recalls(engine: Engine, until: float) -> list[float]:
    """When `t` is pinged again, told each time that it is suspected."""
    at, reader = [], Speaker("t")
    while (now := engine.deadline) < until:
        for output in engine.step(now, Tick()):
            if isinstance(output, Send) and output.address == ADDRESS["t"]:
                body = reader.read(output.data, of="own")[1]
                if isinstance(body.message, Ping):
                    told = [decode_statement(update) for update in body.updates]
                    assert any(isinstance(s, Suspect) and s.subject == identity_of("t").id for s in told)
                    at.append(now - START)
    return at


def test_a_suspect_of_this_nodes_own_is_asked_again_ever_more_rarely() -> None:
    at = recalls(accusing(), START + 60)
    assert 3 <= len(at) <= 6  # after about 2, 2, 4, 8 (a stream), 16 s
    assert ENDS_S + 1.0 < at[0] < ENDS_S + 2.1
    assert recalls(accusing(recall=False), START + 60) == []


def test_who_refutes_is_asked_no_more_and_a_verdict_begins_anew() -> None:
    engine = accusing()
    engine._parts.judge.hear(START + 2, Speaker("t", address=ADDRESS["t"]).alive(incarnation=1))
    engine.step(START + 2, Tick())
    assert len(engine._parts.silent) == 0
    engine = accusing()
    recalls(engine, START + 30)
    (suspect,) = engine._parts.judge.suspicions.entries()
    engine._parts.judge.accusations.condemn(START + 30, suspect)
    engine.step(START + 30, LoopLag(lag_s=0.0))
    assert engine._parts.silent.deadline == START + 30 + lan().contact_backoff_s


def test_an_unanswered_recall_says_nothing_of_this_node() -> None:
    engine = accusing()
    before = engine.statistics().health
    recalls(engine, START + 60)
    assert engine.statistics().health == before
