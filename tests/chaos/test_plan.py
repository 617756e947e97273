"""Choices: drawn once, from the seed, each by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.experiment import Experiment, ExperimentError, parse
from chaos.fault import Partition
from chaos.plan import Moment, moments, resolve
from chaos.words import nodes_of


def experiment(method: str, topology: str = "{nodes: 9}", seed: int = 1) -> Experiment:
    return parse(f"title: x\nseed: {seed}\ntopology: {topology}\nmethod:\n{method}", "f.yaml")


SHAPES = ("halves", "one", "third", "bridge", "majorities-ring", "one-way", "deaf")


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=st.integers(0, 2**32), nodes=st.integers(5, 30))
def test_groups_of_a_partition_are_all_nodes_each_once(shape: str, seed: int, nodes: int) -> None:
    resolved = resolve(
        experiment(f"- {{at: 1s, fault: partition, shape: {shape}}}", f"{{nodes: {nodes}}}", seed)
    )
    (event,) = resolved.method
    assert isinstance(event.inject, Partition)
    flat = [name for group in event.inject.groups for name in group]
    assert sorted(flat) == sorted(resolved.topology.names)
    assert all(event.inject.groups)


@given(seed=st.integers(0, 2**32))
def test_resolving_twice_is_resolving_once(seed: int) -> None:
    method = "".join(f"- {{at: 1s, for: 1s, fault: partition, shape: {shape}}}\n" for shape in SHAPES)
    once = resolve(experiment(method + "- {at: 2s, fault: kill, pick: {share: 30%}}", seed=seed))
    assert resolve(once) == once


def test_a_fault_more_changes_no_other_choice() -> None:
    kill = "- {at: 1s, fault: kill}\n"
    one = resolve(experiment(kill * 3))
    more = resolve(experiment(kill * 4))
    assert more.method[:3] == one.method


def test_seeds_choose_differently() -> None:
    chosen = {
        nodes_of(resolve(experiment("- {at: 1s, fault: kill}", seed=seed)).method[0]) for seed in range(60)
    }
    assert len(chosen) == 9


@pytest.mark.parametrize(
    ("pick", "count"),
    [
        ("{}", 1),
        ("{count: 3}", 3),
        ("{share: 50%}", 4),
        ("{all: true}", 9),
        ("{nodes: [n1, n5]}", 2),
        ("{nodes: [n1, n5, n6], count: 1}", 1),
        ("{all: true, but: [n0]}", 8),
        ("{signers: true}", 1),
    ],
)
def test_picks_so_many(pick: str, count: int) -> None:
    resolved = resolve(experiment(f"- {{at: 1s, fault: kill, pick: {pick}}}"))
    assert len(nodes_of(resolved.method[0])) == count


def test_a_zone_is_its_nodes() -> None:
    resolved = resolve(
        experiment("- {at: 1s, fault: kill, pick: {zone: b}}", "{zones: {a: 2, b: 3}}"),
    )
    assert nodes_of(resolved.method[0]) == ("n2", "n3", "n4")


def test_a_newcomer_can_be_picked_once_it_is_there() -> None:
    joined = "- {at: 5s, fault: join, count: 2}\n"
    late = resolve(experiment(joined + "- {at: 6s, fault: pause, pick: {all: true}}"))
    early = resolve(experiment(joined + "- {at: 4s, fault: pause, pick: {all: true}}"))
    assert len(nodes_of(late.method[1])) == 11
    assert len(nodes_of(early.method[1])) == 9


@pytest.mark.parametrize("pick", ["{count: 10}", "{nodes: [n1], but: [n1]}"])
def test_says_when_nobody_can_be_picked(pick: str) -> None:
    with pytest.raises(ExperimentError, match=r"f\.yaml: method\[0\]\.pick"):
        resolve(experiment(f"- {{at: 1s, fault: kill, pick: {pick}}}"), source="f.yaml")


def test_what_ends_goes_before_what_begins() -> None:
    method = experiment("- {at: 1s, for: 2s, fault: kill}\n- {at: 3s, fault: kill}").method
    assert moments(method) == [Moment(1.0, 0, True), Moment(3.0, 0, False), Moment(3.0, 1, True)]
