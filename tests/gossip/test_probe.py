import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest

from gossip.member import State
from gossip.probe import Probe, Probes, Purpose, Relay, Rotation, RoundRobin, shift
from gossip.roster import Roster
from tests.gossip.test_roster import census_of, entry_of, roster_of
from tests.gossip.world import identity_of

M0, M1, M2 = (entry_of(f"m{index}").member for index in range(3))


def probes_of(**limits: int) -> Probes:
    return Probes(**({"probes_max": 8, "relays_max": 8} | limits), rng=random.Random(1))


def started(probes: Probes) -> Probe:
    probe = probes.start(M0, Purpose.ROUND, begun_at=0.0, asks_at=0.5, ends_at=1.0)
    assert probe is not None
    return probe


def relay_of(target: bytes = M0.id, *, nack_at: float = 0.4) -> Relay:
    return Relay(
        target=target,
        requester=M1.id,
        reply_to=("10.0.0.1", 1),
        reply_bytes_max=100,
        sequence=7,
        nack_at=nack_at,
        ends_at=1.0,
    )


def test_each_member_is_probed_once_in_each_round_of_the_list() -> None:
    roster, rng, order = roster_of(7), random.Random(5), RoundRobin()
    for _ in range(4):
        seen = Counter(entry.member.id for entry in (order.next(roster, rng) for _ in range(7)) if entry)
        assert set(seen.values()) == {1}
        assert len(seen) == 7


def test_rounds_are_shuffled_anew() -> None:
    roster, rng, order = roster_of(7), random.Random(5), RoundRobin()
    rounds = {
        tuple(entry.member.id for entry in (order.next(roster, rng) for _ in range(7)) if entry)
        for _ in range(5)
    }
    assert len(rounds) > 1


def test_a_newcomer_is_probed_within_the_present_round() -> None:
    for seed in range(20):
        roster, rng, order = roster_of(6), random.Random(seed), RoundRobin()
        order.next(roster, rng)
        newcomer = entry_of("newcomer")
        roster.add(newcomer)
        assert newcomer in [order.next(roster, rng) for _ in range(6)]


def test_after_members_were_forgotten_a_new_round_begins() -> None:
    roster, rng, order = roster_of(8), random.Random(3), RoundRobin()
    for _ in range(3):
        order.next(roster, rng)
    for name in ("m0", "m1", "m2"):
        roster.remove(identity_of(name).id)
    assert len({entry.member.id for entry in (order.next(roster, rng) for _ in range(5)) if entry}) == 5


def test_the_dead_are_not_probed_and_nobody_is_when_nobody_lives() -> None:
    roster, rng, order = roster_of(2), random.Random(5), RoundRobin()
    for entry in list(roster.entries()):
        roster.change(entry, replace(entry.member, state=State.DEAD))
    assert order.next(roster, rng) is None
    rotation = Rotation(identity_of("own").id, 1.0)
    rotation.plan(5.0, roster)
    assert rotation.next(roster) is None


def views(count: int) -> dict[bytes, Roster]:
    """The same `count` members as each of them sees the others."""
    census = census_of(count)
    return {node: Roster(own=node, members_max=10_000, census=census) for node in census.ids}


@pytest.mark.parametrize("count", [2, 3, 10, 64])
def test_in_every_epoch_everybody_is_probed_by_exactly_one_other(count: int) -> None:
    rosters = views(count)
    for epoch in range(1_700_000_000, 1_700_000_020):
        targets = {node: Rotation(node, 1.0).target(epoch, roster) for node, roster in rosters.items()}
        assert set(targets.values()) == set(rosters)
        assert all(node != target for node, target in targets.items())


@pytest.mark.parametrize("count", [2, 3, 10, 37])
def test_each_pair_meets_once_in_each_cycle(count: int) -> None:
    for cycle in (0, 1, 12_345):
        epochs = range(cycle * (count - 1), (cycle + 1) * (count - 1))
        assert sorted(shift(epoch, count) for epoch in epochs) == list(range(1, count))


def test_a_member_is_probed_every_interval_to_the_second() -> None:
    rosters = views(20)
    probed: dict[bytes, list[float]] = {node: [] for node in rosters}
    for node, roster in rosters.items():
        rotation, now = Rotation(node, 2.0), 1_700_000_000.3
        while now < 1_700_000_060.0:
            now = rotation.plan(now, roster)
            target = rotation.next(roster)
            assert target is not None
            probed[target.member.id].append(now)
    for times in probed.values():
        settled = sorted(times)[2:-2]
        assert {round(later - earlier, 6) for earlier, later in itertools.pairwise(settled)} == {2.0}


