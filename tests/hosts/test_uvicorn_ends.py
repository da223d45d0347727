"""The end of a connection on our protocol for uvicorn: by its application, its client or its server."""

import asyncio

import pytest

from duck.contrib.websockets import CloseCode, ConnectionClosed, OpCode, WebSocketView

from .applications import ACCEPT, App, Echo, answering

pytest.importorskip("uvicorn")


@pytest.fixture
def quick_shutdown(monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.uvicorn.WebSocketProtocol.SHUTDOWN_TIMEOUT", 0.2)


async def test_the_application_closes_with_its_code_and_reason(serving_asgi, dial):
    outcome = []
    app = answering(ACCEPT, {"type": "websocket.close", "code": 4001, "reason": "enough"}, outcome=outcome)
    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        assert await peer.closing() == (4001, "enough")
        peer.send("dropped")
        peer.close(4001)
        assert await peer.rest() == []
    assert outcome == [{"type": "websocket.disconnect", "code": 4001, "reason": "enough"}]


async def test_send_fails_after_closing(serving_asgi, dial):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await send({"type": "websocket.close"})
        with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
            await send({"type": "websocket.send", "text": "late"})
        await send({"type": "websocket.close"})

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        assert await peer.closing() == (1000, "")
        peer.close()
        assert await peer.rest() == []


@pytest.mark.parametrize(
    ("returned", "code", "told"),
    [
        (None, CloseCode.NORMAL_CLOSURE, []),
        ("a", CloseCode.INTERNAL_ERROR, ["ASGI callable should return None, but returned 'a'."]),
    ],
)
async def test_an_application_that_returns_closes_the_connection(serving_asgi, dial, caplog, returned, code, told):
    async def app(scope, receive, send):
        await send(ACCEPT)
        return returned

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        assert (await peer.closing())[0] == code
        peer.close(code)
    assert caplog.messages == told


@pytest.mark.parametrize("error", [ValueError("as the test expects"), ConnectionClosed(1001, "as the test expects")])
async def test_an_application_that_fails_closes_with_1011(serving_asgi, dial, caplog, error):
    """A `ConnectionClosed` of another connection, as in a relay, is an error as well."""

    async def app(scope, receive, send):
        await send(ACCEPT)
        await receive()
        await receive()
        raise error

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        peer.send("now")
        assert await peer.closing() == (1011, "internal error")
        peer.close(1011)
    assert "as the test expects" in caplog.text


@pytest.mark.parametrize("leave", ["leave", "reset", "shut"])
async def test_a_client_that_vanishes_is_1006(serving_asgi, dial, caplog, leave, until):
    """Each later `receive` returns the same event, and `send` raises an OSError, which is not logged as a fault."""
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        events.extend([await receive(), await receive()])
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "?"})
        await send({"type": "websocket.send", "text": "?"})

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        getattr(peer, leave)()
        await until(lambda: not server.state.tasks)
    assert events == [{"type": "websocket.disconnect", "code": 1006}] * 2
    assert not caplog.records


async def test_an_application_learns_that_its_client_left_before_the_answer(serving_asgi, dial, until):
    events = []

    async def app(scope, receive, send):
        events.extend([await receive(), await receive()])
        with pytest.raises(OSError, match="closed"):
            await send(ACCEPT)

    async with serving_asgi(app) as server, dial(server) as peer:
        await until(lambda: events or server.state.tasks)
        peer.leave()
        await until(lambda: not server.state.tasks)
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.disconnect"]


async def test_an_application_that_goes_on_to_receive_after_the_end_does_not_stop_the_loop(serving_asgi, dial, until):
    turns = []  # of other callbacks of the loop, while the application receives

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        for _ in range(9):
            assert (await receive())["type"] == "websocket.disconnect"
            asyncio.get_running_loop().call_soon(turns.append, len(turns))
        assert turns

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        peer.leave()
        await until(lambda: not server.state.tasks)
    assert turns == list(range(9))


async def test_messages_before_the_end_are_still_received(serving_asgi, dial, until):
    go_on = asyncio.Event()
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go_on.wait()
        events.extend([await receive() for _ in range(3)])

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        peer.send("one", b"two")
        peer.close(4000)
        assert await peer.closing() == (4000, "")
        go_on.set()
        await until(lambda: not server.state.tasks)
    assert [event.get("text", event.get("bytes", event.get("code"))) for event in events] == ["one", b"two", 4000]


async def test_a_server_that_shuts_down_closes_with_1012(serving_asgi, dial):
    app = App()
    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        closing = asyncio.create_task(server.shut_down())
        assert await peer.closing() == (1012, "")
        peer.close(1012)
        assert await peer.rest() == []
        await closing
    assert app.events[-1]["type"] == "websocket.disconnect"
    assert app.events[-1]["code"] == 1012


