"""A part that ends by an error ends the peer; one that comes to its end, or is given up on the way down, does not."""

import asyncio
from typing import Any

from peer.tasks import Tasks


async def work(error: Exception | None = None) -> None:
    await asyncio.sleep(0)
    if error is not None:
        raise error


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_part_that_breaks_is_told_by_name(caplog: Any) -> None:
    told: list[str] = []
    tasks = Tasks(told.append)
    tasks.spawn(work(), "short")
    tasks.spawn(work(ValueError("no")), "broken")
    await settled()
    assert told == ["broken: ValueError('no')"]
    (line,) = caplog.records
    assert (line.message, line.fields) == ("task_failed", {"task": "broken"})


async def test_a_part_that_was_cancelled_is_missed_too() -> None:
    told: list[str] = []
    tasks = Tasks(told.append)
    tasks.spawn(forever(), "lost")
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "lost"]
    task.cancel()
    await settled()
    assert told == ["lost: CancelledError('given up')"]


async def test_on_the_way_down_parts_are_given_up_in_silence() -> None:
    told: list[str] = []
    tasks = Tasks(told.append)
    tasks.spawn(forever(), "one")
    tasks.spawn(work(ValueError("late")), "other")
    tasks.stopping = True
    await tasks.end()
    assert told == []
    assert {task.get_name() for task in asyncio.all_tasks()} & {"one", "other"} == set()
