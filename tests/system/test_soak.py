"""Twenty seconds of what `make soak` does for ten minutes."""

import pytest

from benchmarks.soak import Outcome, soak

pytestmark = pytest.mark.process


async def test_workers_killed_under_traffic_cost_their_own_connections_only() -> None:
    outcome = await soak(seconds=20, kill_every_s=4)
    outcome.judge(growth_max=1.0)  # it is the first twenty seconds of their lives
    assert not outcome.problems, outcome.table()
    assert outcome.requests > 200
    assert outcome.kills >= 3
    assert outcome.swaps >= 10
    assert outcome.renewals >= 4


def test_what_a_soak_must_not_show_is_found() -> None:
    fine = {"connect": 0, "read": 3, "write": 0, "timeout": 0, "not 2xx": 1}

    def problems(failures: dict[str, int], allowed: int, memory: list[float]) -> list[str]:
        outcome = Outcome(60.0, 1, errors_allowed=allowed, failures=failures, memory_mib={"worker": memory})
        outcome.judge()
        assert outcome.table()
        return outcome.problems

    flat = [30.0, *[40.0] * 7]
    assert problems(fine, 4, flat) == []
    assert problems(fine, 3, flat) == ["4 requests failed, the killed workers had 3"]
    assert problems(fine | {"connect": 1}, 4, flat) == ["1 errors of the kind connect"]
    assert problems(fine | {"timeout": 2}, 4, flat) == ["2 errors of the kind timeout"]
    assert problems(fine, 4, [30.0 + each for each in range(8)]) == ["worker grew from 32.5 to 36.5 MiB"]
    assert problems({}, 4, flat) == ["wrk said nothing"]
