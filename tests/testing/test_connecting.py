"""`testing.connect`, as tests of users call it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from duck.contrib.websockets import CloseCode, Frame, OpCode, WebSocketView
from duck.contrib.websockets.logging import logger
from duck.contrib.websockets.testing import ConnectionClosed, HandshakeRefused, VirtualTimeLoop, connect
from duck.urls import path, re_path

pytest_plugins = ["duck.pytest_plugin"]


class Echo(WebSocketView):
    SUBPROTOCOLS = ("chat",)
    MAX_FRAME_SIZE = 1 << 20
    CLOSE_TIMEOUT = 0.2

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ended = None

    async def on_receive(self, message, opcode):
        if message == b"fail":
            raise ZeroDivisionError("as asked for")
        if message == b"wait":
            await asyncio.Event().wait()
        if message == b"close":
            await self.send_close(4000, "bye")
        await self.send(message, opcode)

    async def on_close(self, frame=None):
        self.ended = self.close_code


class Room(WebSocketView):
    async def on_open(self):
        await self.send_json([self.kwargs, self.request.query_string, self.request.secure])


class Count(WebSocketView):
    async def on_receive(self, message, opcode):
        self.server.state["messages"] += 1
        await self.send_json(self.server.state["messages"])


async def echo(scope, receive, send):
    """An ASGI application."""
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/deny":
        await send({"type": "websocket.http.response.start", "status": 451, "headers": [(b"x-a", b"b")]})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    if scope["path"] == "/silent":
        return
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0], "headers": [(b"x-a", b"b")]})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "fail":
            raise ZeroDivisionError(scope.get("user"))
        if event.get("text") == "return":
            return
        if event.get("text") == "wait":
            await asyncio.Event().wait()
        await send({"type": "websocket.send", "text": event["text"]})


class EchoClass:
    """The same as a class, as Starlette's endpoints are."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __await__(self):
        return echo(*self.arguments).__await__()


async def test_messages_pass_on_any_loop():
    async with connect(Echo, "/a?b", subprotocols=["chat"], headers={"X-A": "b"}) as ws:
        for message in ("hello", "x" * 300_000, ""):
            await ws.send(message)
            assert await ws.recv() == message
        assert ws.subprotocol == ws.view.subprotocol == "chat"
        assert ws.extensions and ws.view.extensions
        assert ws.view.request.path == "/a" and ws.view.request.headers["x-a"] == "b"
    assert ws.close_code == ws.view.ended == CloseCode.NORMAL_CLOSURE


def test_with_serves_a_synchronous_test(websocket):
    with websocket(Echo) as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
        ws.send("close")
        with pytest.raises(ConnectionClosed, match="4000 bye"):
            next(ws)
        assert ws.wait_closed() == ws.close_code == 4000
    assert ws.view.ended == 4000


def test_a_synchronous_loop_ends_with_the_connection():
    class Counting(WebSocketView):
        async def on_open(self):
            await self.send("1")
            await self.send("2")
            await self.send_close(1000)

    with connect(Counting) as ws:
        assert list(ws) == ["1", "2"]


def test_connections_of_a_synchronous_test_share_their_loop():
    meeting = asyncio.Event()  # belongs to the first loop that waits for it

    loops = []

    class Meeting(WebSocketView):
        async def on_open(self):
            loops.append(asyncio.get_running_loop())

        async def on_receive(self, message, opcode):
            if message == b"wait":
                await meeting.wait()
                await self.send("met")
            else:
                meeting.set()

    with connect(Meeting) as waiting:
        waiting.send("wait")
        with connect(Meeting) as calling, connect(Meeting, loop_factory=VirtualTimeLoop):
            calling.send("come")
            assert waiting.recv() == "met"
        with pytest.raises(HandshakeRefused), connect([path("/a", Meeting)], "/b"):
            pass
        waiting.send("wait")
        assert waiting.recv() == "met"
    assert [loop is loops[0] for loop in loops] == [True, True, False]
    assert [loop.is_closed() for loop in loops] == [True] * 3


async def test_routes_lead_to_their_views():
    patterns = [
        path("/rooms/<name>/<int:page>", Room),
        re_path("/any/(?P<rest>.*)", Room),
        path("/page", lambda request: ""),
    ]
    async with connect(patterns, "/rooms/a/7?q") as ws:
        assert await ws.recv() == '[{"name": "a", "page": 7}, "q", false]'
    async with connect(patterns, "wss://example.org/any/x", kwargs={"own": 1}) as ws:
        assert await ws.recv() == '[{"own": 1, "rest": "x"}, "", true]'
        assert ws.view.request.headers["host"] == "example.org"
    assert (await connect(patterns, "/none").refusal()).status == 404
    assert (await connect(patterns, "/page").refusal()).status == 426


