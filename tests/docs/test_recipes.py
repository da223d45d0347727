"""The recipes, and the client in a browser, at work."""

import asyncio
import shutil
import subprocess
from contextlib import suppress

import pytest

from duck.contrib.websockets import ConnectionClosed
from duck.contrib.websockets.testing import HandshakeRefused, VirtualTimeLoop
from duck.contrib.websockets.testing import connect as memory
from duck.server import serve

from .snippets import ROOT, block, blocks

NODE = [shutil.which("node"), "--experimental-websocket"]  # needless from Node 22 on


def test_the_clock_ticks_until_the_connection_ends(execute):
    with memory(execute(block("class Clock"))["Clock"], loop_factory=VirtualTimeLoop) as ws:
        first, second = (ws.recv_json()["time"] for _ in range(2))
        view = ws.view
    assert first <= second
    assert view.ticking.done()


def test_a_user_gets_messages_on_all_connections(execute):
    page = execute(block("class Inbox"))
    cookies = {"session": "3f9a"}
    with memory(page["app"], "/inbox", cookies=cookies) as one, memory(page["app"], "/inbox", cookies=cookies) as two:
        page["users"].publish_sync("user:alice", "hello")
        assert one.recv() == two.recv() == "hello"
    with pytest.raises(HandshakeRefused, match="401"), memory(page["app"], "/inbox"):
        pass


def test_a_signed_out_user_is_disconnected(execute):
    page = execute(block("self.checking ="))
    with memory(page["Checked"], cookies={"session": "3f9a"}, loop_factory=VirtualTimeLoop, timeout=600) as ws:
        page["SESSIONS"].clear()
        with pytest.raises(ConnectionClosed, match="4001 signed out"):
            ws.recv()
    with pytest.raises(HandshakeRefused, match="401"), memory(page["Checked"], cookies={"session": "3f9a"}):
        pass


def test_messages_of_several_types(execute):
    with memory(execute(block("class Typed"))["Typed"]) as ws:
        for message, answer in [
            ('{"type": "add", "numbers": [1, 2]}', {"sum": 3}),
            ('{"type": "add", "numbers": ["1"]}', {"error": "unknown message"}),
            ('{"type": "echo", "text": "quack"}', {"text": "quack"}),
            ("[]", {"error": "unknown message"}),
        ]:
            ws.send(message)
            assert ws.recv_json() == answer
        ws.send("quack")
        with pytest.raises(ConnectionClosed, match="1007 not JSON"):
            ws.recv()


def test_calls_get_their_answers_or_the_end_of_the_connection(execute, run, capsys):
    page = execute(block("class Remote"))

    async def scenario():
        async with serve(page["Doubling"], port=0) as server:
            await page["main"](server.addresses[0])
            async with page["Remote"](server.addresses[0]) as remote:
                (view,) = server.connections
                call = asyncio.create_task(remote.call(number=1))
                view.terminate()
                with pytest.raises(ConnectionClosed, match="1001"):
                    await call

    run(scenario())
    assert capsys.readouterr().out == "[0, 2, 4]\n"


DRIVER = """
import {Live} from "./live.js";
const live = new Live(process.argv[2], message => console.log(message.text), (state, code) => {
  console.log(state, code ?? "");
  if (state === "open") live.send({text: "hello"});
});
"""


@pytest.mark.parametrize("loop_name", ["asyncio"], indirect=True)
def test_the_client_in_javascript_catches_up_after_a_reconnection(execute, folder, run):
    if NODE[0] is None or subprocess.run([*NODE, "-e", "WebSocket"], capture_output=True, check=False).returncode:
        pytest.skip("Node with a WebSocket is not installed")
    source, _ = blocks(ROOT / "docs/guides/browser.md", "js")
    (folder / "live.mjs").write_text(source)
    (folder / "driver.mjs").write_text(DRIVER.replace("live.js", "live.mjs"))
    page = execute(block("wrong id"))
    rooms = page["rooms"]

    async def scenario():
        async with serve(page["urlpatterns"], port=0) as server:
            command = [*NODE, folder / "driver.mjs", f"{server.addresses[0]}/ws/tea"]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            said = process.stdout
            try:
                assert [await said.readline() for _ in range(2)] == [b"open \n", b"hello\n"]
                (view,) = server.connections
                await view.send_close(1012)
                await rooms.publish("tea", "missed")
                lines = [await said.readline() for _ in range(4)]
                assert lines == [b"waiting 1012\n", b"open \n", b"missed\n", b"hello\n"]
                await server.connections[0].send_close(4000)
                assert await said.readline() == b"closed 4000\n"
                assert await process.wait() == 0
            finally:
                with suppress(ProcessLookupError):
                    process.kill()

    run(scenario())
