"""The hooks of a view: their order, their arguments, and their errors."""

import asyncio
import contextvars
import gc
import types
import weakref
from abc import ABC

import pytest

from duck.contrib.websockets import Frame, OpCode, State, WebSocketView
from duck.contrib.websockets.client import WebSocketClient
from duck.contrib.websockets.testing import VirtualTimeLoop
from duck.contrib.websockets.testing import connect as in_memory
from duck.http.request import HttpRequest

from ..support.views import OpcodeRecorder as Recorder

pytestmark = pytest.mark.in_memory


async def test_hooks_are_called_in_order(connect):
    async with connect(Recorder) as session:
        peer = session.peer
        peer.send("one", b"two")
        assert [await peer.message(), await peer.message()] == ["one", b"two"]
        peer.close(4000, "bye")
        assert await peer.closing() == (4000, "")
        assert await peer.rest() == []
        assert await session.ended() is None
        assert session.view.events == ["open", ("TEXT", b"one"), ("BINARY", b"two"), b"\x0f\xa0bye"]


async def test_on_receive_gets_bytes_and_the_opcode(connect):
    class View(WebSocketView):
        async def on_receive(self, *args, **kwargs):
            message, opcode = args
            assert type(message) is bytes
            assert type(opcode) is OpCode
            assert not kwargs
            await self.send(f"{opcode!r} {len(message)}")

    async with connect(View) as session:
        session.peer.send("", b"", "x" * 100_000, b"x" * 100_000)
        replies = [await session.peer.message() for _ in range(4)]
        assert replies == [f"{opcode!r} {size}" for size in (0, 100_000) for opcode in (OpCode.TEXT, OpCode.BINARY)]


async def test_fragments_are_delivered_as_one_message(connect):
    async with connect(Recorder) as session:
        session.peer.send(Frame(OpCode.TEXT, False, b"Hel"), Frame(OpCode.PING, payload=b"?"), Frame(0, payload=b"lo"))
        frames = [await session.peer.frame(), await session.peer.frame()]
        assert {(frame.opcode, frame.payload) for frame in frames} == {(OpCode.PONG, b"?"), (OpCode.TEXT, b"Hello")}
        assert session.view.events == ["open", ("TEXT", b"Hello")]


async def test_on_open_and_on_close_may_be_left_out(connect):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send("got it")

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "got it"


async def test_a_handler_may_be_a_function_that_gives_an_awaitable(connect):
    class Custom:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()

    class Plain:
        def __await__(self):
            return iter([None, None])  # without `send` and `throw`

    @types.coroutine
    def generator():
        yield

    class View(WebSocketView):
        def on_receive(self, message, opcode):
            awaitables = {
                b"send": lambda: self.send("sent"),
                b"coroutine": lambda: asyncio.sleep(0),
                b"task": lambda: asyncio.create_task(asyncio.sleep(0)),
                b"gathered": lambda: asyncio.gather(self.send("one"), asyncio.sleep(0)),
                b"custom": Custom,
                b"plain": Plain,
                b"generator": generator,
            }
            return awaitables[message]()

    async with connect(View) as session:
        session.peer.send("plain", "generator", "custom", "gathered", "coroutine", "task", "send", "custom", "send")
        assert {await session.peer.message() for _ in range(3)} == {"one", "sent"}


async def test_a_view_and_a_client_may_have_a_metaclass():
    class View(WebSocketView, ABC):
        async def on_receive(self, message, opcode):
            await self.send(message)

    class Client(WebSocketClient, ABC):
        pass

    async with in_memory(View) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
    with pytest.raises(ConnectionError):
        await Client("ws://127.0.0.1:1").open()


async def test_no_message_is_handled_before_on_open_has_ended(connect):
    class View(Recorder):
        async def on_open(self):
            self.may_go_on = asyncio.Event()
            self.opening = asyncio.Event()
            self.opening.set()
            await self.may_go_on.wait()
            await asyncio.sleep(0)
            self.events.append("opened")

    async with connect(View) as session:
        view = session.view
        await view.opening.wait()
        # The answer to the ping, in one piece with them, shows that the messages have come.
        session.peer.send(*map(str, range(50)), Frame(OpCode.PING))
        assert (await session.peer.frame()).opcode == OpCode.PONG
        assert view.events == []
        view.may_go_on.set()
        assert [await session.peer.message() for _ in range(50)] == [str(i) for i in range(50)]
        assert view.events == ["opened", *(("TEXT", b"%d" % i) for i in range(50))]


async def test_on_open_may_send_and_wait_for_messages_to_be_sent(connect):
    class View(Recorder):
        async def on_open(self):
            for i in range(3):
                await self.send(str(i))

    async with connect(View) as session:
        assert [await session.peer.message() for _ in range(3)] == ["0", "1", "2"]


