"""A worker whose event loop is blocked is ended and replaced, if `--worker-timeout` says so."""

import asyncio
import json
import os
import signal
import sys
from types import SimpleNamespace

import pytest
from websockets.sync.client import connect

from duck.contrib.websockets.metrics import Stats
from duck.contrib.websockets.testing import VirtualTimeLoop
from duck.server.workers.worker_process import WorkerProcess

from ...support.commands import Process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

APPLICATION = """
import os, time
from duck.contrib.websockets import WebSocketView

class Blocking(WebSocketView):
    async def on_open(self):
        await self.send(str(os.getpid()))

    async def on_receive(self, message, opcode):
        time.sleep(1000)
"""


@pytest.mark.parametrize(("workers", "suspended"), [(1, False), (2, False), (2, True)])
def test_a_worker_whose_loop_is_blocked_is_ended_with_its_traceback_and_replaced(tmp_path, workers, suspended):
    (tmp_path / "blocking.py").write_text(APPLICATION)
    arguments = ("blocking.py", "--port", 0, "--workers", workers, "--worker-timeout", 2)
    with Process(tmp_path, *arguments) as process:
        with connect(process.address, proxy=None) as client:
            pid = client.recv(30)
            if suspended:
                os.kill(int(pid), signal.SIGSTOP)
            else:
                client.send("block")
            process.until_told(f"worker {pid} is ended: its event loop has been blocked for 2 s")
            if not suspended:
                assert "Fatal Python error: Aborted" in process.until_told("Fatal Python error")
                assert " line 10 in on_receive" in process.until_told("blocking.py")
            process.until_told(f"worker {pid} was ended by {'SIGKILL' if suspended else 'SIGABRT'}; another is started")
        assert process.until_told(" serves ").partition("worker ")[2].split()[0] != pid
        assert process.stop(signal.SIGTERM)[0] == 0


def test_a_pause_of_all_processes_does_not_end_a_worker():
    """As of a container, or of a job in a shell: the worker answers when it goes on, and has had no time before."""

    async def scenario():
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        asked = 0

        def write(question):
            nonlocal asked
            asked += 1
            if asked == 2:
                loop.call_soon(pause)
            loop.call_later(0.001, reader.feed_data, json.dumps({"stats": Stats().as_dict()}).encode() + b"\n")

        def pause():
            loop._virtual.now += 3600

        process = SimpleNamespace(pid=1, wait=asyncio.Event().wait)
        worker = WorkerProcess(process, reader, SimpleNamespace(write=write))
        reader.feed_data(b'{"addresses": [], "page": null}\n')
        await worker.ready(60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7200):
                await worker.blocked(30)
        assert asked > 100

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scenario())
