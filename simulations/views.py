"""How the nodes of a world see one another, compared with how it is.

Invariant: looking changes nothing.
"""

from typing import TYPE_CHECKING, Final

from gossip.member import State

if TYPE_CHECKING:
    from simulations.host import Host
    from simulations.world import World


EXACT_MAX: Final = 300  # live nodes up to which every view is compared member by member
SAMPLE: Final = 32


def agree(world: "World") -> bool:
    """Whether every honest live node sees exactly the live nodes alive, each under its present boot; how it sees who
    has lied is its own affair. Beyond EXACT_MAX nodes
    the numbers alive and suspect are compared at all of them, and the members at SAMPLE of them."""
    if world.liars:
        return not differences(world, at_most=1)
    live = world.live()
    odd = world.odd
    if odd is not None and odd.member and not _counts(odd, len(live)):
        return False  # the one that was wrong when last asked is the likeliest to be wrong still
    world.odd = next((host for host in live if not _counts(host, len(live))), None)
    if world.odd is not None:
        return False
    truth = {host.id: host.boot for host in live}
    looked_at = live if len(live) <= EXACT_MAX else live[:: len(live) // SAMPLE]
    return not any(_of_one(world, host, truth) for host in looked_at)


def _counts(host: "Host", live: int) -> bool:
    """Whether a node sees that many alive, and nobody suspect."""
    assert host.node is not None, "live hosts have nodes"
    counts = host.node.engine.statistics()
    return counts.alive == live and counts.suspect == 0


def differences(world: "World", *, at_most: int = 20) -> list[str]:
    """Where an honest live node does not see exactly the live nodes alive, each under its present boot. Stops after
    `at_most`."""
    live = world.honest()
    truth = {host.id: host.boot for host in live}
    found: list[str] = []
    for host in live:
        found += _of_one(world, host, truth)
        if len(found) >= at_most:
            return found[:at_most]
    return found


def _of_one(world: "World", host: "Host", truth: dict[bytes, int]) -> list[str]:
    assert host.node is not None, "live hosts have nodes"
    found = []
    missing = dict(truth)
    for member in host.node.engine.members():
        if not member.live:
            continue
        if world.liars and world.lied(member.id):
            if host.node.journal.forks.get(member.id) is not None:
                found.append(f"{host.name} sees {world.name_of(member.id)} as live, which has equivocated")
            continue
        boot = missing.pop(member.id, None)
        if boot is None:
            found.append(
                f"{host.name} sees {world.name_of(member.id)} {member.state.value}: it does not live"
            )
        elif member.state is not State.ALIVE:
            found.append(f"{host.name} suspects {world.name_of(member.id)}, which lives")
        elif member.boot != boot:
            found.append(
                f"{host.name} sees {world.name_of(member.id)} at boot {member.boot}, it is at {boot}"
            )
    return found + [f"{host.name} does not see {world.name_of(node)}, which lives" for node in missing]


def all_see(world: "World", node: bytes, state: State) -> bool:
    """Whether every honest live node but `node` itself sees it in `state`."""
    for host in world.honest():
        if host.id == node:
            continue
        assert host.node is not None, "live hosts have nodes"
        member = host.node.engine.member(node)
        if member is None or member.state is not state:
            return False
    return True
