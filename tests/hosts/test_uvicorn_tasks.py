"""ASGI applications on our protocol for uvicorn: limits, pings, tasks and contexts."""

import asyncio
import logging

import pytest

from duck.contrib.websockets import OpCode

from ..support.errors import Panic
from .applications import ACCEPT, App, answering, settled

pytest.importorskip("uvicorn")

# Limits


async def test_a_message_over_ws_max_size_closes_with_1009(serving_asgi, dial):
    app = App()
    async with serving_asgi(app, ws_max_size=1000) as server, dial(server) as peer:
        await peer.head()
        peer.send(bytes(1000))
        assert await peer.message() == bytes(1000)
        peer.send(bytes(1001))
        assert await peer.closing() == (1009, "message too big")
    assert app.events[-1] == {"type": "websocket.disconnect", "code": 1009, "reason": "message too big"}


@pytest.mark.parametrize(
    ("options", "size"),
    [({"ws_max_queue": 4}, 1), ({"ws_max_queue": 1000, "ws_max_size": 2000}, 1000)],
    ids=["messages", "bytes"],
)
async def test_an_application_that_does_not_receive_pauses_reading(serving_asgi, dial, options, size, until):
    go_on = asyncio.Event()
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go_on.wait()
        while (event := await receive())["type"] == "websocket.receive":
            events.append(event["bytes"])

    async with serving_asgi(app, **options) as server, dial(server) as peer:
        await peer.head()
        (protocol,) = server.state.connections
        messages = [bytes([i]) * size for i in range(50)]
        for message in messages:
            peer.send(message)
            await asyncio.sleep(0)
        await until(lambda: not protocol.transport.is_reading())
        go_on.set()
        await peer.settled()
        assert events == messages
        await until(protocol.transport.is_reading)
        peer.close()
        assert await peer.closing() == (1000, "")


async def test_a_client_that_does_not_read_makes_send_wait(serving_asgi, dial):
    sent = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        for _ in range(160):
            await send({"type": "websocket.send", "bytes": bytes(65536)})
            sent.append(1)

    async with serving_asgi(app) as server, dial(server, receive_buffer=4096) as peer:
        await peer.head()
        await settled(sent)
        assert len(sent) < 160
        assert [len(await peer.message()) for _ in range(160)] == [65536] * 160


# The heartbeat


async def test_a_ping_that_is_not_answered_ends_the_connection(serving_asgi, dial):
    app = App()
    async with serving_asgi(app, ws_ping_interval=0.05, ws_ping_timeout=0.05) as server, dial(server) as peer:
        await peer.head()
        assert (await peer.frame()).opcode == OpCode.PING
        assert await peer.closing() == (1011, "keepalive ping timeout")
        assert await peer.rest() == []
    assert app.events[-1] == {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}


@pytest.mark.parametrize("timeout", [10, None])
async def test_pings_are_sent_at_uvicorns_interval(serving_asgi, dial, timeout):
    """With None for the timeout a ping need not be answered."""
    async with serving_asgi(App(), ws_ping_interval=0.05, ws_ping_timeout=timeout) as server, dial(server) as peer:
        await peer.head()
        for _ in range(3):
            ping = await peer.frame()
            assert ping.opcode == OpCode.PING
            if timeout is not None:
                peer.pong(ping.payload)


# The application's task


async def test_the_application_runs_in_its_task_and_its_context(serving_asgi, dial):
    from contextvars import ContextVar

    variable = ContextVar("variable", default=None)
    seen = []

    async def app(scope, receive, send):
        variable.set("set")
        task = asyncio.current_task()
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            event = await receive()
            seen.append((variable.get(), asyncio.current_task() is task, event["text"]))
            await send({"type": "websocket.send", "text": "next"})
        await receive()

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        for i in range(3):
            peer.send(str(i))
            assert await peer.message() == "next"
    assert seen == [("set", True, str(i)) for i in range(3)]
    assert variable.get() is None


