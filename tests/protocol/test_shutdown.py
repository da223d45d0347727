"""The end of handlers after the peer's end, a shutdown of the host, or a cancellation of `run`; then `on_close`."""

import asyncio

import pytest

from duck.contrib.websockets import Frame, OpCode, State, WebSocketView

from ..support.peers import Peer
from ..support.views import Noting


class Waiting(Noting):
    """Waits in its handlers for an event, and notes its hooks."""

    CLOSE_TIMEOUT = 30

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.started = asyncio.Event()
        self.let_go = asyncio.Event()

    async def on_receive(self, message, opcode):
        self.events.append(message)
        self.started.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        self.events.append("done")

    async def on_close(self, frame=None):
        assert self.state is State.CLOSED
        self.events.append(("close", frame and frame.payload))


async def until_gone(view):
    """Waits for the loss of the transport, which is noticed only by a write while nothing is read."""
    while view.close_code is None:
        view.send_ping()
        await asyncio.sleep(0)


BY = pytest.mark.parametrize("by_run", [False, True], ids=["started", "run"])


# The host closes


@BY
async def test_a_server_that_shuts_down_closes_with_1001(serving, dial, by_run):
    async with serving(Waiting, by_run=by_run) as server, dial(server) as peer:
        view, _ = await server.views.get()
        await peer.head()
        closing = asyncio.create_task(server.close())
        assert await peer.closing() == (1001, "server shutting down")
        peer.close(1001)
        assert await peer.rest() == []
        await closing
        assert view.events == [("close", b"\x03\xe9")]


