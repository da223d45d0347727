"""Tasks that belong to a connection: they end with it, and an error in one closes it."""

import asyncio
import sys
import threading

import pytest

from duck.contrib.websockets import ConnectionClosed, WebSocketView
from duck.contrib.websockets.client import WebSocketClient, connect
from duck.contrib.websockets.testing import connect as memory

from ..support import views
from ..support.views import Echo

in_memory = pytest.mark.in_memory


class Noting(views.Noting):
    async def on_close(self, frame=None):
        self.events.append("on_close")

    async def until_cancelled(self):
        self.events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("cancelled")


class Ticking(Noting):
    async def on_open(self):
        self.ticking = self.create_task(self.tick(), name="ticking")

    async def tick(self):
        try:
            for number in range(10**9):
                await self.send(str(number))
                await asyncio.sleep(0.001)
        finally:
            self.events.append("task")

    async def on_receive(self, message, opcode):
        assert self.ticking.get_name() == "ticking"
        assert "Ticking.tick" in repr(self.ticking)
        self.ticking.cancel()
        await self.send("stopped")


@in_memory
async def test_a_task_sends_until_the_connection_ends_and_on_close_follows_it(log):
    async with memory(Ticking) as ws:
        assert [await ws.recv(), await ws.recv()] == ["0", "1"]
    assert ws.view.events == ["task", "on_close"]
    async with memory(Ticking) as ws:
        await ws.recv()
        ws.drop()
        await ws.wait_closed()
    assert ws.view.events == ["task", "on_close"]
    assert log() == []


@in_memory
async def test_a_task_that_is_cancelled_leaves_the_connection_open():
    async with memory(Ticking) as ws:
        await ws.send("stop")
        while await ws.recv() != "stopped":
            pass
        await ws.ping()
        assert ws.view.events == ["task"]


class Failing(Noting):
    async def on_receive(self, message, opcode):
        task = self.create_task(self.fail(message))
        try:
            await task
        except Exception as error:
            self.events.append(type(error))

    async def fail(self, message):
        await asyncio.sleep(0)
        raise {b"value": ValueError, b"exit": SystemExit}[message]("a detail")


@in_memory
@pytest.mark.parametrize(("message", "raised"), [("value", ValueError), ("exit", RuntimeError)])
async def test_an_error_in_a_task_closes_with_1011_and_is_logged_once(log, message, raised):
    async with memory(Failing, raise_errors=False) as ws:
        await ws.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert (caught.value.code, caught.value.reason) == (1011, "internal error")
    assert ws.view.events == [raised, "on_close"]
    with pytest.raises((ValueError, SystemExit), match="a detail"):
        async with memory(Failing) as ws:
            await ws.send(message)
            await ws.recv()
    entry = log()[0]
    assert "error in a hook of Failing" in entry.message
    assert type(entry.error) in (ValueError, SystemExit)


@in_memory
async def test_a_task_is_cancelled_after_the_handlers_have_ended():
    """The handler needs the task, as one that waits for a worker."""

    class Working(Noting):
        async def on_open(self):
            self.work, self.done = asyncio.Queue(), asyncio.Event()
            self.create_task(self.run_jobs())

        async def run_jobs(self):
            try:
                while True:
                    await self.work.get()
                    await asyncio.sleep(0.01)
                    self.done.set()
            finally:
                self.events.append("task")

        async def on_receive(self, message, opcode):
            self.work.put_nowait(message)
            await self.done.wait()
            self.events.append("handler")

    async with memory(Working) as ws:
        await ws.send("job")
        await ws.close()
    assert ws.view.events == ["handler", "task", "on_close"]


@in_memory
async def test_a_task_may_close_the_connection(log):
    class Closing(Noting):
        async def on_open(self):
            self.create_task(self.end())

        async def end(self):
            await self.close(4000, "enough")
            with pytest.raises(ConnectionClosed):
                await self.send("late")
            self.events.append("task")

    async with memory(Closing) as ws:
        with pytest.raises(ConnectionClosed, match="4000"):
            await ws.recv()
    assert ws.view.events[-1] == "on_close"
    assert log() == []


@in_memory
async def test_a_task_that_is_never_begun_causes_no_warning():
    class Brief(Noting):
        async def on_open(self):
            self.create_task(self.until_cancelled()).cancel()
            self.terminate()
            self.create_task(self.until_cancelled())

    async with memory(Brief) as ws:
        await ws.wait_closed()
    assert ws.view.events[-1] == "on_close"


