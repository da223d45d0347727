"""The supervisor, with workers whose moments the test chooses."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from duck.contrib.websockets.metrics import Stats
from duck.server.options import Options
from duck.server.workers import supervisor as module
from duck.server.workers.supervisor import Supervisor
from duck.server.workers.worker import Boot
from duck.server.workers.worker_process import WorkerError


class Worker:
    """In the place of a `WorkerProcess`; serves or fails when the test says so, and ends at the order to stop."""

    def __init__(self):
        self.pid = id(self)
        self.serves = False
        self.ended = asyncio.get_running_loop().create_future()
        self._begun = asyncio.get_running_loop().create_future()

    def begin(self):
        self._begun.set_result(None)

    def fail(self):
        self._begun.set_exception(WorkerError("as the test expects"))

    async def ready(self, startup_timeout):
        await asyncio.shield(self._begun)
        self.serves = True
        return ["ws://127.0.0.1:8000"], None

    def stop(self, replaced=False):
        if not self.ended.done():
            self.ended.set_result(0)

    async def last_stats(self):
        return Stats()

    def close(self):
        pass


@pytest.fixture
def workers(monkeypatch):
    """The workers that have been started."""
    workers = []

    async def start(boot, listeners):
        workers.append(Worker())
        return workers[-1]

    monkeypatch.setattr(module, "WorkerProcess", SimpleNamespace(start=start))
    return workers


@contextlib.asynccontextmanager
async def supervising(workers):
    """Starts a supervisor of two workers that serve, and stops it at the end of the block."""
    stop = asyncio.Event()
    sockets = SimpleNamespace(take=list, put_back=lambda sockets: None, close=lambda: None)
    supervisor = Supervisor(Boot([], None, b"", 2), sockets, Options(), stop)
    running = asyncio.get_running_loop().create_task(supervisor.run())
    await settled()
    for worker in workers:
        worker.begin()
    await settled()
    yield supervisor
    stop.set()
    await running


async def settled():
    """Waits until nothing is left to do but to wait for workers and orders."""
    for _ in range(50):
        await asyncio.sleep(0)


def ended(workers):
    return [worker.ended.done() for worker in workers]


@pytest.mark.parametrize("passes", range(8))
async def test_a_place_that_is_given_up_leaves_no_worker_whenever_its_successor_serves(workers, passes):
    async with supervising(workers) as supervisor:
        supervisor.renew()
        await settled()
        workers[2].begin()
        await settled()
        assert ended(workers) == [True, False, False, False]

        def shrink_after(passes):
            if passes:
                asyncio.get_running_loop().call_soon(shrink_after, passes - 1)
            else:
                supervisor.shrink()

        shrink_after(passes)
        workers[3].begin()
        await settled()
        assert ended(workers) == [True, True, False, True]


async def test_a_worker_that_had_begun_to_start_before_an_order_is_replaced(workers):
    """It may have imported the application as it was before."""
    async with supervising(workers) as supervisor:
        workers[0].ended.set_result(1)
        await settled()
        supervisor.renew()
        await settled()
        workers[2].begin()
        await settled()
        workers[3].begin()
        await settled()
        assert ended(workers) == [True, False, True, False, False]
        workers[4].begin()
        await settled()
        assert ended(workers) == [True, True, True, False, False]


async def test_an_order_ends_the_pause_before_the_next_attempt(workers, monkeypatch):
    """The fault of the application may have been corrected. The worker of that attempt is new enough."""
    monkeypatch.setattr(module, "_FIRST_PAUSE", 1000)
    async with supervising(workers) as supervisor:
        workers[0].ended.set_result(1)
        await settled()
        for number in (2, 3):
            workers[number].fail()
            await settled()
            assert len(workers) == number + 1
            supervisor.renew()
            await settled()
        for number in (4, 5):
            workers[number].begin()
            await settled()
        assert ended(workers) == [True, True, True, True, False, False]
