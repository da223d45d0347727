"""A view that overrides `read_frame` or `_receive_loop`: frames are pulled by it, and not pushed to its handlers."""

import asyncio

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, WebSocketView

from ..support.views import Recorder

pytestmark = pytest.mark.in_memory

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


CLOSED = ("close", b"\x03\xe8")


# read_frame


async def test_read_frame_returns_messages_and_control_frames(connect):
    """The control frames have been answered."""

    class View(Recorder):
        async def read_frame(self):
            frame = await super().read_frame()
            self.events.append(frame.opcode.name)
            return frame

    async with connect(View) as session:
        peer = session.peer
        peer.send("one", Frame(TEXT, False, b"t"), Frame(PING), Frame(CONTINUATION, payload=b"wo"), Frame(PONG))
        frames = [await peer.frame() for _ in range(3)]
        assert sorted(frame.payload for frame in frames) == [b"", b"one", b"two"]
        peer.close()
        assert await peer.closing() == (1000, "")
        await session.ended()
        opcodes = [event for event in session.view.events if isinstance(event, str)]
        assert opcodes == ["open", "TEXT", "PING", "TEXT", "PONG", "CLOSE"]
        assert [event for event in session.view.events if event not in opcodes] == [b"one", b"two", CLOSED]


async def test_read_frame_may_change_the_message(connect):
    class View(Recorder):
        async def read_frame(self):
            frame = await super().read_frame()
            return frame.replace(payload=frame.payload.upper()) if frame.opcode == TEXT else frame

    async with connect(View) as session:
        session.peer.send("one", "two")
        assert [await session.peer.message(), await session.peer.message()] == ["ONE", "TWO"]


@pytest.mark.parametrize(("change", "answer"), [({"payload": bytearray(b"yes")}, b"yes"), ({"opcode": 0}, None)])
async def test_a_frame_that_read_frame_has_changed_is_a_message_of_bytes_or_an_error(connect, log, change, answer):
    class View(Recorder):
        async def read_frame(self):
            frame = await super().read_frame()
            for name, value in change.items():
                setattr(frame, name, value)
            return frame

        async def on_receive(self, message, opcode):
            assert type(message) is bytes
            await self.send(message)

    async with connect(View) as session:
        session.peer.send("x")
        if answer is None:
            assert (await session.peer.closing())[0] == 1011
        else:
            assert await session.peer.message() == answer.decode()
    assert [type(entry.error) for entry in log()] == ([] if answer else [TypeError])


@pytest.mark.parametrize("passes", [0, 1, 5])
async def test_messages_right_before_the_end_are_handled_before_on_close(connect, passes):
    """This holds for a slow reader, too."""

    class View(Recorder):
        async def read_frame(self):
            frame = await super().read_frame()
            for _ in range(passes):
                await asyncio.sleep(0)
            return frame

        async def on_receive(self, message, opcode):
            self.events.append(message)

    async with connect(View) as session:
        names = [str(i) for i in range(10)]
        session.peer.send(*names, Frame(CLOSE, payload=b"\x03\xe8"))
        assert await session.peer.closing() == (1000, "")
        session.peer.leave()
        await session.ended()
        assert session.view.events == ["open", *(name.encode() for name in names), CLOSED]


async def test_handlers_of_frames_that_are_pulled_wait_side_by_side(connect):
    class View(Recorder):
        async def read_frame(self):
            return await super().read_frame()

        async def on_receive(self, message, opcode):
            if message == b"wait":
                self.go_on = asyncio.Event()
                await self.go_on.wait()
            else:
                self.go_on.set()
            await self.send(message)

    async with connect(View) as session:
        session.peer.send("wait", "go")
        assert {await session.peer.message(), await session.peer.message()} == {"wait", "go"}


async def test_frames_that_are_not_pulled_are_not_read(connect):
    """The frames wait at the sender, and none is lost."""

    class View(Recorder):
        async def read_frame(self):
            await self.may_read.wait()
            return await super().read_frame()

        async def on_open(self):
            self.may_read = asyncio.Event()

        async def on_receive(self, message, opcode):
            await self.send(str(len(message)))

    async with connect(View) as session:
        peer = session.peer
        count = await peer.flood(peer.serialize("x" * 65_000))
        session.view.may_read.set()
        assert [await peer.message() for _ in range(count)] == ["65000"] * count