@pytest.mark.usefixtures("quick_shutdown")
@pytest.mark.parametrize("app", [Echo.as_asgi(), App()], ids=["view", "application"])
async def test_a_server_that_shuts_down_does_not_wait_for_silent_clients(serving_asgi, dial, app):
    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        await server.shut_down()
        assert await peer.closing() == (1012, "")


class Pushing(WebSocketView):
    """Sends more than the sockets hold, and does not wait until it has left."""

    async def on_open(self):
        self.sending = asyncio.create_task(self.send(PUSHED, OpCode.BINARY))

    async def on_close(self, frame=None):
        await asyncio.gather(self.sending, return_exceptions=True)


PUSHED = bytes(2**24)


async def pushing(scope, receive, send):
    await receive()
    await send(ACCEPT)
    sending = asyncio.create_task(send({"type": "websocket.send", "bytes": PUSHED}))
    await receive()
    await asyncio.gather(sending, return_exceptions=True)


async def frame_header(peer):
    first, size = await peer.reader.readexactly(2)
    return first, int.from_bytes(await peer.reader.readexactly(8)) if size == 127 else size


@pytest.mark.parametrize("app", [Pushing.as_asgi(), pushing], ids=["view", "application"])
async def test_a_client_that_reads_gets_everything_from_a_server_that_shuts_down(serving_asgi, dial, app):
    """The client gets all messages and the close frame, though the transfer takes longer than SHUTDOWN_TIMEOUT."""
    async with serving_asgi(app) as server, dial(server, receive_buffer=65536) as peer:
        await peer.head()
        first, size = await frame_header(peer)
        closing = asyncio.create_task(server.shut_down())
        received = 0
        while first & 15 != OpCode.CLOSE:
            for start in range(0, size, 65536):
                received += len(await peer.reader.readexactly(min(65536, size - start)))
                if received % 2**20 == 0:
                    await asyncio.sleep(0.08)
            first, size = await frame_header(peer)
        assert received == len(PUSHED)
        assert await peer.reader.readexactly(2) == CloseCode.SERVICE_RESTART.to_bytes(2)
        peer.close(CloseCode.SERVICE_RESTART)
        await closing


@pytest.mark.usefixtures("quick_shutdown")
@pytest.mark.parametrize("app", [Pushing.as_asgi(), pushing], ids=["view", "application"])
async def test_a_client_that_does_not_read_does_not_delay_the_shutdown(serving_asgi, dial, app):
    async with serving_asgi(app) as server, dial(server, receive_buffer=65536) as peer:
        await peer.head()
        await server.shut_down()


@pytest.mark.parametrize("begin", ["a broken rule", "shutdown"])
async def test_send_after_our_close_frame_is_no_fault(serving_asgi, dial, until, caplog, begin):
    """The peer has not answered the close frame yet."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0)

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        if begin == "shutdown":
            closing = asyncio.create_task(server.shut_down())
            await until(lambda: not server.state.tasks)
            peer.leave()
            await closing
        else:
            peer.write(b"\xff" * 10)
            await until(lambda: not server.state.tasks)
    assert not caplog.records


async def test_a_server_that_shuts_down_answers_waiting_requests_with_503(serving_asgi, dial, until):
    events = []

    async def app(scope, receive, send):
        events.extend([await receive(), await receive()])

    async with serving_asgi(app) as server, dial(server) as peer:
        await until(lambda: server.state.tasks)
        ending = asyncio.create_task(server.shut_down())
        assert (await peer.head())[0] == 503
        peer.leave()
        await ending
    assert events[-1] == {"type": "websocket.disconnect", "code": 1006}


async def test_a_view_whose_middleware_outlasts_the_server_is_no_error(serving_asgi, dial, until, caplog):
    is_over = asyncio.Event()

    async def app(scope, receive, send):
        await is_over.wait()  # such as a look-up of the user
        await WebSocketView.as_asgi()(scope, receive, send)

    async with serving_asgi(app) as server, dial(server) as peer:
        await until(lambda: server.state.tasks)
        ending = asyncio.create_task(server.shut_down())
        assert (await peer.head())[0] == 503
        is_over.set()
        await until(lambda: not server.state.tasks)
        peer.leave()
        await ending
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


async def test_cancelling_the_task_of_an_application_closes_with_1012(serving_asgi, dial):
    async with serving_asgi(App()) as server, dial(server) as peer:
        await peer.head()
        (task,) = server.state.tasks
        task.cancel()
        assert await peer.closing() == (1012, "")
        peer.close(1012)
