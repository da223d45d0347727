"""An error in a hook is logged once, and the peer gets 1011 without details."""

import asyncio
import gc
import logging

import pytest

from duck.contrib.websockets import ConnectionClosed, State, WebSocketView
from duck.contrib.websockets.logging import logger
from duck.contrib.websockets.testing import connect as memory

from ..support.errors import Panic
from ..support.views import OpcodeRecorder as Recorder

pytestmark = pytest.mark.in_memory


class Boom(Exception):
    pass


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
async def test_an_error_in_on_receive_closes_with_1011_and_is_logged(connect, log, waits):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            await super().on_receive(message, opcode)
            if message == b"bad":
                await asyncio.sleep(0) if waits else None
                raise Boom("internal detail")

    async with connect(View) as session:
        peer = session.peer
        peer.send("good", "bad")
        assert await peer.message() == "good"
        assert await peer.message() == "bad"
        code, reason = await peer.closing()
        assert code == 1011
        assert "detail" not in reason and "Boom" not in reason
        # Messages that arrive meanwhile are not handled.
        peer.send("late")
        peer.close(1011)
        assert await peer.rest() == []
        await session.ended()
        assert session.view.close_code == 1011
        assert session.view.events == ["open", ("TEXT", b"good"), ("TEXT", b"bad"), b"\x03\xf3"]
    (entry,) = log()
    assert entry.level == "ERROR"
    assert isinstance(entry.error, Boom)
    assert entry.error.__traceback__ is not None
    assert "/" in entry.message
    assert "View" in entry.message


async def test_an_error_that_is_false_is_logged_with_its_traceback(connect, caplog):
    class Empty(Exception):
        def __len__(self):
            return 0

    class View(Recorder):
        async def on_receive(self, message, opcode):
            raise Empty

    async with connect(View) as session:
        session.peer.send("hello")
        assert (await session.peer.closing())[0] == 1011
    assert "    raise Empty\n" in caplog.text


async def test_messages_behind_an_error_are_not_handled(connect, log):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            self.events.append(message)
            raise Boom

    async with connect(View) as session:
        session.peer.send("one", "two", "three")
        assert (await session.peer.closing())[0] == 1011
        session.peer.leave()
        await session.ended()
        assert session.view.events == ["open", b"one", None]
    assert len(log()) == 1


async def test_an_error_in_on_open_closes_with_1011_and_is_logged(connect, log):
    class View(Recorder):
        async def on_open(self):
            raise Boom("internal detail")

    async with connect(View) as session:
        session.peer.send("x")
        code, reason = await session.peer.closing()
        assert code == 1011
        assert "detail" not in reason
        session.peer.close(1011)
        await session.ended()
        assert session.view.events == [b"\x03\xf3"]
    (entry,) = log()
    assert isinstance(entry.error, Boom)