@BY
async def test_a_shutdown_ends_despite_silent_peers_and_endless_hooks(serving, dial, by_run, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.protocol.hooks.Hooks.FLUSH_TIMEOUT", 0.1)

    class Stuck(Waiting):
        async def on_close(self, frame=None):
            await super().on_close(frame)
            try:
                await asyncio.Event().wait()
            finally:
                self.events.append("on_close ended")

    async with serving(Stuck, by_run=by_run, shutdown_timeout=0.1) as server, dial(server) as peer:
        view, end = await server.views.get()
        await peer.head()
        peer.send("x")
        await view.started.wait()
        async with asyncio.timeout(9):
            await server.close()
        assert end.done()
        assert sorted(view.events[1:], key=str) == [("close", None), "cancelled", "on_close ended"]


# run() is cancelled


async def test_cancelling_run_closes_with_1001_and_cancels_the_handlers(connect):
    async with connect(Waiting, by_run=True) as session:
        view, peer = session.view, session.peer
        peer.send("x")
        await view.started.wait()
        session.end.cancel()
        assert await peer.closing() == (1001, "")
        with pytest.raises(asyncio.CancelledError):
            await session.ended()
        assert view.events.count("cancelled") == 1
        assert [event for event in view.events if event[0] == "close"] == [("close", None)]
        assert view.state is State.CLOSED


async def test_cancelling_run_drops_the_messages_that_wait_for_handlers(connect, log):
    """The waiting messages are not handled, and the cancellation does not wait for them."""

    class View(Waiting):
        MAX_CONCURRENT_MESSAGES = 1

    async with connect(View, by_run=True) as session:
        view, peer = session.view, session.peer
        peer.send("a", "b", "c")
        await view.started.wait()
        session.end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session.ended()
        assert view.events.count("cancelled") == 1
        assert b"b" not in view.events
    assert not log()


async def test_cancelling_run_cancels_on_open(connect, log):
    class View(Waiting):
        async def on_open(self):
            try:
                await asyncio.Event().wait()
            finally:
                self.events.append("on_open ended")

    async with connect(View, by_run=True) as session:
        session.peer.send("x")
        await session.peer.settled()
        session.end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session.ended()
        assert sorted(session.view.events, key=str) == [("close", None), "on_open ended"]
    assert not log()


async def test_cancelling_run_after_the_loss_cancels_the_handlers_once(connect):
    class View(Waiting):
        MAX_CONCURRENT_MESSAGES = 1

    async with connect(View, by_run=True) as session:
        view, peer = session.view, session.peer
        peer.send("a", "b")
        await view.started.wait()
        peer.leave()
        await until_gone(view)
        assert not session.end.done()
        session.end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session.ended()
        assert view.events.count("cancelled") == 1
        assert view.events.count(("close", None)) == 1


async def test_a_handler_can_terminate_its_connection(connect, either_tls):
    """The close frame leaves before the transport closes, which is before the end of the read."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(message)
            self.terminate()

    async with connect(View, tls=either_tls) as session:
        session.peer.send("x", "y")
        assert await session.peer.message() == "x"
        assert (await session.peer.closing())[0] == 1001


async def test_a_view_that_is_started_can_be_terminated(connect):
    async with connect(Waiting) as session:
        session.peer.send("x")
        await session.view.started.wait()
        session.view.terminate()
        session.view.terminate()
        assert await session.peer.closing() == (1001, "")
        await session.ended()
        assert session.view.events.count("cancelled") == 1
        assert session.view.events.count(("close", None)) == 1


# Handlers at the end


async def test_a_handler_is_not_cancelled_by_the_peers_close(connect):
    async with connect(Waiting) as session:
        view, peer = session.view, session.peer
        peer.send("x")
        await view.started.wait()
        peer.close()
        assert await peer.closing() == (1000, "")
        assert await peer.rest() == []
        assert view.events == [b"x"]
        assert not session.end.done()
        view.let_go.set()
        await session.ended()
        assert view.events == [b"x", "done", ("close", b"\x03\xe8")]


async def test_the_peers_answer_is_read_even_where_reading_was_on_hold(connect):
    """After our close frame everything is read. All messages are dropped, waiting ones too; the close frame counts."""

    class View(Waiting):
        MAX_CONCURRENT_MESSAGES = MAX_WAITING_MESSAGES = 1

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("a", "b", "c")
        await view.started.wait()
        assert not view.request.transport.is_reading()
        await view.send_close(4000)
        assert await peer.closing() == (4000, "")
        peer.send("late", "later")
        peer.close(4001)
        assert await peer.rest() == []
        view.let_go.set()
        await session.ended()
        assert view.events == [b"a", "done", ("close", b"\x0f\xa1")]


@pytest.mark.parametrize("end", ["close", "leave", "reset"])
async def test_a_handler_is_cancelled_at_the_deadline(connect, end):
    class View(Waiting):
        CLOSE_TIMEOUT = 0.1

    async with connect(View) as session:
        session.peer.send("x")
        await session.view.started.wait()
        getattr(session.peer, end)()
        await session.ended()
        closed = ("close", b"\x03\xe8" if end == "close" else None)
        assert session.view.events == [b"x", "cancelled", closed]


async def test_on_close_runs_behind_the_last_handler_that_starts(connect):
    """Received messages are handled although the peer has gone meanwhile."""

    class View(Waiting):
        MAX_CONCURRENT_MESSAGES = 1

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("a", "b", "c", Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
        await view.started.wait()
        assert await peer.closing() == (1000, "")
        assert await peer.rest() == []
        assert view.events == [b"a"]
        view.let_go.set()
        await session.ended()
        assert view.events == [b"a", "done", b"b", "done", b"c", "done", ("close", b"\x03\xe8")]


async def test_messages_not_handled_in_time_are_logged(connect, log):
    class View(Waiting):
        CLOSE_TIMEOUT = 0.1
        MAX_CONCURRENT_MESSAGES = 1

    async with connect(View) as session:
        session.peer.send("a", "b", "c")
        await session.view.started.wait()
        session.peer.reset()
        await until_gone(session.view)
        await session.ended()
        assert session.view.events == [b"a", "cancelled", ("close", None)]
    (entry,) = log()
    assert "2 messages were not handled in time" in entry.message


async def test_a_peer_that_goes_while_nothing_is_read_is_missed_by_the_heartbeat(connect):
    class View(Waiting):
        CLOSE_TIMEOUT = 0.1
        MAX_CONCURRENT_MESSAGES = 1
        PING_INTERVAL = PONG_TIMEOUT = 0.02

    async with connect(View) as session:
        session.peer.send("a", "b")
        await session.view.started.wait()
        session.peer.reset()
        await session.ended()
        assert session.view.close_code == 1006


@pytest.mark.usefixtures("impatient")
async def test_a_peer_that_goes_is_noticed_although_messages_that_it_sent_with_the_request_wait(connect):
    class View(Waiting):
        CLOSE_TIMEOUT = 0.1
        MAX_CONCURRENT_MESSAGES = MAX_WAITING_MESSAGES = 1
        PING_INTERVAL = None

    behind = 3 * Peer.serialize("x")
    async with connect(View, behind=behind) as session:
        await session.view.started.wait()
        assert not session.view.request.transport.is_reading()
        session.peer.leave()
        await session.ended()


async def test_the_end_waits_for_on_close(connect):
    class View(Waiting):
        async def on_close(self, frame=None):
            await asyncio.sleep(0.05)
            await super().on_close(frame)

    async with connect(View) as session:
        session.peer.close()
        await session.ended()
        assert session.view.events == [("close", b"\x03\xe8")]


async def test_on_close_may_be_declared_with_its_argument(connect):
    """Existing subclasses have `on_close(self, frame)` with a call of `super().on_close(frame)`."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            pass

        async def on_close(self, frame):
            await super().on_close(frame)
            self.frame = frame

    async with connect(View) as session:
        session.peer.close(4000)
        await session.ended()
        assert session.view.frame.opcode is OpCode.CLOSE


async def test_terminate_ends_a_connection_whose_peer_reads_slowly(connect, monkeypatch):
    """The transport is not called again after its end."""
    monkeypatch.setattr("duck.contrib.websockets.protocol.hooks.Hooks.FLUSH_TIMEOUT", 0.3)

    class View(Waiting):
        async def on_receive(self, message, opcode):
            while True:
                sending = self.send_binary(bytes(2**16))
                if self.request.transport.get_write_buffer_size():
                    self.started.set()
                await sending

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("x")
        await view.started.wait()
        view.terminate()
        await peer.rest()
        await session.ended()
        await asyncio.sleep(0.4)  # longer than any pending timer


@pytest.mark.parametrize("swallows", [False, True])
async def test_on_close_runs_although_all_tasks_are_cancelled(connect, until, swallows):
    """`asyncio.run` cancels all tasks at its end."""

    class View(Waiting):
        async def on_receive(self, message, opcode):
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.events.append("cancelled")
                if not swallows:
                    raise

        async def on_close(self, frame=None):
            self.events.append("on_close")

    async with connect(View) as session:
        view, peer = session.view, session.peer
        view.events = []
        peer.send("x")
        await view.started.wait()
        peer.leave()
        await until(lambda: view.close_code is not None)
        await asyncio.sleep(0)  # the end has begun, and waits for the handler
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await session.ended()
        assert view.events == ["cancelled", "on_close"]


@pytest.mark.parametrize("loop_name", ["asyncio"])  # uvloop logs an interrupt in a transport's callback
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("hook", ["on_receive", "on_close", "_heartbeat_loop"])
def test_an_interrupt_within_a_hook_leaves_no_endless_task(runner, connect, hook, waits, loop_name):
    """`asyncio.run` cancels all tasks then, and waits for them."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.interrupt("on_receive")

        async def on_close(self, frame=None):
            await self.interrupt("on_close")

        if hook == "_heartbeat_loop":

            async def _heartbeat_loop(self):
                await self.interrupt("_heartbeat_loop")

        async def interrupt(self, name):
            if name == hook:
                if waits:
                    await asyncio.sleep(0)
                raise KeyboardInterrupt

    async def scenario():
        async with connect(View) as session:
            session.peer.send("x")
            session.peer.close()
            await asyncio.Event().wait()

    async def rest():
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=9)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # retrieved: it is the interrupt
        return left

    with pytest.raises(KeyboardInterrupt):
        runner.run(scenario())
    runner.get_loop().set_exception_handler(lambda *_: None)  # for a task that has ended with the interrupt
    assert not runner.run(rest())
