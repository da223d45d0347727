"""Overridden steps of serving, which leave the other steps unchanged."""

import asyncio
from unittest import mock

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, WebSocketView

from ..support.views import Noting, Recorder

pytestmark = pytest.mark.in_memory

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


CLOSED = ("close", b"\x03\xe8")


# on_new_frame


async def test_on_new_frame_gets_whole_messages(connect):
    class View(Recorder):
        async def on_new_frame(self, frame):
            assert type(frame) is Frame
            assert frame.fin
            self.events.append(frame.opcode.name)
            await super().on_new_frame(frame)

    async with connect(View) as session:
        peer = session.peer
        peer.send("one", Frame(TEXT, False, b"t"), Frame(PING), Frame(CONTINUATION, payload=b"wo"), b"three")
        frames = [await peer.frame() for _ in range(4)]
        assert sorted(frame.payload for frame in frames) == [b"", b"one", b"three", b"two"]
        peer.close()
        await session.ended()
        assert session.view.events == ["open", "TEXT", b"one", "TEXT", b"two", "BINARY", b"three", CLOSED]


async def test_on_new_frame_may_keep_messages_to_itself(connect):
    class View(Recorder):
        async def on_new_frame(self, frame):
            if frame.payload != b"secret":
                await super().on_new_frame(frame)

    async with connect(View) as session:
        session.peer.send("secret", "x", "secret", "y")
        assert [await session.peer.message(), await session.peer.message()] == ["x", "y"]
        assert b"secret" not in session.view.events


async def test_an_error_in_on_new_frame_closes_with_1011(connect, log):
    class View(Recorder):
        async def on_new_frame(self, frame):
            raise ValueError("internal detail")

    async with connect(View) as session:
        session.peer.send("x")
        assert (await session.peer.closing())[0] == 1011
    assert len(log()) == 1


# send_frame


class Sending(Recorder):
    """All its messages go through its own send_frame."""

    MAX_FRAME_SIZE = 10

    async def send_frame(self, frame):
        assert type(frame) is Frame
        self.events.append((frame.opcode.name, frame.fin, frame.payload))
        await super().send_frame(frame)


async def test_every_method_of_sending_calls_send_frame(connect):
    async with connect(Sending) as session:
        view, peer = session.view, session.peer
        view.events.clear()
        await view.send("text")
        await view.send(bytearray(b"bytes"), BINARY)
        await view.send_json([1])
        await view.send_ping(b"?")
        await view.send_pong(b"!")
        await view.send("larger than a frame")
        await view.send("")
        assert [(frame.opcode.name, frame.fin, frame.payload) for frame in [await peer.frame() for _ in range(8)]] == [
            ("TEXT", True, b"text"),
            ("BINARY", True, b"bytes"),
            ("TEXT", True, b"[1]"),
            ("PING", True, b"?"),
            ("PONG", True, b"!"),
            ("TEXT", False, b"larger tha"),
            ("CONTINUATION", True, b"n a frame"),
            ("TEXT", True, b""),
        ]
        assert len(view.events) == 8
        assert view.events[5] == ("TEXT", False, b"larger tha")


async def test_replies_go_through_send_frame(connect):
    async with connect(Sending) as session:
        session.peer.send("one", "two")
        assert [await session.peer.message(), await session.peer.message()] == ["one", "two"]
        assert session.view.events[1:] == [
            b"one",
            ("TEXT", True, b"one"),
            b"two",
            ("TEXT", True, b"two"),
        ]


async def test_send_frame_may_change_the_message(connect):
    class View(Recorder):
        async def send_frame(self, frame):
            if frame.payload != b"secret":
                await super().send_frame(frame.replace(payload=frame.payload.upper()))

    async with connect(View) as session:
        session.peer.send("one", "secret", "two")
        assert [await session.peer.message(), await session.peer.message()] == ["ONE", "TWO"]