async def test_a_message_resumes_the_application_once(serving_asgi, dial):
    """A second wake-up would cost as much as the message itself."""
    waits = []

    class Counted:
        """Awaits an awaitable, and counts its waits."""

        def __init__(self, awaitable):
            self.awaitable = awaitable

        def __await__(self):
            waits.append(0)
            for future in self.awaitable.__await__():
                waits[-1] += 1
                yield future

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            await send({"type": "websocket.send", "text": "ready"})
            await Counted(receive())

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        for _ in range(3):
            assert await peer.message() == "ready"
            peer.send("a message")
        assert await peer.closing() == (1000, "")
    assert waits == [1, 1, 1]


async def test_receive_may_be_given_up_and_called_again(serving_asgi, dial):
    """`asyncio.wait_for` and the groups of other libraries do so; no message is lost."""
    received = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
        task = asyncio.create_task(receive())
        await asyncio.sleep(0)
        task.cancel("the words of who cancels")
        with pytest.raises(asyncio.CancelledError, match="the words of who cancels"):
            await task
        await send({"type": "websocket.send", "text": "ready"})
        both = [asyncio.create_task(receive()), asyncio.create_task(receive())]
        received.extend([(await task)["text"] for task in both])

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        assert await peer.message() == "ready"
        peer.send("one", "two")
        assert await peer.closing() == (1000, "")
    assert received == ["one", "two"]


async def test_every_waiting_receive_learns_of_the_end(serving_asgi, dial):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        events.extend(await asyncio.gather(receive(), receive(), receive()))

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        peer.send("one")
        peer.close(4000)
        assert await peer.closing() == (4000, "")
    assert [event.get("text", event.get("code")) for event in events] == ["one", 4000, 4000]


async def test_replies_to_the_messages_of_one_read_leave_together(serving_asgi, dial):
    async with serving_asgi(App()) as server, dial(server) as peer:
        await peer.head()
        peer.send(*map(str, range(100)))
        data = await peer.reader.read(100_000)
        assert len(data) == 10 * 3 + 90 * 4


async def test_connections_are_traced_as_by_uvicorn(serving_asgi, dial, caplog):
    caplog.set_level(5, "uvicorn.error")
    logging.addLevelName(5, "TRACE")
    async with serving_asgi(App()) as server, dial(server) as peer:
        await peer.head()
    assert any(message.endswith(" - WebSocket connection made") for message in caplog.messages)
    assert any(message.endswith("WebSocket connection lost") for message in caplog.messages)


@pytest.mark.parametrize("allowed", [True, False])
async def test_uvicorns_setting_decides_on_compression(serving_asgi, allowed):
    websockets = pytest.importorskip("websockets")
    messages = ["text " * 1000, b"binary" * 1000, "", b""]
    async with (
        serving_asgi(App(), ws_per_message_deflate=allowed) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}") as client,
    ):
        agreed = [extension.name for extension in client.protocol.extensions]
        assert agreed == (["permessage-deflate"] if allowed else [])
        for message in messages:
            await client.send(message)
            assert await client.recv() == message


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, Panic, asyncio.CancelledError])
@pytest.mark.parametrize("accepts", [True, False])
async def test_a_system_exit_of_an_application_does_not_end_the_server(serving_asgi, dial, caplog, error, accepts):
    async def failing(scope, receive, send):
        await receive()
        if accepts:
            await send(ACCEPT)
        raise error("as the test expects")

    async with serving_asgi(failing) as server:
        for _ in range(2):  # and the server lives
            async with dial(server) as peer:
                if accepts:
                    assert (await peer.head())[0] == 101
                    assert await peer.closing() == (1011, "internal error")
                    peer.close(1011)
                else:
                    assert (await peer.head())[0] == 500
    assert "Exception in ASGI application" in caplog.text
    assert "as the test expects" in caplog.text


async def test_an_application_works_on_a_loop_with_eager_tasks(serving_asgi, dial, until, eager_tasks):
    """uvicorn sets the protocol of the transport only after it has handed over the request."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager_tasks)
    try:
        for app in App(), answering({"type": "websocket.close"}):
            async with serving_asgi(app) as server, dial(server) as peer:
                status, _ = await peer.head()
                if isinstance(app, App):
                    assert status == 101
                    peer.send("hello")
                    assert await peer.message() == "hello"
                    peer.close()
                    await peer.closing()
                    await until(lambda app=app: app.events[-1]["type"] == "websocket.disconnect")
                else:
                    assert status == 403
    finally:
        loop.set_task_factory(None)
