"""Lines for people, and a digest that notices everything."""

from collections.abc import Callable

from simulations.world import World


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