async def test_streams_go_through_send_frame(connect):
    async with connect(Sending) as session:
        view, peer = session.view, session.peer

        async def parts():
            yield "one"
            yield "more than ten bytes"

        sends = [asyncio.create_task(view.send(data)) for data in (parts(), ["two"], "three", "four and more")]
        await asyncio.gather(*sends)
        messages = []
        while len(messages) < 4:
            frame = await peer.frame()
            assert len(frame.payload) <= 10
            assert (frame.opcode == CONTINUATION) is (messages[-1:] != [] and messages[-1][1] is False)
            if frame.opcode == CONTINUATION:
                messages[-1] = (messages[-1][0] + frame.payload, frame.fin)
            else:
                messages.append((frame.payload, frame.fin))
        while not messages[-1][1]:
            frame = await peer.frame()
            messages[-1] = (messages[-1][0] + frame.payload, frame.fin)
        assert {message for message, _ in messages} == {
            b"onemore than ten bytes",
            b"two",
            b"three",
            b"four and more",
        }
        frames = [event for event in view.events if isinstance(event, tuple)]
        assert len(frames) >= 8


async def test_messages_keep_their_order_where_send_frame_waits(connect):
    """It may send messages itself, directly or by a task, which do not wait for it."""

    class View(Sending):
        async def send_frame(self, frame):
            if frame.payload == b"three":
                await self.send("by itself")
                await asyncio.create_task(self.relay())
            else:
                await asyncio.sleep(0.03 if frame.payload.startswith(b"one") else 0)
            await super().send_frame(frame)

        async def relay(self):
            await self.send("by a task")

    async with connect(View) as session:
        for message in ("one, in fragments", ["two"], "three", "four"):
            _ = session.view.send(message)
        await session.view.send_ping()
        frames = [await session.peer.frame() for _ in range(9)]
        assert frames[0].opcode == PING
        assert b"|".join(frame.payload for frame in frames[1:]) == (
            b"one, in fr|agments|two||by itself|by a task|three|four"
        )


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_control_frames_are_as_short_as_ever(connect, opcode):
    async with connect(Sending) as session:
        with pytest.raises(ValueError, match="not 126"):
            await session.view.send(bytes(126), opcode)
        assert await session.peer.settled() == []


async def test_an_invalid_message_does_not_reach_send_frame(connect):
    async with connect(Sending) as session:
        for data in (5, None, {"a": 1}):
            with pytest.raises(TypeError):
                await session.view.send(data)
        with pytest.raises(TypeError):
            await session.view.send([5])
        with pytest.raises(ValueError, match=r"(?i)opcode"):
            await session.view.send("x", 3)
        assert [event for event in session.view.events if isinstance(event, tuple)] == []


async def test_a_close_frame_bypasses_send_frame(connect):
    async with connect(Sending) as session:
        await session.view.send_close(4000, "a reason longer than a frame may be")
        assert await session.peer.closing() == (4000, "a reason longer than a frame may be")
        with pytest.raises(ConnectionClosed):
            await session.view.send("x")


# Others


async def test_initiate_upgrade_to_ws_may_wait(serving, dial):
    class View(Recorder):
        async def initiate_upgrade_to_ws(self):
            await asyncio.sleep(0)
            return await super().initiate_upgrade_to_ws()

    async with serving(View) as server:
        async with dial(server) as peer:
            peer.send("early")
            assert (await peer.head())[0] == 101
            assert await peer.message() == "early"
        async with dial(server, without=["Sec-WebSocket-Key"]) as peer:
            assert (await peer.head())[0] == 400


async def test_run_and_run_forever_enclose_all_hooks(connect):
    class View(Recorder):
        async def run(self, *args, **kwargs):
            self.events.append("run")
            await super().run(*args, **kwargs)
            self.events.append("ran")

        async def run_forever(self):
            await super().run_forever()
            self.events.append("ran forever")

    async with connect(View) as session:
        session.peer.close()
        await session.ended()
        assert session.view.events == ["run", "open", CLOSED, "ran forever", "ran"]


async def test_methods_of_a_mixin_count(connect):
    class Upper:
        async def on_new_frame(self, frame):
            await super().on_new_frame(frame.replace(payload=frame.payload.upper()))

    class View(Upper, Recorder):
        pass

    async with connect(View) as session:
        session.peer.send("one")
        assert await session.peer.message() == "ONE"


