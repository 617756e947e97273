"""What grows for ever, or never comes to rest."""

from dataclasses import replace

from gossip.config import lan
from gossip.events import MembersReceived, Tick
from gossip.member import State
from gossip.statement import sign_alive
from tests.gossip.company import Company, alive_of, chunk
from tests.gossip.world import START, World, credential_of, engine_of, identity_of


def test_addresses_that_are_over_are_forgotten() -> None:
    company = Company("mover")
    for number in range(2000):
        address = (f"10.50.{number // 250}.{number % 250 + 1}", 7946)
        company.say("mover", alive_of("mover", (1, number + 1), address=address))
    held = company.engine._parts.roster._holders
    assert len(held) <= 8, f"{len(held)} addresses kept for 2 members"


def test_members_that_are_reaped_are_not_contacted_for_ever() -> None:
    """A mesh of short-lived peers: each crashes, its credential runs out, it is reaped."""
    engine = engine_of("own", credential=credential_of("own", ttl_s=10**7))
    now = START
    for number in range(200):
        name = f"pod{number}"
        identity, credential = identity_of(name), credential_of(name, issued_at=int(now), ttl_s=100)
        alive = sign_alive(
            identity, credential, boot=1, incarnation=0, address=("10.9.0.1", 7946), zone="z", meta={}
        )
        engine.step(now, MembersReceived(node=None, data=chunk(alive)))
    end = now + 2000
    ticks = 0
    while now < end:
        now = max(now, engine.deadline)
        engine.step(now, Tick())
        ticks += 1
    assert len(engine.members()) == 1
    assert len(engine._parts.silent) == 0, f"{len(engine._parts.silent)} contacts kept of members long gone"


def test_a_full_list_comes_to_rest() -> None:
    """12 live members and 12 that have left, in lists of at most 20."""
    world = World(config=replace(lan(), members_max=20))
    world.start_many(12)
    world.run(20)
    for index in range(12):
        world.start(f"old{index}", seeds=["h0"])
        world.run(3)
        from gossip.events import Leave

        world.step(world.hosts[f"old{index}"], Leave())
        world.run(2)
        world.crash(f"old{index}")
    world.run(60)
    before, at = world.counts["streams"], world.now
    world.run(300)
    streams = world.counts["streams"] - before
    flaps = [c for c in world.changes(State.ALIVE) if c[0] > at]
    assert not flaps, f"{len(flaps)} times somebody long gone was reported alive, {streams} streams"
