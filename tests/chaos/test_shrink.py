"""Shrinking keeps the failure and loses the rest."""

from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.experiment import Experiment, parse
from chaos.plan import resolve
from chaos.shrink import RUNS_MAX, _nodes, _without_strangers, shrink
from chaos.swarm import draw


def say_nothing(_runs: int, _experiment: Experiment) -> None:
    """Nobody watches."""


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), data=st.data())
def test_finds_the_faults_that_matter(seed: int, data: st.DataObject) -> None:
    experiment = draw(seed)
    numbers = range(len(experiment.method))
    guilty = data.draw(st.sets(st.sampled_from(numbers), max_size=4)) if experiment.method else set()
    wanted = {experiment.method[number].at for number in guilty}
    runs = 0

    def fails(candidate: Experiment) -> bool:
        nonlocal runs
        runs += 1
        return wanted <= {event.at for event in candidate.method}

    small = shrink(experiment, fails, say_nothing)
    assert {event.at for event in small.method} == wanted
    assert small.workload.policies is None
    assert runs <= RUNS_MAX


def test_shortens_faults_and_leaves_out_nodes_nobody_names() -> None:
    text = "title: x\ntopology: {nodes: 12}\nmethod:\n- {at: 1s, for: 60s, fault: pause, pick: {nodes: [n3]}}"
    experiment = resolve(parse(text, "f.yaml"))

    def fails(candidate: Experiment) -> bool:
        (event,) = candidate.method or (None,)
        return event is not None and (event.lasts or 0) > 5

    small = shrink(experiment, fails, say_nothing)
    assert small.topology.size == 4
    assert small.method[0].lasts == 7.5


def test_what_began_after_the_violation_goes_first() -> None:
    text = (
        "title: x\ntopology: {nodes: 3}\nlasts: 90s\nmethod:\n"
        "- {at: 1s, for: 60s, fault: pause, pick: {nodes: [n1]}}\n"
        "- {at: 5s, fault: join}\n"
        "- {at: 30s, for: 60s, fault: pause, pick: {nodes: [n2]}}"
    )
    experiment, tried = resolve(parse(text, "f.yaml")), []

    def fails(candidate: Experiment) -> bool:
        tried.append(candidate)
        return len(tried) == 1

    assert shrink(experiment, fails, say_nothing, broke_s=11.5) == tried[0]
    assert [(event.at, event.lasts) for event in tried[0].method] == [(1, 10.5), (5, None)]
    assert tried[0].timeline_s == 11.5


def test_a_newcomer_whose_join_is_left_out_is_left_out_of_all_else() -> None:
    text = (
        "title: x\ntopology: {nodes: 3}\nmethod:\n- {at: 1s, fault: join}\n"
        "- {at: 5s, for: 60s, fault: pause, pick: {nodes: [n2, n3]}}\n"
        "- {at: 6s, for: 60s, fault: pause, pick: {nodes: [n3]}}\n"
        "- {at: 7s, for: 60s, fault: partition, groups: [[n0, n1, n2], [n3]]}\n"
        "- {at: 8s, for: 60s, fault: loss, share: 1, pick: {nodes: [n0]}, to: [n3]}\n"
        "- {at: 9s, for: 60s, fault: loss, share: 1, pick: {nodes: [n0]}, to: [n2, n3]}"
    )
    experiment = resolve(parse(text, "f.yaml"))
    small = shrink(
        experiment, lambda each: not any(e.inject.fault == "join" for e in each.method), say_nothing
    )
    assert small.method == ()
    left = _without_strangers(experiment, experiment.method[1:])
    assert [event.at for event in left] == [5, 9]
    assert [list(_nodes(event)) for event in left] == [["n2"], ["n0", "n2"]]


def test_gives_up_after_so_many_runs() -> None:
    runs = 0

    def fails(_candidate: Experiment) -> bool:
        nonlocal runs
        runs += 1
        return runs % 7 == 0

    shrink(draw(3), fails, say_nothing)
    assert runs <= RUNS_MAX
