"""Lines for people, and a digest that notices everything."""

from collections.abc import Callable

import pytest

from peer.messages import (
    CloseStream,
    DatagramReceived,
    Draft,
    Evicted,
    Lagged,
    Level,
    MetaChanged,
    Note,
    SendDatagram,
    SendFrame,
    StreamFrame,
    Tick,
    Write,
)
from simulations.trace import Trace
from simulations.world import World

Build = Callable[..., World]


def test_lines_are_aligned_and_name_who_when_and_what(mesh_of: Callable[..., World]) -> None:
    lines: list[str] = []
    world = mesh_of(3, line=lines.append)
    assert world.trace is not None
    assert len(lines) == world.trace.events
    first = lines[0]
    assert first.split() == ["0.000000", "1", "n0", "join"]
    assert any(
        "member" in line and line.endswith("n1 alive boot 1800000000000 incarnation 0") for line in lines
    )
    assert any("datagram" in line and "from n2, " in line for line in lines)
    column = first.index("n0")
    assert all(line[column - 1] == " " and line[column] == "n" for line in lines)
    assert [float(line.split()[0]) for line in lines] == sorted(float(line.split()[0]) for line in lines)


def test_taking_the_trace_changes_nothing(mesh_of: Callable[..., World]) -> None:
    traced, bare = mesh_of(4, digest=True), mesh_of(4)
    assert traced.events == bare.events
    assert [h.traffic.bytes_sent for h in traced.hosts] == [h.traffic.bytes_sent for h in bare.hosts]


def test_the_digest_tells_worlds_apart_that_differ_in_one_event(mesh_of: Callable[..., World]) -> None:
    one, other = mesh_of(3, digest=True), mesh_of(3, digest=True)
    assert one.digest() == other.digest()
    one.leave(one.hosts[2])
    assert one.digest() != other.digest()


NODE, ADDRESS = bytes(16), ("10.0.0.1", 7946)
PAIRS = (
    (DatagramReceived(source=ADDRESS, data=b"a"), DatagramReceived(source=ADDRESS, data=b"b")),
    (SendDatagram(address=ADDRESS, data=b"a"), SendDatagram(address=ADDRESS, data=b"b")),
    (SendFrame(stream=1, data=b"a"), SendFrame(stream=1, data=b"b")),
    (StreamFrame(stream=1, data=b"a"), StreamFrame(stream=1, data=b"b")),
    (CloseStream(stream=1, reason="a"), CloseStream(stream=2, reason="a")),
    (Lagged(lag_s=0.5), Lagged(lag_s=0.6)),
    (Evicted(node=NODE), Evicted(node=bytes(15) + b"e")),
    (MetaChanged(meta={"a": 1}), MetaChanged(meta={"a": 2})),
    (MetaChanged(meta={}), Tick()),
    (Note(level=Level.INFO, event="a", fields={}), Note(level=Level.INFO, event="b", fields={})),
    (
        Write(request=1, drafts=(Draft(kind="note", key="k", payload=b"a"),)),
        Write(request=1, drafts=(Draft(kind="note", key="k", payload=b"b"),)),
    ),
)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: type(pair[0]).__name__)
def test_the_digest_tells_what_each_event_says(pair: tuple[object, object], mesh_of: Build) -> None:
    (host,) = mesh_of(1).hosts

    def digest(*events: object) -> str:
        trace = Trace(0.0)
        for event in events:
            trace.event(1.0, host, event)
        return trace.hexdigest()

    one, other = pair
    assert digest(one) == digest(one)
    assert len({digest(one), digest(other), digest(one, other), digest(other, one)}) == 4