async def test_an_error_in_read_frame_closes_with_1011(connect, log):
    class View(Recorder):
        async def read_frame(self):
            await super().read_frame()
            raise ValueError("internal detail")

    async with connect(View) as session:
        session.peer.send("x")
        code, reason = await session.peer.closing()
        assert code == 1011
        assert "detail" not in reason
        session.peer.leave()
        await session.ended()
        assert session.view.events == ["open", ("close", None)]
    assert len(log()) == 1


async def test_read_frame_raises_when_there_is_nothing_more(connect, log):
    class View(Recorder):
        async def read_frame(self):
            try:
                return await super().read_frame()
            except ConnectionClosed as error:
                self.events.append(error.code)
                raise

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "x"
        session.peer.leave()
        await session.ended()
        assert session.view.events == ["open", b"x", 1006, ("close", None)]
    assert not log()


# _receive_loop


async def test_a_receive_loop_of_the_views_own_replaces_on_receive(connect):
    class View(Recorder):
        async def _receive_loop(self):
            await self.on_open()
            while True:
                frame = await self.read_frame()
                if frame.opcode in (TEXT, BINARY):
                    await self.send(b"loop: " + frame.payload)

    async with connect(View) as session:
        peer = session.peer
        peer.send("one", Frame(PING), "two")
        replies = [await peer.frame() for _ in range(3)]
        assert sorted(frame.payload for frame in replies) == [b"", b"loop: one", b"loop: two"]
        peer.close()
        assert await peer.closing() == (1000, "")
        await session.ended()
        assert session.view.events == ["open", CLOSED]


async def test_a_receive_loop_may_enclose_the_usual_one(connect):
    class View(Recorder):
        async def _receive_loop(self):
            self.events.append("begin")
            try:
                await super()._receive_loop()
            finally:
                self.events.append("end")

    async with connect(View) as session:
        session.peer.send("one", "two")
        assert [await session.peer.message(), await session.peer.message()] == ["one", "two"]
        session.peer.close()
        await session.ended()
        assert session.view.events == ["begin", "open", b"one", b"two", "end", CLOSED]


async def test_the_end_of_a_receive_loop_ends_the_connection(connect, log):
    """No other code would read further messages."""

    class View(Recorder):
        async def _receive_loop(self):
            frame = await self.read_frame()
            await self.send(frame.payload)

    async with connect(View) as session:
        session.peer.send("one", "two")
        assert await session.peer.message() == "one"
        assert await session.peer.closing() == (1000, "")
        session.peer.close()
        assert await session.peer.rest() == []
        await session.ended()
        assert session.view.events == [CLOSED]
    assert not log()


async def test_a_receive_loop_that_is_cancelled_ends_the_connection(connect, log):
    """The task of the loop is that of `on_open`."""

    class View(WebSocketView):
        async def on_open(self):
            asyncio.current_task().cancel()

        async def _receive_loop(self):
            await super()._receive_loop()

        async def on_receive(self, message, opcode):
            raise AssertionError("nobody reads")

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.closing() == (1000, "")
        session.peer.close()
        await session.ended()
    assert not log()


async def test_a_timeout_in_a_receive_loop_is_an_error(connect, log):
    """It may be that of a database."""

    class View(Recorder):
        async def _receive_loop(self):
            async with asyncio.timeout(0.05):
                await asyncio.Event().wait()

    async with connect(View) as session:
        assert await session.peer.closing() == (1011, "internal error")
    (entry,) = log()
    assert isinstance(entry.error, TimeoutError)


async def test_messages_before_a_breach_reach_a_receive_loop_of_the_views_own(connect):
    class View(Recorder):
        async def _receive_loop(self):
            while True:
                self.events.append((await self.read_frame()).payload)

    async with connect(View) as session:
        session.peer.send("one")
        session.peer.write(b"\x83\x80")
        assert await session.peer.closing() == (1002, "reserved opcode")
        session.peer.shut()
        await session.ended()
        assert session.view.events == [b"one", ("close", None)]
