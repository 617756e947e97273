"""Files of experiments: what is read is what was meant, and what is wrong is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.experiment import Experiment, ExperimentError, dump, parse
from chaos.fault import Kill, Loss, Partition, Shape
from chaos.swarm import draw
from chaos.values import written_s
from peer.units import parse_duration_s

WHOLE = """
title: Everything at once
topology:
  zones: {east: 2, west: 3}
  links: [{between: [east, west], delay: 20ms}]
  services: [{name: echo, on: [n1]}]
workload:
  policies: {every: 1s, deletes: 10%}
  requests: [{service: echo, from: [n0], rate: 5}]
method:
  - {at: 5s, for: 1m30s, fault: partition, shape: bridge}
  - {at: 6s, for: 500ms, fault: loss, share: 30%, pick: {zone: west}}
  - {at: 7s, fault: kill, keeps: identity}
steady-state-hypothesis:
  within: 10s
  invariants: [views-agree]
  bounds: {heals: 5s, false-positives: 0}
"""


def test_reads_what_was_written() -> None:
    experiment = parse(WHOLE, "whole.yaml")
    first, second, third = experiment.method
    assert isinstance(first.inject, Partition)
    assert first.inject.shape is Shape.BRIDGE
    assert (first.at, first.ends) == (5.0, 95.0)
    assert isinstance(second.inject, Loss)
    assert second.inject.share == pytest.approx(0.3)
    assert isinstance(third.inject, Kill)
    assert experiment.topology.names == ("n0", "n1", "n2", "n3", "n4")
    assert [experiment.topology.zone_of(index) for index in (1, 2)] == ["east", "west"]
    assert experiment.timeline_s == 95.0


def test_what_is_dumped_is_read_back_the_same() -> None:
    experiment = parse(WHOLE, "whole.yaml")
    assert parse(dump(experiment), "again") == experiment


@given(st.integers(0, 10_000))
def test_every_drawn_experiment_is_read_back_the_same(seed: int) -> None:
    experiment = draw(seed)
    assert parse(dump(experiment), "again") == experiment


@given(st.floats(0, 2_000_000).map(lambda value: round(value, 3)))
def test_a_written_duration_is_read_back_the_same(seconds: float) -> None:
    assert parse_duration_s(written_s(seconds)) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("shape: bridge", "shap: bridge"), "f.yaml: method[0].shap: unknown field"),
        (("fault: partition", "fault: patition"), "f.yaml: method[0]: input tag 'patition' found"),
        (("at: 5s", "at: 5x"), "f.yaml: method[0].at: '5x' is not a duration"),
        (("share: 30%", "share: 130%"), "f.yaml: method[1].share: '130%' is not a percentage"),
        (("zone: west", "zone: south"), "method[1]: there is no zone 'south'"),
        (("{zone: west}", "{nodes: [n9]}"), "method[1]: 'n9' is no node: they are n0 to n4"),
        (("{zone: west}", "{zone: west, all: true}"), "say the same thing"),
        (("from: [n0]", "from: []"), "f.yaml: workload.requests[0].from: must not be empty"),
        (("service: echo", "service: cart"), "there is no service 'cart'"),
        (("on: [n1]", "on: [n7]"), "echo runs on 'n7', which is no node"),
        (("[east, west]", "[east, north]"), "there is no zone 'north'"),
        (("title: Everything at once", "titel: x"), "f.yaml: title: is required"),
        (("views-agree", "views-agee"), "f.yaml: steady-state-hypothesis.invariants[0]"),
        (("{east: 2, west: 3}", "{east: 1}"), "a mesh has at least 2 nodes"),
    ],
)
def test_names_file_and_field(change: tuple[str, str], words: str) -> None:
    assert change[0] in WHOLE
    with pytest.raises(ExperimentError) as caught:
        parse(WHOLE.replace(*change), "f.yaml")
    assert any(words in line for line in caught.value.lines), caught.value.lines
    assert all(line.startswith("f.yaml: ") for line in caught.value.lines)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "title: x\n---\ntitle: y", "title: x\ntitle: y"])
def test_refuses_what_is_no_mapping(text: str) -> None:
    with pytest.raises(ExperimentError, match=r"f\.yaml"):
        parse(text, "f.yaml")


@given(st.text(max_size=200))
def test_never_breaks_on_a_text(text: str) -> None:
    try:
        assert isinstance(parse(text, "f.yaml"), Experiment)
    except ExperimentError:
        pass  # what it is to say
