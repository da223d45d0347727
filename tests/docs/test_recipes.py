"""The recipes, and the client in a browser, at work."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from duck.contrib.websockets import ConnectionClosed, HandshakeError, OpCode, WebSocketView
from duck.contrib.websockets.client import Reconnect, WebSocketClient, connect
from duck.contrib.websockets.testing import HandshakeRefused, VirtualTimeLoop
from duck.contrib.websockets.testing import connect as memory
from duck.server import serve

from .snippets import ROOT, block, blocks

NODE = [shutil.which("node"), "--experimental-websocket"]  # needless from Node 22 on


def has_websocket():
    """Whether Node is installed, and has a WebSocket."""
    return NODE[0] and not subprocess.run([*NODE, "-e", "WebSocket"], capture_output=True, check=False).returncode


def test_the_clock_ticks_until_the_connection_ends(execute):
    with memory(execute(block("class Clock"))["Clock"], loop_factory=VirtualTimeLoop) as ws:
        first, second = (ws.recv_json()["time"] for _ in range(2))
    assert first <= second


@pytest.mark.in_memory
async def test_a_slow_client_gets_fewer_prices_and_the_last_one(execute):
    names = execute(block("class Prices"))
    market = names["market"]
    async with memory(names["Prices"], compression=False, timeout=60) as ws:
        assert await ws.recv_json() == {}
        market.prices["x" * 100_000] = 0.0  # more than the buffers take
        ws.stop_reading()
        for price in range(1000):
            market.set("duck", price)
            await asyncio.sleep(0)
        ws.resume_reading()
        prices = []
        while not prices or prices[-1] < 999:
            prices.append((await ws.recv_json()).get("duck"))
        assert len(prices) < 10


def test_a_user_gets_messages_on_all_connections(execute):
    page = execute(block("class Inbox"))
    cookies = {"session": "3f9a"}
    with memory(page["app"], "/inbox", cookies=cookies) as one, memory(page["app"], "/inbox", cookies=cookies) as two:
        page["users"].publish_sync("user:alice", "hello")
        assert one.recv() == two.recv() == "hello"
    with pytest.raises(HandshakeRefused, match="401"), memory(page["app"], "/inbox"):
        pass


def test_each_member_of_a_group_gets_its_own_text(execute):
    page = execute(block("class Board"))
    with memory(page["Board"], "/?name=a") as one, memory(page["Board"], "/?name=b") as two:
        one.send("hello")
        assert one.recv_json() == {"from": "a", "text": "hello", "mine": True}
        assert two.recv_json() == {"from": "a", "text": "hello", "mine": False}
        page["rooms"].publish_sync("board", '{"kick": "b"}')
        with pytest.raises(ConnectionClosed, match="4003 removed from the board"):
            two.recv()


def test_a_signed_out_user_is_disconnected(execute):
    page = execute(block("class Checked"))
    with memory(page["Checked"], cookies={"session": "3f9a"}, loop_factory=VirtualTimeLoop, timeout=600) as ws:
        page["SESSIONS"].clear()
        with pytest.raises(ConnectionClosed, match="4001 signed out"):
            ws.recv()
    with pytest.raises(HandshakeRefused, match="401"), memory(page["Checked"], cookies={"session": "3f9a"}):
        pass


def test_an_answer_grows_until_it_is_stopped(execute):
    with memory(execute(block("class Assistant"))["Assistant"], loop_factory=VirtualTimeLoop) as ws:
        ws.send_json({"prompt": "to be or"})
        assert [ws.recv_json() for _ in range(4)] == [
            *({"piece": f"{word} "} for word in ["to", "be", "or"]),
            {"end": "complete"},
        ]
        ws.send_json({"prompt": "a b c"})
        assert ws.recv_json() == {"piece": "a "}
        ws.send_json({"stop": True})
        assert ws.recv_json() == {"end": "stopped"}
        ws.send_json({"prompt": "endless " * 1000})
        ws.recv()
        view = ws.view
    assert view.answering.cancelled()


async def test_a_client_with_hooks_connects_again_until_an_error_is_final(execute):
    codes = [1012, 1008]

    class Numbers(WebSocketView):
        async def on_receive(self, message, opcode):
            assert (self.request.headers["x-api-key"], message) == ("s3cret", b'{"subscribe": "ducks"}')
            code = codes.pop(0)
            await self.send_json({"number": code})
            await self.close(code)

    page = execute(block("async def follow"))
    feed = page["Feed"]()
    async with serve(Numbers, port=0) as server:
        with pytest.raises(ConnectionClosed, match="1008"):
            await page["follow"](server.addresses[0], feed)
    assert (feed.last, feed.gaps) == (1008, 1)


async def test_a_client_in_synchronous_code_prints_its_answer(execute, capsys):
    ask = execute(block("def ask"))["ask"]
    async with serve(execute(block("class Shout(WebSocketView):"))["urlpatterns"], port=0) as server:
        await asyncio.to_thread(ask, f"{server.addresses[0]}/shout/lobby")
    assert capsys.readouterr().out == "QUACK\n"


CONTENT = (bytes(range(251)) * 8356)[: 2**21 + 7]
UPLOAD = """
const file = new Blob([new Uint8Array(2 ** 21 + 7).map((_, at) => at % 251)]);
for (const stop of [false, true]) {
  const socket = new WebSocket(process.argv[2]), control = new AbortController();
  await new Promise(resolve => { socket.onopen = resolve });
  const sent = upload(socket, file, control.signal);
  if (stop) control.abort();
  await sent;
  console.log(await new Promise(resolve => { socket.onmessage = event => resolve(event.data) }));
  socket.close();
}
"""


async def test_an_upload_in_slices_can_be_stopped(folder):
    if not has_websocket():
        pytest.skip("Node with a WebSocket is not installed")
    (source,) = blocks(ROOT / "docs/guides/streams.md", "js")
    (folder / "upload.mjs").write_text(source + UPLOAD)

    class Slices(WebSocketView):
        async def on_open(self):
            self.received = b""

        async def on_receive(self, message, opcode):
            if opcode == OpCode.BINARY:
                self.received += message
            else:
                await self.send(
                    f"{message.decode()} {self.received == CONTENT[: len(self.received)]} {len(self.received)}"
                )

    async with serve(Slices, port=0) as server:
        command = [*NODE, folder / "upload.mjs", server.addresses[0]]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        out, _ = await process.communicate()
        whole, stopped = out.decode().splitlines()
        assert whole == f"end True {len(CONTENT)}"
        assert stopped.startswith("stop True ")
        assert int(stopped.split()[2]) < len(CONTENT)


def test_messages_are_answered_by_their_type(execute):
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


async def test_calls_get_their_answers_or_the_end_of_the_connection(execute, capsys):
    page = execute(block("class Remote"))
    async with serve(page["Doubling"], port=0) as server:
        await page["main"](server.addresses[0])
        async with page["Remote"](server.addresses[0]) as remote:
            (view,) = server.connections
            call = asyncio.create_task(remote.call(number=1))
            view.terminate()
            with pytest.raises(ConnectionClosed, match="1001"):
                await call
    assert capsys.readouterr().out == "[0, 2, 4]\n"


DRIVER = """
import {Live} from "./live.js";
const live = new Live(process.argv[2], message => console.log(message.text), (state, code) => {
  console.log(state, code ?? "");
  if (state === "open") live.send({text: "hello"});
});
"""


@pytest.mark.parametrize("message", ["quack", b"quack"])
def test_a_library_calls_recv_of_a_view(execute, message):
    with memory(execute(block("class Station"))["Station"]) as ws:
        (ws.send if isinstance(message, str) else ws.send_binary)(message)
        assert ws.recv() == message
        ws.close()
        assert ws.view.close_code == 1000


async def test_a_new_client_gets_a_state_and_then_each_later_change_once(execute):
    page = execute(block("class Document"))

    class Editor(page["Editor"]):
        async def send_json(self, data):
            await page["Editor"].send_json(self, data)
            if data["text"]:
                await self.on_receive(b"c", OpCode.TEXT)  # a change between the state and the join

    async with memory(Editor, kwargs={"name": "plan"}) as first:
        assert await first.recv_json() == {"text": ""}
        for change in "ab":
            await first.send(change)
            assert await first.recv() == change
        async with memory(Editor, kwargs={"name": "plan"}) as second:
            assert await second.recv_json() == {"text": "ab"}
            await first.send("d")
            assert [await second.recv(), await second.recv()] == ["c", "d"]
    assert page["documents"]["plan"].text == "abcd"


def test_a_user_has_no_more_connections_than_allowed(execute):
    view, cookies = execute(block("class Bounded"))["Bounded"], {"session": "3f9a"}
    with memory(view, cookies=cookies), memory(view, cookies=cookies), memory(view, cookies=cookies) as third:
        with pytest.raises(ConnectionClosed, match="4029 too many"), memory(view, cookies=cookies) as fourth:
            fourth.recv()
        assert third.view.close_code is None


async def test_a_relay_passes_on_messages_subprotocols_refusals_and_ends(execute):
    ends = asyncio.Queue()

    class Upstream(WebSocketView):
        SUBPROTOCOLS = ("chat.v1",)

        async def on_handshake(self, handshake):
            if "token" not in handshake.request.query:
                raise HandshakeError(401, "no token")

        async def on_receive(self, message, opcode):
            if message == b"close":
                await self.send_close(4000, "bye")
            elif message == b"vanish":
                self.request.transport.abort()
            else:
                await self.send(message, opcode)

        async def on_close(self, frame):
            ends.put_nowait((self.close_code, self.close_reason))

    async def end_after(ws, message):
        await ws.send(message)
        await ws.wait_closed()
        return ws.close_code, ws.close_reason

    page = execute(block("class Relay"))
    relay = page["Relay"]
    async with serve(Upstream, port=0) as upstream:
        relay.UPSTREAM = upstream.addresses[0]
        async with serve(page["urlpatterns"], port=0) as server:
            url = f"{server.addresses[0]}/?token=1"
            async with connect(url, subprotocols=["chat.v2", "chat.v1"], compression=False) as ws:
                assert ws.subprotocol == "chat.v1"
                for message in ("hello", b"hello", bytes(1 << 20), ""):
                    await (ws.send if isinstance(message, str) else ws.send_binary)(message)
                    assert await ws.recv(timeout=30) == message
                await ws.close(4001, "done")
            assert await ends.get() == (4001, "done")
            assert await end_after(await connect(url), "close") == (4000, "bye")
            assert await end_after(await connect(url), "vanish") == (1014, "")
            with pytest.raises(HandshakeRefused, match="401 Unauthorized: no token"):
                await connect(server.addresses[0])
    async with serve(relay, port=0) as server:
        with pytest.raises(HandshakeRefused, match="502"):
            await connect(server.addresses[0])


async def test_a_silent_feed_is_closed(execute):
    class Silent(WebSocketView):
        async def on_open(self):
            await self.send("hello")

    watched = execute(block("class Watched"))["Watched"]
    watched.SILENCE = 0.01
    async with serve(Silent, port=0) as server:
        client = watched(server.addresses[0])
        await client.run()
        assert (client.close_code, client.close_reason) == (4000, "stale")


@pytest.mark.skipif(sys.platform == "win32", reason="a loop has no signal handlers")
async def test_sigterm_closes_the_connection_of_a_client(execute):
    ends = asyncio.Queue()

    class Feed(WebSocketView):
        async def on_open(self):
            os.kill(os.getpid(), signal.SIGTERM)

        async def on_close(self, frame):
            ends.put_nowait(self.close_code)

    page = execute(block("until_sigterm"))
    async with serve(Feed, port=0) as server:
        await page["until_sigterm"](Reconnect().run(lambda: WebSocketClient(server.addresses[0])))
        assert await ends.get() == 1001
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


@pytest.mark.parametrize("loop_name", ["asyncio"], indirect=True)
async def test_the_client_in_javascript_catches_up_after_a_reconnection(execute, folder):
    if not has_websocket():
        pytest.skip("Node with a WebSocket is not installed")
    source, _ = blocks(ROOT / "docs/guides/browser.md", "js")
    (folder / "live.mjs").write_text(source)
    (folder / "driver.mjs").write_text(DRIVER.replace("live.js", "live.mjs"))
    page = execute(block("wrong id"))
    rooms = page["rooms"]
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
