"""The state shared by the connections of one loop."""

import asyncio
import threading

import pytest

from duck.contrib.websockets.protocol.loop import Clock, clock, receive_buffer, threads


class Sleeper:
    def __init__(self, woken, fails=False):
        self.woken = woken
        self.fails = fails
        self.time = asyncio.get_running_loop().time

    def wake(self):
        self.woken.put_nowait((self, self.time()))
        if self.fails:
            raise RuntimeError("slept badly")


def test_no_sleeper_is_woken_early(run):
    async def scenario():
        loop = asyncio.get_running_loop()
        woken = asyncio.Queue()
        times = {Sleeper(woken): loop.time() + delay for delay in (0.0, 0.001, 0.02, 0.021, 0.05, -1.0)}
        for sleeper, when in times.items():
            clock(loop).set(loop, when, sleeper)
        while times:
            sleeper, time = await woken.get()
            assert time >= times.pop(sleeper) - 0.001  # uvloop's clock counts milliseconds

    run(scenario())


def test_a_dropped_sleeper_is_not_woken(run):
    async def scenario():
        loop = asyncio.get_running_loop()
        ours, woken = Clock(), asyncio.Queue()
        first, second, third = (Sleeper(woken) for _ in range(3))
        when = loop.time() + 0.02
        ticks = [ours.set(loop, when, sleeper) for sleeper in (first, second, third)]
        ours.drop(ticks[1], second)
        ours.drop(ticks[1], second)
        assert {(await woken.get())[0] for _ in range(2)} == {first, third}
        assert woken.empty()
        ours.drop(ticks[0], first)

    run(scenario())


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failing_sleeper_does_not_stop_the_others(run, failing):
    async def scenario():
        loop = asyncio.get_running_loop()
        errors = asyncio.Queue()
        loop.set_exception_handler(lambda _, context: errors.put_nowait(context["exception"]))
        ours, woken = Clock(), asyncio.Queue()
        when = loop.time() + 0.02
        for number in range(3):
            ours.set(loop, when, Sleeper(woken, fails=number == failing))
        for _ in range(3):
            await woken.get()
        assert str(await errors.get()) == "slept badly"

    run(scenario())


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


def test_one_timer_serves_all_times():
    loop, ours, notes = FakeLoop(), Clock(), []
    for number in range(100):
        ours.set(loop, 1001 + number // 50, Note(notes, number))
    assert len(loop.timers) == 1
    loop.fire()
    assert sorted(notes) == [*range(50)]
    assert len(loop.timers) == 1
    loop.fire()
    assert sorted(notes) == [*range(100)]
    assert loop.timers == []


def test_an_earlier_time_needs_a_timer_of_its_own():
    loop, ours, notes = FakeLoop(), Clock(), []
    ours.set(loop, 1002, Note(notes, "later"))
    ours.set(loop, 1001, Note(notes, "earlier"))
    loop.timers.sort(key=lambda timer: timer[0])
    loop.fire()
    assert notes == ["earlier"]
    while loop.timers:
        loop.fire()
    assert notes == ["earlier", "later"]


def test_dropped_sleepers_leave_no_timers():
    loop, ours, notes = FakeLoop(), Clock(), []
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


def test_each_loop_has_a_clock_of_its_own():
    async def own():
        loop = asyncio.get_running_loop()
        assert clock(loop) is clock(loop)
        return clock(loop)

    assert asyncio.run(own()) is not asyncio.run(own())


def test_connections_of_a_thread_share_their_buffer():
    async def scenario():
        loop = asyncio.get_running_loop()
        assert receive_buffer(loop) is receive_buffer(loop)
        assert receive_buffer(loop).window.obj is receive_buffer(loop).data

        def other_thread():
            return receive_buffer(loop)

        assert await asyncio.to_thread(other_thread) is not receive_buffer(loop)

    asyncio.run(scenario())


def test_threads_end_with_the_thread_of_their_loop():
    workers = []

    def work():
        assert threads() is threads()
        workers.append(threads().submit(threading.current_thread).result())

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert workers[0] is not workers[1]
    for worker in workers:
        worker.join()