@in_memory
async def test_the_connection_must_be_open(log):
    class Wrong(Noting):
        async def on_handshake(self, handshake):
            with pytest.raises(RuntimeError, match="not open yet"):
                self.create_task(self.until_cancelled())

        async def on_open(self):
            for wrong in (self.until_cancelled, asyncio.get_running_loop().create_future(), (each for each in ())):
                with pytest.raises(TypeError, match=r"such as self\.tick\(\)"):
                    self.create_task(wrong)
            errors = []

            def elsewhere():
                try:
                    self.create_task(self.until_cancelled())
                except RuntimeError as error:
                    errors.append(str(error))

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert "in the thread of the connection's loop" in errors[0]

        async def on_close(self, frame=None):
            with pytest.raises(ConnectionClosed):
                self.create_task(self.until_cancelled())
            self.events.append("on_close")

    async with memory(Wrong) as ws:
        await ws.ping()
    assert ws.view.events == ["on_close"]
    assert log() == []


@in_memory
async def test_a_task_that_cannot_start_causes_no_warning():
    class Refused(Noting):
        async def on_open(self):
            def refuse(loop, coroutine, **options):
                raise RuntimeError("no tasks")

            loop = asyncio.get_running_loop()
            loop.set_task_factory(refuse)
            with pytest.raises(RuntimeError, match="no tasks"):
                self.create_task(self.until_cancelled())
            loop.set_task_factory(None)

    async with memory(Refused) as ws:
        await ws.ping()
    assert ws.view.events == ["on_close"]


@in_memory
async def test_a_task_among_many_ends_at_the_cost_of_a_lone_one():
    class Many(Noting):
        async def on_open(self):
            self.events.append([await self.calls_for_each(number) for number in (10, 1000)])

        async def calls_for_each(self, number):
            end = asyncio.Event()
            tasks = [self.create_task(end.wait()) for _ in range(number)]
            await asyncio.sleep(0)
            calls = 0

            def count(frame, event, argument):
                nonlocal calls
                calls += 1

            end.set()
            sys.setprofile(count)
            await asyncio.wait(tasks)
            sys.setprofile(None)
            return calls / number

    async with memory(Many) as ws:
        await ws.ping()
    (few, many), _ = ws.view.events
    assert many < 1.5 * few


@in_memory
async def test_a_task_that_ignores_its_cancellation_is_named_in_the_log(log, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.protocol.hooks.Hooks.FLUSH_TIMEOUT", 0.05)
    release = []

    class Stubborn(Noting):
        async def on_open(self):
            self.create_task(self.stay())

        async def stay(self):
            released = asyncio.Event()
            release.append(released)
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    self.events.append("cancelled")

    async with memory(Stubborn) as ws:
        await ws.ping()
    assert ws.view.events == ["cancelled", "on_close"]
    release[0].set()
    (entry,) = log()
    assert "has not ended after its cancellation" in entry.message
    assert "Stubborn.stay" in entry.message


async def test_a_server_shuts_down_without_waiting_for_tasks(serving):
    async with serving(Ticking, shutdown_timeout=600) as server, connect(f"ws://127.0.0.1:{server.port}/") as ws:
        await ws.recv()
        closing = asyncio.create_task(server.close())
        with pytest.raises(ConnectionClosed, match="1001"):
            while True:
                await ws.recv()
        await asyncio.wait_for(closing, 30)


async def test_a_client_has_tasks_too(serving):
    class Asking(WebSocketClient):
        def __init__(self, url):
            super().__init__(url)
            self.answers = asyncio.Queue()

        async def on_open(self):
            self.task = self.create_task(self.ask())

        async def ask(self):
            for number in range(3):
                await self.send(str(number))
            await asyncio.Event().wait()

        async def on_receive(self, message, opcode):
            self.answers.put_nowait(message)

    async with serving(Echo) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with Asking(url) as client:
            assert [await client.answers.get() for _ in range(3)] == [b"0", b"1", b"2"]
        assert client.task.cancelled()
        async with connect(url) as ws:
            task = ws.create_task(ws.send("quack"))
            assert await ws.recv() == "quack"
            assert await task is None


class Farewell(WebSocketView):
    async def on_open(self):
        for number in range(3):
            await self.send(str(number))
        await self.close()


@in_memory
@pytest.mark.parametrize("stream", [False, True])
async def test_a_task_of_connect_reads_the_messages_before_the_end(stream):
    async with memory(Farewell, stream=stream) as ws:
        read = []

        async def reading():
            async for message in ws:
                await asyncio.sleep(0.01)  # the connection is lost meanwhile
                read.append(message)

        ws.create_task(reading())
        await ws.wait_closed()
        assert read == ["0", "1", "2"]


@in_memory
async def test_the_end_of_the_block_cancels_tasks_of_connect():
    async with memory(Farewell) as ws:
        task = ws.create_task(asyncio.Event().wait())
        assert [message async for message in ws] == ["0", "1", "2"]
        assert not task.done()
    assert task.cancelled()
