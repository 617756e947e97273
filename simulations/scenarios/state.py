"""What becomes of records while the mesh is cut."""

from typing import Final

from crdt.ormap import live_versions
from crdt.record import Record
from simulations.faults import NOTE, Cut, Delete, Heal, Partition, Publish
from simulations.stage import AFTER_S, Scenario, Stage

CUT_S: Final = 60.0
REWRITES: Final = 20
WITHIN_S: Final = 60.0


def _tombstones(stage: Stage) -> None:
    """The trap: whoever deletes forgets the deletion before the other side has heard of it, and the key comes back."""
    world, hosts = stage.world, stage.hosts
    middle = len(hosts) // 2
    here, there = tuple(range(middle)), tuple(range(middle, len(hosts)))
    author, reader, stranger = here[0], here[1], there[0]
    stage.do(Publish(host=author, key="own"))
    for key in ("another's", "contested"):
        stage.do(Publish(host=there[-1], key=key))
    world.run(2)
    stage.do(Partition(name="two halves", kind=Cut.APART, groups=(here, there)))
    world.run(CUT_S / 3)
    stage.do(Delete(host=author, key="own"))
    stage.do(Delete(host=reader, key="another's"))
    stage.do(Delete(host=reader, key="contested"))
    stage.do(Publish(host=stranger, key="contested"))  # it has not heard of the deletion
    for turn in range(REWRITES):  # what the author wrote and deleted is past, and its tombstone with it
        world.run(CUT_S * 2 / 3 / REWRITES)
        stage.do(Publish(host=author, key=f"new {turn % 4}"))
    world.run(1)
    stage.figure("tombstones the author still keeps", sum(r.deleted for r in _own(stage, author)))
    stage.do(Heal())
    stage.time("journals agree after healing", lambda: len(_prints(stage)) == 1, within_s=WITHIN_S)
    stage.converges("agreement after healing", within_s=WITHIN_S)
    world.run(AFTER_S)
    views = [live_versions(host.node.journal.records(NOTE)) for host in world.live() if host.node is not None]
    stage.figure("nodes where a deleted key is back", sum("own" in v or "another's" in v for v in views))
    stage.figure(
        "nodes where the edit that had not heard is kept", sum("contested" in view for view in views)
    )


def _own(stage: Stage, index: int) -> list[Record]:
    host = stage.hosts[index]
    assert host.node is not None, "nobody crashes here"
    return [record for record in host.node.journal.records(NOTE) if record.writer == host.id]


def _prints(stage: Stage) -> set[bytes]:
    return {host.node.journal.fingerprint() for host in stage.world.live() if host.node is not None}


TOMBSTONES: Final = Scenario(
    name="tombstones",
    about="Keys are deleted on one side of a partition, and their tombstones collected, before the other hears of it.",
    nodes=16,
    play=_tombstones,
    nodes_min=4,
)
