"""Stories made up from a seed."""

from collections import Counter

from simulations.faults import Crash, Heal, Loss, OneWay, Partition, Restart
from simulations.host import Keeps
from simulations.stories import HOSTS_MAX, HOSTS_MIN, JOINED_MAX, KNOWING_MIN, plot


def test_a_seed_has_one_story() -> None:
    assert plot(7) == plot(7)
    assert plot(7).story != plot(8).story


def test_two_hundred_stories_use_every_kind_of_fault_and_no_story_all_of_them() -> None:
    kinds = Counter(type(fault).__name__ for seed in range(200) for _, fault in plot(seed).story)
    assert len(kinds) == 15
    assert min(kinds.values()) > 50
    each = [len({type(fault).__name__ for _, fault in plot(seed).story}) for seed in range(200)]
    assert min(each) < 8 < max(each)


def test_faults_are_about_hosts_that_exist_by_then() -> None:
    for seed in range(200):
        plotted = plot(seed)
        assert HOSTS_MIN <= plotted.hosts <= HOSTS_MAX
        assert [at for at, _ in plotted.story] == sorted(at for at, _ in plotted.story)
        joined = 0
        for _, fault in plotted.story:
            joined += type(fault).__name__ == "Join"
            assert getattr(fault, "host", 0) < plotted.hosts + joined
        assert plotted.hosts + joined <= HOSTS_MAX + JOINED_MAX


def test_a_story_ends_with_everything_put_right_and_a_seed_there() -> None:
    for seed in range(200):
        plotted = plot(seed)
        ending = [fault for at, fault in plotted.story if at == plotted.lasts_s]
        assert ending[0] == Heal()
        assert not any(isinstance(fault, Crash | Partition | OneWay | Loss) for fault in ending)


def test_no_disk_is_lost_in_a_partition_or_where_nobody_could_tell() -> None:
    for seed in range(200):
        walls: set[str] = set()
        lost: set[int] = set()
        for _, fault in plot(seed).story:
            match fault:
                case Partition() | OneWay():
                    walls.add(fault.name)
                case Heal(name=None):
                    walls.clear()
                case Heal(name=str(name)):
                    walls.discard(name)
                case Restart(host=host, keeps=Keeps.IDENTITY):
                    assert not walls
                    lost.add(host)
                case _:
                    pass
        assert len(lost) <= plot(seed).hosts + JOINED_MAX - KNOWING_MIN
