"""Connections of both ends whose event loop has been closed before them."""

import asyncio
import gc
import subprocess
import sys
import weakref

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.testing import connect

TWO_LOOPS = """
import asyncio
from duck.contrib.websockets import ConnectionClosed, WebSocketView
from duck.contrib.websockets.client import WebSocketClient
from duck.server import serve

class View(WebSocketView):
    async def on_open(self):
        begun.set_result(self)

async def opened():
    global begun
    begun = asyncio.get_running_loop().create_future()
    serving = serve(View, port=0)
    client = WebSocketClient((await serving.__aenter__()).addresses[0])
    await client.open()
    return client, await begun, serving

async def closed(end, method):
    if hasattr(end, method):
        await asyncio.wait_for(getattr(end, method)(), 20)
    await end.send_close()
    try:
        await end.send("late")
    except ConnectionClosed:
        print(method, int(end.close_code))

for method in ("safe_close", "wait_closed", "close"):
    loop = asyncio.new_event_loop()
    *ends, serving = loop.run_until_complete(opened())
    loop.close()
    for end in ends:
        asyncio.run(closed(end, method))
"""


def test_a_connection_whose_loop_is_closed_may_still_be_closed(tmp_path):
    """Both ends; sending raises ConnectionClosed afterwards. In a process of its own, because sockets stay open."""
    words = [sys.executable, "-W", "ignore", "-c", TWO_LOOPS]
    run = subprocess.run(words, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert run.stdout.split() == ["safe_close", "1006"] * 2 + ["wait_closed", "1006"] * 2 + ["close", "1006"] * 2, run


def test_a_connection_that_is_never_closed_is_named_by_a_warning():
    """Its loop holds it. The warning of the transport has no URL."""

    class View(WebSocketView):
        pass

    async def opened():
        return weakref.ref(await connect(View, "/forgotten"))

    with pytest.warns(ResourceWarning, match="unclosed connection to ws://testserver/forgotten: use async with"):
        forgotten = asyncio.run(opened())
        gc.collect()
    gc.collect()  # again, because the recorded warning referred to the connection
    assert forgotten() is None