async def test_refusals_are_values():
    refusal = await connect(Echo, origin="https://example.com").refusal()
    assert (refusal.status, refusal.body) == (403, b"connections from this origin are not allowed\n")
    with pytest.raises(HandshakeRefused, match="403 Forbidden"):
        await connect(Echo, origin="https://example.com")
    with pytest.raises(AssertionError, match="was accepted"):
        await connect(Echo, origin="http://testserver").refusal()


def test_a_synchronous_test_gets_refusals_too():
    assert connect(Echo, origin="https://example.com").refusal_sync().status == 403

    async def scenario():
        with pytest.raises(RuntimeError, match="an event loop runs"):
            connect(Echo).refusal_sync()

    asyncio.run(scenario())


async def test_received_frames_are_kept_on_request():
    async with connect(Echo, keep_frames=True, compression=False) as ws:
        await ws.view.send_ping(b"here")
        for size in (1, 200, 70_000):
            await ws.send("x" * size)
            await ws.recv()
        ping, *texts = ws.frames
        assert (ping.opcode, ping.payload) == (OpCode.PING, b"here")
        assert [(frame.opcode, len(frame.payload)) for frame in texts] == [(1, 1), (1, 200), (1, 70_000)]
        ws.send_raw(b"\xff\xff")
        assert await ws.wait_closed() == 1002
        assert ws.frames[-1].payload[:2] == (1002).to_bytes(2)
    async with connect(Echo) as ws:
        with pytest.raises(RuntimeError, match="keep_frames=True"):
            _ = ws.frames


def test_a_blocking_connection_cannot_be_used_after_its_block():
    with connect(Echo) as ws:
        pass
    assert ws.close_code == 1000
    with pytest.raises(RuntimeError, match="within the with block"):
        ws.recv()
    with pytest.raises(RuntimeError, match="within the with block"):
        next(ws)


def test_a_block_ends_once_and_the_next_one_has_a_loop():
    connecting = connect(Echo)
    with connecting:
        pass
    with pytest.raises(RuntimeError, match="the connection is over"):
        connecting.__exit__(None, None, None)
    with connect(Echo) as ws:
        ws.send("x")
        assert ws.recv() == "x"


def test_a_blocking_connection_belongs_to_its_thread():
    def use(call):
        with pytest.raises(RuntimeError, match="belongs to the thread of its with block: open another one"):
            call()

    connecting = connect(Echo)
    with connecting as ws, ThreadPoolExecutor(1) as threads:
        threads.submit(use, ws.recv).result()
        threads.submit(use, lambda: connecting.__exit__(None, None, None)).result()
        ws.send("x")
        assert ws.recv() == "x"


async def test_errors_of_hooks_fail_the_test_with_their_traceback():
    with pytest.raises(ZeroDivisionError, match="as asked for") as caught:
        async with connect(Echo) as ws:
            await ws.send("fail")
            await ws.recv()
    assert caught.traceback[-1].name == "on_receive"
    async with connect(Echo) as ws:
        await ws.send("fail")
        with pytest.raises(ZeroDivisionError):  # expected, so the end of the block does not raise it again
            await ws.recv()
        with pytest.raises(ConnectionClosed, match="1011"):
            await ws.recv()
        assert [type(error) for error in ws.errors] == [ZeroDivisionError]
    with pytest.raises(ZeroDivisionError):  # even if nobody looks
        async with connect(Echo) as ws:
            await ws.send("fail")
    with pytest.raises(AssertionError) as caught:
        async with connect(Echo) as ws:
            await ws.send("fail")
            raise AssertionError
    assert "Echo has failed as well" in caught.value.__notes__[0]
    async with connect(Echo, raise_errors=False) as ws:
        await ws.send("fail")
        assert await ws.wait_closed() == CloseCode.INTERNAL_ERROR
        assert [str(error) for error in ws.errors] == ["as asked for"]


def test_errors_of_hooks_fail_the_test_where_logging_is_off(monkeypatch):
    monkeypatch.setattr(logger, "disabled", True)  # as `logging.config.dictConfig` does by default
    with pytest.raises(ZeroDivisionError), connect(Echo) as ws:
        ws.send("fail")
        ws.recv()


