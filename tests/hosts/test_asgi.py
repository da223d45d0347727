"""Views as ASGI applications: on our protocol for uvicorn, which hands over the connection, and on other servers."""

import asyncio
import logging
from typing import ClassVar

import pytest

from duck.contrib.websockets import Frame, OpCode

from ..support.errors import Panic
from .applications import Echo, settled

pytest.importorskip("uvicorn")

OTHERS = "websockets-sansio"


@pytest.fixture
def serving_view(serving_asgi, ws):
    """Serves a view as an ASGI application, `async with serving_view(View)`, behind `route` if there is one."""

    def serving_view(view_class, route=None, **options):
        app = view_class.as_asgi(given="here")

        async def routed(scope, receive, send):
            await app({**scope, **route}, receive, send)

        return serving_asgi(routed if route else app, ws=ws, ws_per_message_deflate=False, **options)

    return serving_view


async def test_messages_are_echoed(serving_view, dial):
    messages = ["text", b"binary", "", b"", "mixed: é ✓ 🦆\0", *map(str, range(500)), "🦆" * 20_000]
    async with serving_view(Echo) as server, dial(server, read_limit=2**20) as peer:
        assert (await peer.head())[0] == 101
        peer.send(*messages)
        assert [await peer.message() for _ in messages] == messages
        peer.close()
        await peer.closing()


@pytest.mark.parametrize(
    "route",
    [{"path_params": {"room": "lobby"}}, {"url_route": {"args": (), "kwargs": {"room": "lobby"}}}],
    ids=["starlette", "channels"],
)
async def test_a_view_has_the_request_of_the_scope(serving_view, dial, route):
    class View(Echo):
        pass

    headers = {"Sec-WebSocket-Protocol": "other, duck", "X-Name": "value", "X-Forwarded-For": "192.0.2.7"}
    async with (
        serving_view(View, route=route) as server,
        dial(server, target="/a%20path?q=1", headers=headers) as peer,
    ):
        _, fields = await peer.head()
        assert fields["sec-websocket-protocol"] == "duck"
        peer.send("hello")
        assert await peer.message() == "hello"
        (view,) = View.views
        assert view.kwargs == {"given": "here", "room": "lobby"}
        assert view.subprotocol == "duck"
        request = view.request
        assert (request.method, request.path, request.query) == ("GET", "/a path", {"q": ["1"]})
        assert request.get_header("x-name") == "value"
        assert request.client_address == ("192.0.2.7", 0)
        assert not request.secure
        peer.close()
        await peer.closing()


async def test_the_view_gets_the_clients_close_frame(serving_view, dial, until):
    class View(Echo):
        frame = None

        async def on_close(self, frame=None):
            type(self).frame = frame

    async with serving_view(View) as server, dial(server) as peer:
        await peer.head()
        peer.close(4000, "enough")
        assert (await peer.closing())[0] == 4000
        await until(lambda: View.frame)
        (view,) = View.views
        assert (view.close_code, view.close_reason) == (4000, "enough")


async def test_the_client_gets_the_views_close_code(serving_view, dial, until):
    class View(Echo):
        closed = False

        async def on_receive(self, message, opcode):
            await self.send("bye")
            await self.send_close(4001, "as asked")

        async def on_close(self, frame=None):
            type(self).closed = True

    async with serving_view(View) as server, dial(server) as peer:
        await peer.head()
        peer.send("close")
        assert await peer.message() == "bye"
        assert await peer.closing() == (4001, "as asked")
        peer.close(4001)
        await until(lambda: View.closed)
        assert View.views[0].close_code == 4001


async def test_a_client_that_vanishes_is_1006(serving_view, dial, until):
    class View(Echo):
        closed: ClassVar[list] = []

        async def on_close(self, frame=None):
            self.closed.append(self.close_code)

    async with serving_view(View) as server, dial(server) as peer:
        await peer.head()
        peer.send("here")
        assert await peer.message() == "here"
        peer.leave()
        await until(lambda: View.closed)
    assert View.closed[0] in (1005, 1006)  # uvicorn's own protocol reports 1005


async def test_an_error_in_a_hook_closes_with_1011(serving_view, dial, caplog):
    class View(Echo):
        async def on_receive(self, message, opcode):
            raise ValueError("as the test expects")

    async with serving_view(View) as server, dial(server) as peer:
        await peer.head()
        peer.send("now")
        assert await peer.closing() == (1011, "internal error")
        peer.close(1011)
    assert "as the test expects" in caplog.text


async def test_a_message_over_the_limit_closes_with_1009(serving_view, dial):
    class View(Echo):
        MAX_FRAME_SIZE = 1000

    async with serving_view(View) as server, dial(server) as peer:
        await peer.head()
        peer.send(bytes(1001))
        assert await peer.closing() == (1009, "message too big")
        peer.close(1009)


async def test_a_foreign_origin_is_refused_with_the_reason_of_the_view(serving_view, dial):
    async with serving_view(Echo) as server, dial(server, headers={"Origin": "http://example.org"}) as peer:
        status, headers = await peer.head()
        assert status == 403
        body = await peer.reader.readexactly(int(headers["content-length"]))
        assert body == b"connections from this origin are not allowed\n"


async def test_a_client_that_does_not_read_makes_send_wait(serving_view, dial):
    class View(Echo):
        sent: ClassVar[list] = []

        async def on_receive(self, message, opcode):
            for _ in range(160):
                await self.send(bytes(65536))
                self.sent.append(1)
            await self.send_close()

    async with serving_view(View) as server, dial(server, receive_buffer=4096) as peer:
        await peer.head()
        peer.send("flood")
        await settled(View.sent)
        assert len(View.sent) < 160
        assert [len(await peer.message()) for _ in range(160)] == [65536] * 160
        assert await peer.closing() == (1000, "")
        peer.close()


