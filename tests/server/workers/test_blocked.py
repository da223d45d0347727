"""A worker whose event loop is blocked is ended and replaced, if `--worker-timeout` says so."""

import os
import signal
import sys

import pytest
from websockets.sync.client import connect

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


@pytest.mark.parametrize("suspended", [False, True])
def test_a_worker_whose_loop_is_blocked_is_ended_with_its_traceback_and_replaced(tmp_path, suspended):
    (tmp_path / "blocking.py").write_text(APPLICATION)
    arguments = ("blocking.py", "--port", 0, "--workers", 2, "--worker-timeout", 2)
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