async def test_an_error_that_equals_another_fails_the_test_as_well():
    @dataclass
    class Failure(Exception):
        code: int

    class Failing(WebSocketView):
        async def on_receive(self, message, opcode):
            raise Failure(1)

        async def on_close(self, frame=None):
            raise Failure(1)

    with pytest.raises(Failure) as caught:  # of `on_close`: it was not raised
        async with connect(Failing) as ws:
            await ws.send("x")
            with pytest.raises(Failure):
                await ws.recv()
    assert caught.value is ws.errors[1]


async def test_errors_belong_to_their_connection():
    async with connect(Echo) as sound, connect(Echo, raise_errors=False) as broken:
        await broken.send("fail")
        assert await broken.wait_closed() == CloseCode.INTERNAL_ERROR
        await sound.send("a")
        assert await sound.recv() == "a"
        assert (len(sound.errors), len(broken.errors)) == (0, 1)


async def test_errors_before_a_connection_is_open_are_raised_by_connect():
    class Broken(WebSocketView):
        def __init__(self, *args, **kwargs):
            raise ZeroDivisionError

    class Negotiating(WebSocketView):
        EXTENSIONS = property(lambda self: 1 // 0)

    for view_class in (Broken, Negotiating):
        with pytest.raises(ZeroDivisionError):
            await connect(view_class)


@pytest.mark.in_memory
async def test_a_timeout_names_the_position_of_the_view():
    async with connect(Echo, timeout=0.05) as ws:
        with pytest.raises(
            TimeoutError, match=r"timeout after 0\.05 seconds, waiting for a message: .*no hook of Echo is"
        ):
            await ws.recv()
        await ws.send("wait")
        words = r"Echo\.on_receive is at line \d+ of .*test_connecting\.py: await asyncio\.Event\(\)\.wait\(\)"
        with pytest.raises(TimeoutError, match=words):
            await ws.recv(timeout=0.01)
        with pytest.raises(TimeoutError, match="waiting for the end of the connection"):
            await ws.wait_closed(timeout=0.01)


def test_a_timeout_reports_messages_that_nobody_receives():
    """The end of the connection is behind them."""
    with connect(Echo, timeout=0.05, loop_factory=VirtualTimeLoop) as ws:
        for _ in range(17):
            ws.send("")
        ws.send("close")
        with pytest.raises(TimeoutError, match="the end of the connection: 0 messages were received; 17 wait for recv"):
            ws.wait_closed()
        for _ in range(17):
            ws.recv()
        assert ws.wait_closed() == 4000


async def deaf(scope, receive, send):
    """An ASGI application that answers nothing."""
    await asyncio.Event().wait()


class Undecided(WebSocketView):
    async def on_handshake(self, handshake):
        await asyncio.Event().wait()


@pytest.mark.in_memory
@pytest.mark.parametrize(("application", "name"), [(deaf, "deaf"), (Undecided, r"Undecided\.on_handshake")])
async def test_a_handshake_that_hangs_leaves_no_task(application, name):
    with pytest.raises(TimeoutError, match=rf"an answer .* {name} is at line \d+ of .*test_connecting\.py"):
        await connect(application, timeout=0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.in_memory
async def test_an_on_close_that_hangs_fails_the_test_with_its_name():
    class Hanging(WebSocketView):
        async def on_close(self, frame=None):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"0\.05 seconds after .*Hanging\.on_close is at line \d+ of"):
        async with connect(Hanging, timeout=0.05):
            pass


async def test_breaches_half_frames_resets_and_slow_networks_can_be_tried():
    async with connect(Echo) as ws:
        ws.send_raw(b"\x83\x80abcd")
        assert await ws.wait_closed() == CloseCode.PROTOCOL_ERROR
    assert ws.view.ended == CloseCode.PROTOCOL_ERROR
    async with connect(Echo) as ws:
        ws.send_raw(Frame(OpCode.TEXT, payload=b"half").serialize(mask=True)[:-2])
        ws.send_eof()
        assert await ws.wait_closed() == CloseCode.ABNORMAL_CLOSURE
    async with connect(Echo) as ws:
        ws.drop()
        assert await ws.wait_closed() == ws.view.ended == CloseCode.ABNORMAL_CLOSURE
    async with connect(Echo, stream=True) as ws:
        ws.slow_down()
        await ws.send("hello")
        assert [part async for part in await ws.recv_stream()] == list("hello")


async def test_a_client_may_stop_reading():
    class Flood(WebSocketView):
        COMPRESSION = False
        SLOW_CONSUMER = "drop"

        async def on_receive(self, message, opcode):
            for _ in range(40):
                await self.send(bytes(10_000), OpCode.BINARY)
            await self.send(f"dropped {self.dropped}")

    async with connect(Flood) as ws:
        ws.stop_reading()
        await ws.send("go")
        while not ws.view.dropped:  # noqa: ASYNC110
            await asyncio.sleep(0)
        before = ws.view.dropped
        ws.resume_reading()
        assert len(await ws.recv()) == 10_000
        assert before > 20


@pytest.mark.in_memory
async def test_an_asgi_application_is_tested_as_a_view_is():
    for application in echo, EchoClass:
        async with connect(application, subprotocols=["a", "b"], scope={"user": "duck"}) as ws:
            await ws.send("hello")
            assert (await ws.recv(), ws.subprotocol, ws.response_headers["x-a"]) == ("hello", "a", "b")
    refusal = await connect(echo, "/deny").refusal()
    assert (refusal.status, refusal.headers["x-a"], refusal.body) == (451, "b", b"no")
    assert (await connect(echo, "/silent").refusal()).status == 500
    with pytest.raises(ZeroDivisionError, match="duck"):
        async with connect(echo, subprotocols=["a"], scope={"user": "duck"}) as ws:
            await ws.send("fail")
            await ws.recv()
    for message, code in (("fail", 1011), ("return", 1000)):
        async with connect(echo, subprotocols=["a"], raise_errors=False) as ws:
            await ws.send(message)
            assert await ws.wait_closed() == code
    framework = {"app": echo}
    source = "async def call(scope, receive, send): await app(scope, receive, send)"
    exec(compile(source, "/site-packages/framework.py", "exec"), framework)
    for application in (echo, framework["call"]):
        with pytest.raises(TimeoutError, match=r"; echo is at line \d+"):
            async with connect(application, subprotocols=["a"], timeout=0.05) as ws:
                await ws.send("wait")
                await ws.recv()
    async with connect(Echo.as_asgi(), subprotocols=["chat"]) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"


async def test_only_the_end_of_its_client_is_no_error_of_an_asgi_application():
    """As under uvicorn: a `ConnectionClosed` of another connection, as in a relay, is one."""

    async def sending(scope, receive, send):
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "hello"})
            await asyncio.sleep(0)

    async def relaying(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise ConnectionClosed(4000, "of the source")

    async with connect(sending) as ws:
        assert await ws.recv() == "hello"
    assert ws.errors == []
    with pytest.raises(ConnectionClosed, match="4000 of the source"):
        async with connect(relaying) as ws:
            await ws.recv()
    assert ws.close_code == 1011


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_an_exit_of_an_asgi_application_closes_its_connection(error):
    """As under uvicorn. It ended the loop of the test, or left the test waiting."""

    async def failing(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise error("as the test expects")

    async with connect(failing, raise_errors=False) as ws:
        with pytest.raises(ConnectionClosed, match="1011 internal error"):
            await ws.recv()
    assert [type(each) for each in ws.errors] == [error]


async def test_a_client_that_leaves_before_the_answer_is_no_error_of_an_asgi_application(caplog):
    asked, gone, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late(scope, receive, send):
        asked.set()
        await gone.wait()
        try:
            await send({"type": "websocket.accept"})
        finally:
            ended.set()

    opening = asyncio.create_task(connect(late).__aenter__())
    await asked.wait()
    opening.cancel()
    await asyncio.sleep(0)
    gone.set()
    await asyncio.wait([opening])
    assert ended.is_set()
    assert not caplog.records


@pytest.mark.parametrize("application", [Count, [path("/", Count)]])
def test_a_view_gets_the_server_of_the_test(application):
    server = SimpleNamespace(state={"messages": 3})
    with connect(application, server=server) as ws:
        ws.send("x")
        assert ws.recv() == "4"
        assert ws.view.server is server


def test_a_message_is_handled_once_although_its_handler_raises_keyboard_interrupt():
    handled = []

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            handled.append(message)
            raise KeyboardInterrupt

    async def scenario():
        async with connect(View) as ws:
            await ws.send("x")
            await ws.recv()

    with pytest.raises(KeyboardInterrupt), asyncio.Runner() as runner:
        runner.run(scenario())
    assert handled == [b"x"]
