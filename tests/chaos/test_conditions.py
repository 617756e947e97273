"""What stands between two nodes: worked out for each direction from all that stands."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.conditions import CLEAR, NETWORK, Path, paths, swizzled
from chaos.drivers.fabric import Router
from chaos.drivers.switch import IP_HEADER_BYTES, Fate, Way, damaged, ports
from chaos.experiment import Experiment, parse
from chaos.fault import Pick, Swizzle
from chaos.plan import resolve

NAMES = tuple(f"n{index}" for index in range(5))


def standing(method: str, topology: str = "{nodes: 5}") -> dict[tuple[str, str], Path]:
    experiment: Experiment = resolve(parse(f"title: x\ntopology: {topology}\nmethod:{method}", "f.yaml"))
    return paths(
        experiment.topology.names,
        experiment.topology,
        {
            number: event.inject
            for number, event in enumerate(experiment.method)
            if isinstance(event.inject, NETWORK)
        },
    )


def test_nothing_stands_where_nothing_was_done() -> None:
    assert standing(" []") == {}


@pytest.mark.parametrize(
    ("shape", "groups", "cut"),
    [
        ("halves", "[[n0, n1], [n2, n3, n4]]", {("n0", "n2"), ("n4", "n1")}),
        ("bridge", "[[n0, n1], [n2, n3], [n4]]", {("n0", "n3"), ("n3", "n0")}),
        ("one-way", "[[n0], [n1, n2, n3, n4]]", {("n0", "n1"), ("n0", "n4")}),
        ("deaf", "[[n0], [n1, n2, n3, n4]]", {("n1", "n0"), ("n4", "n0")}),
    ],
)
def test_partitions_cut_the_ways_they_say(shape: str, groups: str, cut: set[tuple[str, str]]) -> None:
    found = standing(f"\n- {{at: 0s, fault: partition, shape: {shape}, groups: {groups}}}")
    assert cut <= set(found)
    open_ways = (
        {("n4", "n0"), ("n4", "n3")} if shape == "bridge" else {("n1", "n0")} if shape == "one-way" else set()
    )
    assert not open_ways & set(found)
    assert all(path == Path(cut=True) for path in found.values())


def test_losses_multiply_and_delays_add() -> None:
    found = standing(
        "\n- {at: 0s, fault: loss, share: 50%}\n"
        "- {at: 0s, fault: loss, share: 50%, direction: in, pick: {nodes: [n1]}}\n"
        "- {at: 0s, fault: delay, delay: 1s, pick: {nodes: [n2]}}\n"
        "- {at: 0s, fault: delay, delay: 2s, jitter: 1s, pick: {nodes: [n2]}}"
    )
    assert found["n0", "n1"].loss == pytest.approx(0.75)
    assert found["n0", "n3"].loss == pytest.approx(0.5)
    assert (found["n2", "n0"].delay_s, found["n2", "n0"].jitter_s) == (3.0, 1.0)
    assert found["n0", "n2"].delay_s == 0


def test_zones_are_as_far_apart_as_their_link_says() -> None:
    found = standing(" []", "{zones: {a: 2, b: 2}, links: [{between: [a, b], delay: 10ms, loss: 1%}]}")
    assert set(found) == {(one, other) for one in NAMES[:2] for other in NAMES[2:4]} | {
        (one, other) for one in NAMES[2:4] for other in NAMES[:2]
    }
    assert found["n0", "n2"] == Path(delay_s=0.01, loss=pytest.approx(0.01))


@given(st.integers(1, 9), st.floats(0.1, 10), st.floats(1, 100), st.randoms())
def test_swizzling_gives_back_what_it_takes_within_its_time(
    count: int, every: float, lasts_s: float, rng: random.Random
) -> None:
    names = tuple(f"n{index}" for index in range(count))
    fault = Swizzle(every=every, pick=Pick(nodes=names))
    changes = sorted(swizzled(fault, lasts_s, rng.sample(names, count)))
    assert len(changes) == 2 * count
    assert all(0 <= at_s <= lasts_s for at_s, _, _ in changes)
    for name in names:
        gone, back = (
            next(at for at, who, off in changes if who == name and off is want) for want in (True, False)
        )
        assert gone < back or gone == pytest.approx(back)


# ------------------------------------------------------------------ the packet filter


def test_rules_name_addresses_ports_and_shares() -> None:
    rules = Router("gsmx", 5).rules(
        {
            ("n0", "n1"): Path(cut=True, loss=0.5),
            ("n0", "n2"): Path(cut_control=True),
            ("n0", "n3"): Path(cut_data=True, loss=0.125),
        }
    )
    lines = [line.strip() for line in rules.splitlines() if line.startswith("    ip")]
    start = "ip saddr 10.211.0.1 ip daddr 10.211.0."
    assert lines == [
        f"{start}2 drop",
        f"{start}3 th dport 7946 drop",
        f"{start}3 th sport 7946 drop",
        f"{start}4 th dport 15006 drop",
        f"{start}4 th sport 15006 drop",
        f"{start}4 numgen random mod 100000 < 12500 drop",
    ]


# ------------------------------------------------------------------ the switch


def packet(size: int = 100, *, port: int = 7946, protocol: int = 17) -> bytes:
    header = bytes([0x45, 0]) + struct.pack("!H", size) + bytes(5) + bytes([protocol]) + bytes(10)
    return header + struct.pack("!HH", 40_000, port) + bytes(size - 24)


def fates(path: Path, count: int = 4000, *, each: bytes | None = None) -> list[list[tuple[float, bytes]]]:
    fate = Fate(random.Random(1), {("a", "b"): Way(path)})
    return [fate.of("a", "b", packet() if each is None else each, number * 0.001) for number in range(count)]


def test_a_clear_path_passes_everything_at_once() -> None:
    assert fates(CLEAR, 3) == [[(0.0, packet())]] * 3


def test_loses_the_share_it_should() -> None:
    lost = sum(not copies for copies in fates(Path(loss=0.3)))
    assert lost / 4000 == pytest.approx(0.3, abs=0.03)


def test_loses_in_runs_of_the_mean_length_it_should() -> None:
    lost = [not copies for copies in fates(Path(loss=0.2, burst=8.0), 40_000)]
    runs = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / len(lost) == pytest.approx(0.2, abs=0.03)
    assert sum(lost) / runs == pytest.approx(8, rel=0.2)


def test_everything_is_lost_where_all_is() -> None:
    assert not any(fates(Path(loss=1.0), 100))
    assert not any(fates(Path(loss=1.0, burst=5.0), 100))
    assert not any(fates(Path(cut=True), 100))


def test_cuts_by_port() -> None:
    assert not any(fates(Path(cut_control=True), 10))
    assert all(fates(Path(cut_control=True), 10, each=packet(port=15006, protocol=6)))
    assert not any(fates(Path(cut_data=True), 10, each=packet(port=15006, protocol=6)))
    assert all(fates(Path(cut_data=True), 10, each=packet(port=7946, protocol=1)))  # no ports in ICMP


def test_delays_by_base_and_jitter() -> None:
    waits = [copies[0][0] for copies in fates(Path(delay_s=0.1, jitter_s=0.05))]
    assert min(waits) >= 0.1
    assert max(waits) <= 0.15
    assert max(waits) - min(waits) > 0.04


def test_duplicates_and_replays() -> None:
    assert sum(len(copies) == 2 for copies in fates(Path(duplicate=0.5))) / 4000 == pytest.approx(
        0.5, abs=0.05
    )
    late = [copies[1][0] for copies in fates(Path(replay=1.0), 100)]
    assert min(late) >= 1


def test_damage_changes_one_byte_behind_the_header() -> None:
    for copies in fates(Path(corrupt=1.0), 200):
        ((_, changed),) = copies
        assert changed[:IP_HEADER_BYTES] == packet()[:IP_HEADER_BYTES]
        assert sum(one != other for one, other in zip(changed, packet(), strict=True)) == 1


def test_a_bandwidth_delays_and_drops_what_is_too_much() -> None:
    copies = fates(Path(bytes_per_s=10_000), 4000)  # 100 bytes every millisecond are ten times too much
    passed = [each[0][0] for each in copies if each]
    assert len(passed) == pytest.approx(600, abs=30)  # 4 s of 100 packets a second, and two seconds' queue
    assert max(passed) <= 2.0


@given(st.binary(min_size=20, max_size=64), st.randoms())
def test_never_breaks_on_a_packet(data: bytes, rng: random.Random) -> None:
    assert len(ports(data)) in (0, 2)
    assert len(damaged(data, rng)) == len(data)