async def test_a_view_works_in_the_debug_mode_of_asyncio(connect):
    asyncio.get_running_loop().set_debug(True)
    async with connect(Recorder) as session:
        session.peer.send(*["x"] * 100)
        assert [await session.peer.message() for _ in range(100)] == ["x"] * 100


# Isolation


variable = contextvars.ContextVar("variable", default=None)


async def test_connections_share_no_context(serving, dial):
    """A context variable that a hook sets is invisible to other connections, and to later ones."""

    class View(WebSocketView):
        async def on_open(self):
            self.seen = [variable.get()]
            variable.set(id(self))

        async def on_receive(self, message, opcode):
            self.seen.append(variable.get())
            variable.set(id(self))
            await asyncio.sleep(0)
            await self.send(str(variable.get() == id(self)))

    async with serving(View) as server:
        for _ in range(2):
            async with dial(server) as one, dial(server) as two:
                for peer in (one, two):
                    await peer.head()
                for peer in (one, two, one, two):
                    peer.send("x")
                    assert await peer.message() == "True"
                for _ in range(2):
                    view, _ = server.views.get_nowait()
                    assert set(view.seen) <= {None, id(view)}


async def test_views_share_no_state(serving, dial):
    async with serving(Recorder) as server, dial(server) as one, dial(server) as two:
        for peer in (one, two):
            await peer.head()
        one.send("to one")
        two.send("to two")
        assert await one.message() == "to one"
        assert await two.message() == "to two"
        views = [server.views.get_nowait()[0] for _ in range(2)]
        assert sorted(view.events[1] for view in views) == [("TEXT", b"to one"), ("TEXT", b"to two")]
        assert views[0].extensions == views[1].extensions == ()  # which is immutable


async def test_an_ended_connection_leaves_nothing(serving, dial):
    left = []
    async with serving(Recorder) as server:
        for end in ("close", "leave"):
            async with dial(server) as peer:
                view, ended = await server.views.get()
                await peer.head()
                peer.send("x", b"y")
                assert [await peer.message(), await peer.message()] == ["x", b"y"]
                getattr(peer, end)()
                await ended
                left.append(weakref.ref(view))
                del view, ended
        assert not server.connections
        gc.collect()
        assert [ref() for ref in left] == [None, None]


# The log


async def test_a_connection_is_logged_from_open_to_close(connect, caplog):
    caplog.set_level("INFO", "duck.contrib.websockets")
    async with connect(Recorder) as session:
        session.peer.close(4000, "bye\x1b[31m\n!")
        await session.peer.closing()
        await session.ended()
    opened, closed = [record.getMessage() for record in caplog.records if record.name == "duck.contrib.websockets"]
    assert "/ [WebSocket] [OPEN]" in opened
    assert "/ [WebSocket] [CLOSE] 4000 bye\\x1b[31m\\x0a!" in closed


async def test_a_breach_is_logged_with_its_reason(connect, caplog):
    caplog.set_level("INFO", "duck.contrib.websockets")
    async with connect(Recorder) as session:
        session.peer.write(b"\x83\x80")
        await session.peer.closing()
    assert "[CLOSE] 1002 reserved opcode" in caplog.records[-1].getMessage()


def test_a_close_of_the_view_is_logged_with_its_reason(caplog):
    class Closing(WebSocketView):
        async def on_open(self):
            await self.send_close(4001, "no token in time")

    with caplog.at_level("INFO", "duck.contrib.websockets"), in_memory(Closing, "/play") as ws:
        assert repr(ws.view) == "<Closing testclient:50000 /play OPEN>"
        assert ws.wait_closed() == 4001
    assert any("/play [WebSocket] [CLOSE] 4001 no token in time" in line for line in caplog.messages)
    assert (ws.view.close_reason, ws.view.state.name) == ("no token in time", "CLOSED")


LIMITS = {
    "1009 message too big (see MAX_FRAME_SIZE, MAX_STREAM_SIZE or max_size)": {"MAX_FRAME_SIZE": 100},
    "1008 too many messages (see RATE_LIMIT)": {"RATE_LIMIT": 1},
    "1001 no pong (see PONG_TIMEOUT)": {"PING_INTERVAL": 1, "RECEIVE_TIMEOUT": None},
    "1001 nothing received for too long (see RECEIVE_TIMEOUT)": {"RECEIVE_TIMEOUT": 5},
    "1008 too slow to read (see SLOW_CONSUMER)": {"SLOW_CONSUMER": "close"},
}