async def test_a_view_may_have_slots_a_request_of_its_own_and_more_attributes(connect):
    """The Lively view of Duck Framework is such a view."""

    class Lively(Recorder):
        __slots__ = ("request",)

        def __init__(self, upgrade_request, **kwargs):
            super().__init__(upgrade_request, **kwargs)
            self.anything = 1

    async with connect(Lively) as session:
        session.peer.send("one")
        assert await session.peer.message() == "one"
        assert session.view.request.path == "/"


# Hooks assigned to a class or a view after the class statement


def noting(name):
    """A hook that notes its name, and calls the overridden one."""

    async def hook(self, *args):
        self.events.append(name)
        return await getattr(super(Base, self), name)(*args)

    return hook


class Base(Noting):
    """Has no step of its own but `on_receive`."""

    async def on_receive(self, message, opcode):
        await self.send(message, opcode)


LATE = ["on_open", "on_new_frame", "read_frame", "send_frame", "on_close", "_receive_loop", "_heartbeat_loop"]
LATE += ["initiate_upgrade_to_ws", "run_forever", "run"]


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("on", ["class", "base", "view"])
async def test_a_step_that_is_overridden_later_is_taken(serving, dial, monkeypatch, name, on):
    """By a decorator of the class, a test that patches it, a plugin; before the connection opens."""
    hook = noting(name)

    class View(Base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            if on == "view":
                setattr(self, name, hook.__get__(self))

    async with serving(View) as server:
        if on != "view":
            monkeypatch.setattr(View if on == "class" else Base, name, hook, raising=False)
        for _ in range(2):
            async with dial(server) as peer:
                assert (await peer.head())[0] == 101
                view, ended = await server.views.get()
                peer.send("one")
                assert await peer.message() == "one"
                peer.close()
                await ended
            assert name in view.events
        monkeypatch.undo()
        if on != "view":
            async with dial(server) as peer:
                await peer.head()
                view, ended = await server.views.get()
                peer.close()
                await ended
            assert view.events == []


@pytest.mark.parametrize("name", ["on_receive", *LATE])
async def test_a_hook_cannot_be_set_on_an_open_view(connect, name):
    """Such a hook would never be called."""
    async with connect(Base) as session:
        with pytest.raises(AttributeError, match=f"Base.{name} is fixed once the connection is open"):
            setattr(session.view, name, noting(name))
        session.peer.send("one")
        assert await session.peer.message() == "one"


async def test_a_hook_may_be_mocked(serving, dial):
    async with serving(Base) as server:
        with mock.patch.object(Base, "on_close") as on_close, mock.patch.object(Base, "on_open") as on_open:
            async with dial(server) as peer:
                await peer.head()
                _, ended = await server.views.get()
                on_open.assert_awaited_once_with()
                peer.close()
                await ended
            (frame,) = on_close.await_args.args
            assert frame.payload == b"\x03\xe8"


async def test_a_decorator_may_guard_a_view(connect):
    def login_required(cls):
        inner = cls.on_open

        async def on_open(self):
            if self.request.get_header("cookie") == "session=ok":
                await inner(self)
            else:
                await self.send_close(1008, "log in first")

        cls.on_open = on_open
        return cls

    @login_required
    class Secret(Base):
        async def on_receive(self, message, opcode):
            await self.send("the secret")

    async with connect(Secret) as session:
        session.peer.send("?")
        assert await session.peer.closing() == (1008, "log in first")
    async with connect(Secret, headers={"Cookie": "session=ok"}) as session:
        session.peer.send("?")
        assert await session.peer.message() == "the secret"


async def test_a_view_may_have_a_setattr_of_its_own(connect):
    """It may call that of `object`, as frozen classes do."""

    class View(WebSocketView):
        def __setattr__(self, name, value):
            object.__setattr__(self, name, value)

        async def on_receive(self, message, opcode):
            self.name = message
            object.__delattr__(self, "name")
            await self.send(message)

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "x"
