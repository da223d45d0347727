"""The supervisor, with workers whose moments the test chooses."""

import asyncio
from types import SimpleNamespace

import pytest

from duck.contrib.websockets.metrics import Stats
from duck.server.options import Options
from duck.server.workers import supervisor as module
from duck.server.workers.supervisor import Supervisor
from duck.server.workers.worker import Boot


class Worker:
    """In the place of a `WorkerProcess`; serves once `begin` is called, and ends at the order to stop."""

    def __init__(self):
        self.pid = id(self)
        self.serves = False
        self.ended = asyncio.get_running_loop().create_future()
        self._begun = asyncio.Event()

    def begin(self):
        self._begun.set()

    async def ready(self, startup_timeout):
        await self._begun.wait()
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


async def settled():
    """Waits until nothing is left to do but to wait for workers and orders."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("passes", range(8))
async def test_a_place_that_is_given_up_leaves_no_worker_whenever_its_successor_serves(workers, passes):
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    sockets = SimpleNamespace(take=list, put_back=lambda sockets: None, close=lambda: None)
    supervisor = Supervisor(Boot([], None, b"", 2), sockets, Options(), stop)
    running = loop.create_task(supervisor.run())
    await settled()
    for number in range(3):  # two workers, and the successor of the first
        workers[number].begin()
        if number == 1:
            await settled()
            supervisor.renew()
        await settled()
    assert [worker.ended.done() for worker in workers] == [True, False, False, False]

    def shrink_after(passes):
        if passes:
            loop.call_soon(shrink_after, passes - 1)
        else:
            supervisor.shrink()

    shrink_after(passes)
    workers[3].begin()
    await settled()
    assert [worker.ended.done() for worker in workers] == [True, True, False, True]
    stop.set()
    await running