@pytest.mark.parametrize("end", LIMITS)
def test_an_end_by_a_limit_is_logged_with_the_name_of_the_setting(caplog, end):
    """The reason of the frame alone does not tell what to change, nor which of the two ends has the limit."""

    async def answer(self, message, opcode):
        for _ in range(1000):
            await self.send(message if self.SLOW_CONSUMER == "close" else b"")

    view = type("Limited", (WebSocketView,), {**LIMITS[end], "on_receive": answer})
    caplog.set_level("INFO", "duck.contrib.websockets")
    with in_memory(view, compression=False, timeout=600, loop_factory=VirtualTimeLoop) as ws:
        ws.stop_reading()
        for _ in range(3):
            ws.send("x" * 1000)
        ws.wait_closed()
    assert any(line.endswith(f"[CLOSE] {end}") for line in caplog.messages)


def test_the_reason_in_the_log_belongs_to_the_code(caplog):
    """The answer to a breach waits for queued data; a timeout may close the connection before, with its own code."""

    class Flooded(WebSocketView):
        RATE_LIMIT = 1

        async def on_receive(self, message, opcode):
            for _ in range(1000):
                await self.send(message)

    caplog.set_level("INFO", "duck.contrib.websockets")
    with in_memory(Flooded, compression=False, timeout=600, loop_factory=VirtualTimeLoop) as ws:
        ws.stop_reading()
        for _ in range(3):
            ws.send("x" * 1000)
        ws.wait_closed()
    assert any("[CLOSE] 1001 nothing received for too long" in line for line in caplog.messages)


def test_the_end_of_a_peer_names_no_setting_of_ours(caplog):
    class Complaining(WebSocketView):
        async def on_open(self):
            await self.send("x" * 101)

    caplog.set_level("INFO", "duck.contrib.websockets")
    with in_memory(Complaining, max_size=100) as ws:
        ws.wait_closed()
    ends = {line.partition(" [WebSocket] [CLOSE] ")[2] for line in caplog.messages if "[CLOSE]" in line}
    assert ends == {"1009 message too big", "1009 message too big (see MAX_FRAME_SIZE, MAX_STREAM_SIZE or max_size)"}


# Names that belong to the connection


def test_an_attribute_named_state_is_refused_rather_than_replaced_by_the_next_phase():
    class Room(WebSocketView):
        async def on_open(self):
            self.state = {"user": "alice"}

    with pytest.raises(AttributeError, match="choose another name"), in_memory(Room) as ws:
        ws.wait_closed()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_an_init_may_keep_the_request_itself(before):
    class Room(WebSocketView):
        request = None

        def __init__(self, request, **kwargs):
            if before:
                self.request = request
            super().__init__(request, **kwargs)
            self.request = request

    with in_memory(Room) as ws:
        assert ws.view.request.path == "/"


def test_a_step_of_a_subclass_may_set_the_state():
    class Room(WebSocketView):
        async def initiate_upgrade_to_ws(self):
            self.state = State.INITIATING
            return await super().initiate_upgrade_to_ws()

    with in_memory(Room) as ws:
        assert ws.view.state is State.OPEN


def test_a_state_takes_no_attributes_because_all_connections_share_it():
    class Room(WebSocketView):
        async def on_open(self):
            self.state.user = "alice"

    with pytest.raises(AttributeError, match="set 'user' on the view"), in_memory(Room) as ws:
        ws.wait_closed()
    assert not hasattr(State.OPEN, "user")


def test_a_class_may_use_the_name_state_for_itself():
    class Door(Recorder):
        state = "ajar"

    with in_memory(Door) as ws:
        assert ws.view.state == "ajar"
        assert repr(ws.view) == "<Door testclient:50000 / OPEN>"


# Before there is a connection


def test_a_view_that_is_not_connected_sends_nothing_and_may_be_closed():
    view = WebSocketView(HttpRequest())
    with pytest.raises(RuntimeError, match="not open yet"):
        view.send("x")
    with pytest.raises(RuntimeError, match="not open yet"):
        view.send_frame(Frame(OpCode.TEXT))
    asyncio.run(view.safe_close())
    assert view.state is State.CLOSED
    view.send_close()  # there is nothing to close


async def test_read_frame_is_an_error_in_a_view_with_on_receive(connect):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            with pytest.raises(RuntimeError, match="messages go to on_receive"):
                await self.read_frame()
            await self.send("refused")

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "refused"


async def test_server_without_the_embedded_server_is_an_error_with_advice(connect):
    async with connect(Recorder) as session:
        with pytest.raises(AttributeError, match=r"only the embedded server .* self\.scope\['state'\]"):
            _ = session.view.server