@pytest.mark.parametrize("error", [Boom("x"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_an_error_in_on_close_is_logged_and_changes_nothing_else(connect, log, error):
    class View(Recorder):
        async def on_close(self, frame=None):
            self.events.append("close")
            raise error

    async with connect(View) as session:
        session.peer.close()
        assert await session.peer.closing() == (1000, "")
        assert await session.ended() is None
        assert session.view.events == ["open", "close"]
        assert session.view.state is State.CLOSED
    (entry,) = log()
    assert entry.error is error


async def test_no_hook_depends_on_the_repr_of_its_view(connect, log):
    class View(Recorder):
        def __repr__(self):
            raise Boom("no repr")

        async def on_handshake(self, handshake):
            self.events.append("handshake")

        async def on_close(self, frame=None):
            self.events.append("close")
            raise Boom("x")

    async with connect(View) as session:
        session.peer.close()
        await session.peer.closing()
        assert await session.ended() is None
        assert session.view.events == ["handshake", "open", "close"]
        assert session.view.state is State.CLOSED
    (entry,) = log()
    assert "on_close of View" in entry.message


@pytest.mark.parametrize("view", [Recorder, WebSocketView], ids=["with hooks", "without hooks"])
async def test_a_connection_ends_though_a_filter_of_the_log_raises(connect, caplog, monkeypatch, view):
    def raising(record):
        if "[CLOSE]" in record.getMessage():
            raise Boom("no record")
        return True

    told = []
    caplog.set_level(logging.INFO, logger.name)
    monkeypatch.setattr(logger, "filters", [raising])
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    async with connect(view) as session:
        session.peer.close()
        await session.peer.closing()
        await session.ended()
        assert view is WebSocketView or session.view.events == ["open", b"\x03\xe8"]
    gc.collect()
    assert [str(error) for error in told] == ["no record"]


@pytest.mark.parametrize("hook", ["on_open", "on_receive"])
async def test_an_error_closes_with_1011_though_a_filter_of_the_log_raises(connect, monkeypatch, hook):
    def raising(record):
        raise Boom("no record")

    async def fail(self, *args):
        await asyncio.sleep(0)
        raise Boom("no hook")

    monkeypatch.setattr(logger, "filters", [raising])
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with connect(type("View", (Recorder,), {hook: fail})) as session:
        session.peer.send("x")
        code, _ = await session.peer.closing()
        assert code == 1011
        session.peer.close(1011)
        await session.ended()
        assert session.view.events[-1] == b"\x03\xf3"


@pytest.mark.parametrize("hook", ["on_open", "on_receive", "on_stream"])
async def test_a_plain_function_as_hook_is_an_error(connect, log, hook):
    View = type("View", (WebSocketView,), {hook: lambda self, *args: None})
    async with connect(View) as session:
        session.peer.send("x")
        assert (await session.peer.closing())[0] == 1011
    (entry,) = log()
    assert isinstance(entry.error, TypeError)
    assert "async def" in str(entry.error)


async def test_a_plain_function_as_on_close_is_named(connect, log):
    class View(Recorder):
        def on_close(self, frame=None):
            self.events.append("close")

    async with connect(View) as session:
        session.peer.close()
        assert await session.ended() is None
        assert session.view.events == ["open", "close"]
    (entry,) = log()
    assert str(entry.error) == "a hook must be a coroutine function (async def); one returned None"


async def test_sending_to_a_peer_that_has_gone_is_no_error(connect, log):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            self.gone = asyncio.Event()
            self.waiting = asyncio.Event()
            self.waiting.set()
            await self.gone.wait()
            try:
                await self.send("are you there?")
            except ConnectionClosed as error:
                self.events.append(error)
                raise

    async with connect(View) as session:
        view = session.view
        session.peer.send("x")
        await session.peer.settled()
        await view.waiting.wait()
        session.peer.close(4001, "gone")
        assert await session.peer.closing() == (4001, "")
        view.gone.set()
        await session.ended()
        (error,) = [event for event in view.events if isinstance(event, ConnectionClosed)]
        assert (error.code, error.reason) == (4001, "gone")
    assert not log()


async def test_a_connection_closed_of_another_connection_is_an_error(connect, log):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            raise ConnectionClosed(1006)

    async with connect(View) as session:
        session.peer.send("x")
        assert (await session.peer.closing())[0] == 1011
    assert len(log()) == 1


async def test_a_message_to_a_view_without_on_receive_closes_with_1003(connect, log):
    class View(WebSocketView):
        pass

    async with connect(View) as session:
        session.peer.send("x")
        assert (await session.peer.closing())[0] == 1003
    (entry,) = log()
    words = "'testclient:50000 /': closed, because View has no on_receive for a received message"
    assert entry == ("WARNING", words, None)


async def test_an_error_ends_its_own_connection_only(serving, dial, log):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            if message == b"bad":
                raise Boom
            await self.send(message)

    async with serving(View) as server, dial(server) as one, dial(server) as two:
        await one.head()
        await two.head()
        one.send("bad")
        assert (await one.closing())[0] == 1011
        two.send("good")
        assert await two.message() == "good"
    assert len(log()) == 1


@pytest.mark.parametrize("when", ["in the call", "at once", "after a wait"])
@pytest.mark.parametrize("hook", ["on_open", "on_receive", "on_close", "_receive_loop", "_heartbeat_loop"])
@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, Panic])
async def test_a_base_exception_does_not_end_the_server(connect, log, error, hook, when):
    async def fail(self, *args):
        if when == "after a wait":
            await asyncio.sleep(0)
        raise error("internal detail")

    def fail_in_the_call(self, *args):  # such as a mock, or a decorator that is no coroutine function
        raise error("internal detail")

    View = type("View", (WebSocketView,), {hook: fail_in_the_call if when == "in the call" else fail})
    async with connect(View) as session:
        if hook == "on_receive":
            session.peer.send("x")
        if hook == "on_close":
            session.peer.close()
            assert await session.peer.closing() == (1000, "")
        else:
            assert await session.peer.closing() == (1011, "internal error")
            session.peer.close(1011)
        await session.ended()
    assert error in {type(entry.error) for entry in log()}


@pytest.mark.parametrize("step", ["parts", "asynchronous parts", "send_frame"])
async def test_a_system_exit_within_a_send_does_not_end_the_server(connect, log, step):
    """The message is sent by a task of its own, which would end the loop."""

    async def parts():
        await asyncio.sleep(0)
        yield exit_now()

    async def send_frame(self, frame):
        await asyncio.sleep(0)
        exit_now()

    def exit_now():
        raise SystemExit("internal detail")

    async def on_receive(self, message, opcode):
        ways = {"parts": (exit_now() for _ in "x"), "asynchronous parts": parts(), "send_frame": "x"}
        await self.send(ways[step])

    View = type("View", (WebSocketView,), {"on_receive": on_receive})
    if step == "send_frame":
        View.send_frame = send_frame

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.closing() == (1011, "internal error")
    (entry,) = log()
    assert isinstance(entry.error.__cause__, SystemExit)


async def test_a_close_that_cannot_be_sent_leaves_the_connection_open(connect):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            if message == b"close":
                with pytest.raises((TypeError, ValueError)):
                    await self.send_close(4000, self.reason)
            await self.send(message)

    async with connect(View) as session:
        for session.view.reason in (None, "\ud800"):
            session.peer.send("close", "later")
            assert [await session.peer.message() for _ in range(2)] == ["close", "later"]


def test_a_send_after_the_loss_of_the_network_has_its_error_as_cause(caplog):
    caplog.set_level("INFO", "duck")
    causes = []

    class Sends(WebSocketView):
        async def on_close(self, frame):
            try:
                await self.send("late")
            except ConnectionClosed as error:
                causes.append(error.__cause__)

    with memory(Sends) as ws:
        ws.drop()
    assert isinstance(causes[0], ConnectionResetError)
    assert "/ [WebSocket] [CLOSE] 1006 the network was dropped by the test" in caplog.text