async def test_an_error_in_the_init_of_a_view_is_answered_500(serving_view, dial, caplog):
    class View(Echo):
        def __init__(self, request, **kwargs):
            raise ValueError("as the test expects")

    async with serving_view(View) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500
    assert "as the test expects" in caplog.text


async def test_a_request_without_upgrade_is_refused(serving_view):
    async with serving_view(Echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 426 ")
        writer.close()


async def test_a_scope_of_another_type_is_an_error():
    with pytest.raises(ValueError, match=r"Echo as an ASGI application.*'lifespan'"):
        await Echo.as_asgi()({"type": "lifespan"}, None, None)


def test_a_class_in_place_of_its_application_is_an_error_with_advice():
    """Servers call a class with the scope, and its object with the functions, as in the first version of ASGI."""
    with pytest.raises(TypeError, match=r"serve Echo\.as_asgi\(\)"):
        Echo({"type": "websocket"})(None, None)


class Talker(Echo):
    """Pings, or sends fragments."""

    async def on_receive(self, message, opcode):
        if message == b"ping":
            await self.send_ping(b"ping")
            await self.send("done")
        elif message == b"round trip":
            try:
                await self.ping()
            except RuntimeError as error:
                await self.send(str(error))
        else:
            await self.send(fragments())


async def fragments():
    for part in ("frag", "ments"):
        await asyncio.sleep(0)  # so that each leaves by itself
        yield part


async def test_on_our_protocol_for_uvicorn_a_view_has_the_whole_connection(serving_asgi, dial):
    async with serving_asgi(Talker.as_asgi()) as server, dial(server) as peer:
        await peer.head()
        peer.send("ping")
        assert (await peer.frame()).opcode == OpCode.PING
        assert await peer.message() == "done"
        peer.send(Frame(OpCode.TEXT, False, b"in "), Frame(OpCode.CONTINUATION, payload=b"parts"))
        assert [(await peer.frame()).fin for _ in range(3)] == [False, False, True]
        closing = asyncio.create_task(server.shut_down())
        assert await peer.closing() == (1012, "")
        peer.close(1012)
        await closing


async def test_missing_features_of_asgi_are_logged_once(serving_asgi, dial, caplog):
    caplog.set_level(logging.WARNING, "duck.contrib.websockets")
    async with (
        serving_asgi(Talker.as_asgi(), ws=OTHERS, ws_per_message_deflate=False) as server,
        dial(server) as peer,
    ):
        await peer.head()
        for _ in range(3):
            peer.send("ping", "fragments")
            assert [await peer.message(), await peer.message()] == ["done", "fragments"]
        peer.send("round trip")
        assert await peer.message() == "messages of ASGI have no pings: the server sends its own"
        peer.close()
        await peer.closing()
    first, second = (record.getMessage() for record in caplog.records if record.name == "duck.contrib.websockets")
    assert "Talker on messages of ASGI: a ping is not sent" in first
    assert "a message is gathered from its fragments" in second


class ByClass(Echo):
    PING_INTERVAL = 0.01
    PONG_TIMEOUT = 0.01
    RECEIVE_TIMEOUT = 0.05


class ByProperty(Echo):
    PING_INTERVAL = property(lambda self: 0.01)
    RECEIVE_TIMEOUT = property(lambda self: 0.05)


class ByHandshake(Echo):
    async def on_handshake(self, handshake):
        self.RECEIVE_TIMEOUT = 0.05


class WhileOpen(Echo):
    async def on_open(self):
        self.RECEIVE_TIMEOUT = 0.05


async def test_the_heartbeat_is_left_to_the_server(serving_asgi, dial):
    async def is_kept(View):
        async with (
            serving_asgi(View.as_asgi(), ws=OTHERS, ws_per_message_deflate=False) as server,
            dial(server) as peer,
        ):
            await peer.head()
            await asyncio.sleep(0.15)
            peer.send("still here")
            assert await peer.message() == "still here"
            peer.close()
            await peer.closing()

    await asyncio.gather(*map(is_kept, [ByClass, ByProperty, ByHandshake, WhileOpen]))


@pytest.mark.parametrize("hook", ["on_open", "on_receive", "on_close", "_receive_loop"])
@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, Panic])
async def test_a_system_exit_of_a_view_does_not_end_the_server(serving_view, dial, until, caplog, hook, error):
    class View(Echo):
        ended = False

        async def on_close(self, frame=None):
            type(self).ended = True

    async def fail(self, *args):
        View.ended = hook == "on_close"
        raise error("as the test expects")

    setattr(View, hook, fail)
    View.__init_subclass__()
    async with serving_view(View) as server, dial(server) as peer:
        await peer.head()
        peer.send("now")
        if hook == "on_close":
            assert await peer.message() == "now"
            peer.close()
        else:
            assert await peer.closing() == (1011, "internal error")
            peer.close(1011)
        await until(lambda: View.ended)
    assert "as the test expects" in caplog.text


async def test_a_view_works_on_a_loop_with_eager_tasks(serving_view, dial, eager_tasks):
    class View(Echo):
        async def on_open(self):
            await asyncio.sleep(0)
            await self.send("open")

        async def on_receive(self, message, opcode):
            await self.send(await asyncio.create_task(asyncio.sleep(0, message)), opcode)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(eager_tasks)
    try:
        async with serving_view(View) as server, dial(server) as peer:
            await peer.head()
            peer.send("one", "two")
            assert [await peer.message() for _ in range(3)] == ["open", "one", "two"]
            peer.close()
            await peer.closing()
    finally:
        loop.set_task_factory(None)