def test_one_member_more_in_some_views_costs_few_their_probe() -> None:
    rosters = views(100)
    gone = identity_of("m50").id
    for node in list(rosters)[:50]:
        if node != gone:
            entry = rosters[node].get(gone)
            assert entry is not None
            rosters[node].change(entry, replace(entry.member, state=State.DEAD))
    probed = []
    for epoch in range(50):
        targets = {Rotation(node, 1.0).target(epoch, roster) for node, roster in rosters.items()}
        probed.append(len(targets))
    assert sum(probed) / len(probed) > 70  # a random order reaches 63 of 100


def test_a_pause_costs_the_epochs_it_took_and_no_burst_follows() -> None:
    (node, roster), *_ = views(5).items()
    rotation = Rotation(node, 1.0)
    rotation.plan(1000.0, roster)
    at = rotation.plan(2000.5, roster)
    assert 2000.5 <= at < 2002.0
    assert rotation.plan(at, roster) > at


def test_one_probe_per_target_and_a_bound_on_all() -> None:
    probes = probes_of(probes_max=2)
    started(probes)
    assert probes.start(M0, Purpose.WITNESS, begun_at=0.0, asks_at=0.5, ends_at=1.0) is None
    assert probes.start(M1, Purpose.ROUND, begun_at=0.0, asks_at=0.5, ends_at=1.0) is not None
    assert probes.start(M2, Purpose.ROUND, begun_at=0.0, asks_at=0.5, ends_at=1.0) is None
    assert len(probes) == 2


def test_only_the_target_or_a_relay_asked_can_end_a_probe() -> None:
    probes = probes_of()
    probe = started(probes)
    assert probes.finish(probe.sequence, sender=M1.id) is None
    assert probes.finish(probe.sequence + 1, sender=M0.id) is None
    probe.asked = (M1.id,)
    assert probes.finish(probe.sequence, sender=M1.id) is probe
    assert probes.finish(probe.sequence, sender=M1.id) is None


def test_a_probe_asks_once_and_then_fails_once() -> None:
    probes = probes_of()
    probe = started(probes)
    assert probes.deadline == 0.5
    assert probes.asking(0.4) == []
    assert probes.asking(0.5) == [probe]
    assert probes.asking(0.6) == []
    assert probes.deadline == 1.0
    assert probes.failed(0.9) == []
    assert probes.failed(1.0) == [probe]
    assert probes.deadline is None


def test_nacks_count_once_and_only_from_relays_asked() -> None:
    probes = probes_of()
    probe = started(probes)
    probe.asked = (M1.id,)
    for sender in (M1.id, M1.id, M2.id):
        probes.nack(probe.sequence, sender=sender)
    assert probe.nacked == (M1.id,)


def test_a_relayed_probe_is_answered_by_its_target_only() -> None:
    probes = probes_of()
    relay = relay_of()
    sequence = probes.relay(relay)
    assert sequence is not None
    assert probes.finish_relay(sequence, sender=M2.id) is None
    assert probes.finish_relay(sequence, sender=M0.id) is relay
    assert probes.finish_relay(sequence, sender=M0.id) is None


def test_a_relay_nacks_once_then_forgets() -> None:
    probes = probes_of()
    relay = relay_of()
    probes.relay(relay)
    assert probes.deadline == 0.4
    assert probes.nacks_due(0.4) == [relay]
    assert probes.nacks_due(0.5) == []
    assert probes.deadline == 1.0
    assert probes.nacks_due(1.0) == []
    assert probes.deadline is None


def test_relays_are_bounded() -> None:
    probes = probes_of(relays_max=2)
    assert [probes.relay(relay_of()) is not None for _ in range(3)] == [True, True, False]


def test_time_this_node_did_not_run_is_added() -> None:
    probes = probes_of()
    started(probes)
    probes.delay(3.0)
    assert probes.deadline == 3.5


def test_sequence_numbers_wrap_and_skip_those_in_use() -> None:
    probes = probes_of()
    probes._sequence = 2**32 - 2
    first = started(probes)
    second = probes.start(M1, Purpose.ROUND, begun_at=0.0, asks_at=0.5, ends_at=1.0)
    assert second is not None
    assert (first.sequence, second.sequence) == (2**32 - 1, 0)
    probes._sequence = 2**32 - 2
    third = probes.start(M2, Purpose.ROUND, begun_at=0.0, asks_at=0.5, ends_at=1.0)
    assert third is not None
    assert third.sequence == 1
    assert identity_of("m2").id == third.target
