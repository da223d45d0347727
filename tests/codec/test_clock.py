"""`Clock` and `Deadline`: one timer of the loop for many objects, on both codecs."""

import asyncio
import sys
import threading

import pytest


class Sleeper:
    def __init__(self, woken, fails=False):
        self.woken = woken
        self.fails = fails
        self.time = asyncio.get_running_loop().time

    def wake(self):
        self.woken.put_nowait((self, self.time()))
        if self.fails:
            raise RuntimeError("slept badly")


async def test_no_sleeper_is_woken_early(codec):
    loop = asyncio.get_running_loop()
    ours, woken = codec.Clock(), asyncio.Queue()
    times = {Sleeper(woken): loop.time() + delay for delay in (0.0, 0.001, 0.02, 0.021, 0.05, -1.0)}
    for sleeper, when in times.items():
        ours.set(loop, when, sleeper)
    while times:
        sleeper, time = await woken.get()
        assert time >= times.pop(sleeper) - 0.001  # uvloop's clock counts milliseconds


async def test_a_dropped_sleeper_is_not_woken(codec):
    loop = asyncio.get_running_loop()
    ours, woken = codec.Clock(), asyncio.Queue()
    first, second, third = (Sleeper(woken) for _ in range(3))
    when = loop.time() + 0.02
    ticks = [ours.set(loop, when, sleeper) for sleeper in (first, second, third)]
    ours.drop(ticks[1], second)
    ours.drop(ticks[1], second)
    assert {(await woken.get())[0] for _ in range(2)} == {first, third}
    assert woken.empty()
    ours.drop(ticks[0], first)


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_failing_sleeper_does_not_stop_the_others(codec, failing):
    loop = asyncio.get_running_loop()
    errors = asyncio.Queue()
    loop.set_exception_handler(lambda _, context: errors.put_nowait(context["exception"]))
    ours, woken = codec.Clock(), asyncio.Queue()
    when = loop.time() + 0.02
    for number in range(3):
        ours.set(loop, when, Sleeper(woken, fails=number == failing))
    for _ in range(3):
        await woken.get()
    assert str(await errors.get()) == "slept badly"


class FakeLoop:
    def __init__(self):
        self.now = 1000.0
        self.timers = []

    def time(self):
        return self.now

    def call_at(self, when, callback, *args):
        self.timers.append((when, callback, args))

    def fire(self):
        when, callback, args = self.timers.pop(0)
        self.now = max(when, self.now)
        callback(*args)


class Note:
    def __init__(self, notes, name):
        self.wake = lambda: notes.append(name)


def test_one_timer_serves_all_times(codec):
    loop, ours, notes = FakeLoop(), codec.Clock(), []
    for number in range(100):
        ours.set(loop, 1001 + number // 50, Note(notes, number))
    assert len(loop.timers) == 1
    loop.fire()
    assert sorted(notes) == [*range(50)]
    assert len(loop.timers) == 1
    loop.fire()
    assert sorted(notes) == [*range(100)]
    assert loop.timers == []


def test_an_earlier_time_needs_a_timer_of_its_own(codec):
    loop, ours, notes = FakeLoop(), codec.Clock(), []
    ours.set(loop, 1002, Note(notes, "later"))
    ours.set(loop, 1001, Note(notes, "earlier"))
    loop.timers.sort(key=lambda timer: timer[0])
    loop.fire()
    assert notes == ["earlier"]
    while loop.timers:
        loop.fire()
    assert notes == ["earlier", "later"]


def test_dropped_sleepers_leave_no_timers(codec):
    loop, ours, notes = FakeLoop(), codec.Clock(), []
    for number in range(100):
        sleeper = Note(notes, number)
        tick = ours.set(loop, 1001 + number, sleeper)
        ours.drop(tick, sleeper)
    ours.set(loop, 1050, Note(notes, "again"))
    loop.fire()
    assert [when for when, _, _ in loop.timers] == [pytest.approx(1050, abs=0.1)]
    loop.fire()
    assert notes == ["again"]
    assert loop.timers == []


# Deadlines


def limit(codec, seconds):
    """Returns a deadline for a block of the running task."""
    return codec.Deadline(asyncio.current_task(), codec.Clock(), seconds, asyncio.CancelledError)


async def test_a_block_in_time_is_not_cancelled(codec):
    for seconds in (60, None, float("inf"), 1e308):
        with limit(codec, seconds) as nothing:
            assert nothing is None
            await asyncio.sleep(0)
    with pytest.raises(ValueError, match="own"), limit(codec, 60):
        raise ValueError("own")
    assert not asyncio.current_task().cancelling()


@pytest.mark.parametrize("seconds", [0, 0.02])
async def test_a_block_that_takes_too_long_raises_a_timeout(codec, seconds):
    loop = asyncio.get_running_loop()
    deadline = limit(codec, seconds)
    with pytest.raises(TimeoutError), deadline:
        await loop.create_future()
    assert deadline.expired
    assert not asyncio.current_task().cancelling()


async def test_a_deadline_expires_by_a_call_from_another_thread(codec):
    loop = asyncio.get_running_loop()
    deadline = limit(codec, None)
    with pytest.raises(TimeoutError), deadline:
        threading.Thread(target=deadline.expire).start()
        await loop.create_future()
    assert deadline.expired
    deadline.wake()  # has no effect on the task any more
    await asyncio.sleep(0)


async def test_a_deadline_that_expires_twice_cancels_once(codec):
    deadline = limit(codec, None)
    with pytest.raises(TimeoutError), deadline:
        deadline.expire()
        deadline.expire()
        await asyncio.get_running_loop().create_future()
    assert not asyncio.current_task().cancelling()


async def test_a_clock_keeps_no_deadline_after_its_block(codec):
    """A client that receives with a long timeout would accumulate them."""
    deadline = limit(codec, 60)
    references = sys.getrefcount(deadline)
    with deadline:
        assert sys.getrefcount(deadline) > references
    assert sys.getrefcount(deadline) == references


async def test_a_cancellation_of_the_task_remains_one(codec):
    """Whether it comes before the deadline, or together with it."""
    loop = asyncio.get_running_loop()
    for together in (False, True):
        begun = loop.create_future()

        async def block(begun=begun):
            deadline = limit(codec, 60)
            with deadline:
                begun.set_result(deadline)
                await loop.create_future()

        task = asyncio.create_task(block())
        deadline = await begun
        if together:
            deadline.wake()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert deadline.expired is together


async def test_an_own_error_of_a_late_block_is_raised(codec):
    loop = asyncio.get_running_loop()
    deadline = limit(codec, 60)
    with pytest.raises(OSError, match="own"), deadline:
        deadline.wake()
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            raise OSError("own") from None
    assert not asyncio.current_task().cancelling()
