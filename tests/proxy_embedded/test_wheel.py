"""The timer wheel: nothing fires early, moving a deadline is free, an idle wheel sleeps."""

import asyncio
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded.wheel import NEVER, RESOLUTION_S, Timed, TimerWheel

Ts = TypeVarTuple("Ts")


class FakeLoop(asyncio.BaseEventLoop):
    """A clock that is moved by hand, with the one timer a wheel keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.close()  # nothing runs on it
        self.now_s = 1000.0
        self.timers: list[asyncio.TimerHandle] = []
        self.wake_ups = 0

    def time(self) -> float:
        return self.now_s

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle in self.timers:
            self.timers.remove(handle)

    def advance(self, by_s: float) -> None:
        until_s = self.now_s + by_s
        while due := sorted(timer for timer in self.timers if timer.when() <= until_s):
            self.now_s = max(self.now_s, due[0].when())
            self.timers.remove(due[0])
            self.wake_ups += 1
            due[0]._run()
        self.now_s = until_s


class Entry(Timed):
    __slots__ = ("__weakref__", "_loop", "fired")

    def __init__(self, loop: FakeLoop) -> None:
        super().__init__()
        self._loop = loop
        self.fired: list[float] = []

    def on_deadline(self) -> None:
        assert self.deadline_s == NEVER
        self.fired.append(self._loop.now_s)


def wheel_and_loop() -> tuple[TimerWheel, FakeLoop]:
    loop = FakeLoop()
    return TimerWheel(loop), loop


def test_fires_once_within_one_resolution_after_the_deadline() -> None:
    wheel, loop = wheel_and_loop()
    entry = Entry(loop)
    wheel.arm(entry, 1.0)
    loop.advance(5.0)
    assert len(entry.fired) == 1
    assert 1001.0 <= entry.fired[0] <= 1001.0 + 2 * RESOLUTION_S


def test_a_later_deadline_replaces_an_earlier_one() -> None:
    wheel, loop = wheel_and_loop()
    entry = Entry(loop)
    wheel.arm(entry, 1.0)
    loop.advance(0.9)
    wheel.arm(entry, 10.0)
    loop.advance(5.0)
    assert entry.fired == []
    loop.advance(6.0)
    assert len(entry.fired) == 1


def test_an_earlier_deadline_replaces_a_later_one() -> None:
    wheel, loop = wheel_and_loop()
    entry = Entry(loop)
    wheel.arm(entry, 300.0)
    wheel.arm(entry, 0.5)
    loop.advance(1.0)
    assert len(entry.fired) == 1
    loop.advance(400.0)
    assert len(entry.fired) == 1, "the old slot holds it no more"


def test_a_dropped_deadline_never_fires() -> None:
    wheel, loop = wheel_and_loop()
    entry = Entry(loop)
    wheel.arm(entry, 1.0)
    entry.deadline_s = NEVER
    loop.advance(100.0)
    assert entry.fired == []
    assert loop.timers == [], "an idle wheel has no timer"


def test_what_has_ended_is_held_no_more() -> None:
    """A connection closed now must not stay until the idle timeout it once had."""
    wheel, loop = wheel_and_loop()
    entry, other = Entry(loop), Entry(loop)
    wheel.arm(entry, 300.0)
    wheel.arm(other, 300.0)
    wheel.forget(entry)
    wheel.forget(entry)
    held = weakref.ref(entry)
    del entry
    assert held() is None
    wheel.arm(other, 1.0)
    held = weakref.ref(other)
    loop.advance(2.0)
    assert len(other.fired) == 1
    del other
    assert held() is None, "nor in the slot of an earlier deadline"


def test_one_that_fires_may_end_others_of_its_moment_and_they_may_begin_again() -> None:
    wheel, loop = wheel_and_loop()
    second = Entry(loop)

    class Ends(Entry):
        def on_deadline(self) -> None:
            super().on_deadline()
            wheel.forget(second)
            wheel.arm(second, 5.0)

    first = Ends(loop)
    wheel.arm(first, 1.0)
    wheel.arm(second, 1.0)
    loop.advance(2.0)
    assert (len(first.fired), second.fired) == (1, [])
    loop.advance(5.0)
    assert len(second.fired) == 1


def test_one_that_raises_takes_no_other_ones_deadline(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Entry):
        def on_deadline(self) -> None:
            raise AttributeError("a defect")

    wheel, loop = wheel_and_loop()
    entries = [Entry(loop), Broken(loop), Entry(loop)]
    for entry in entries:
        wheel.arm(entry, 1.0)
    later = Entry(loop)
    wheel.arm(later, 2.0)
    loop.advance(5.0)
    assert [len(entry.fired) for entry in (*entries, later)] == [1, 0, 1, 1]
    assert ["a defect" in str(record.exc_info) for record in caplog.records] == [True]


def test_moving_deadlines_costs_no_wake_ups() -> None:
    wheel, loop = wheel_and_loop()
    entry = Entry(loop)
    for _ in range(1000):
        wheel.arm(entry, 15.0)
        loop.advance(0.001)
    assert loop.wake_ups == 0
    assert len(loop.timers) == 1


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.one_of(st.none(), st.floats(0, 30)), st.floats(0, 5)), max_size=40
    )
)
def test_never_early_never_lost(steps: list[tuple[int, float | None, float]]) -> None:
    wheel, loop = wheel_and_loop()
    entries = [Entry(loop) for _ in range(4)]
    due: list[float | None] = [None] * 4
    for which, delay_s, wait_s in steps:
        if delay_s is None:
            entries[which].deadline_s = NEVER
            due[which] = None
        else:
            wheel.arm(entries[which], delay_s)
            due[which] = loop.now_s + delay_s
        loop.advance(wait_s)
        for number, entry in enumerate(entries):
            deadline_s = due[number]
            if entry.fired:
                assert deadline_s is not None
                assert deadline_s <= entry.fired.pop() <= deadline_s + 2 * RESOLUTION_S + 1e-6
                assert entry.fired == []
                due[number] = None
            elif deadline_s is not None:
                assert loop.now_s <= deadline_s + 2 * RESOLUTION_S + 1e-6


async def test_works_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    wheel = TimerWheel(loop)
    fired = asyncio.Event()

    class Real(Timed):
        def on_deadline(self) -> None:
            fired.set()

    wheel.arm(Real(), 0.02)
    await asyncio.wait_for(fired.wait(), 5)
    wheel.close()
