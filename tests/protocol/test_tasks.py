"""A handler is an ordinary coroutine: its task is its own, ends with it, and behaves as one of `create_task`."""

import asyncio
import gc
import subprocess
import sys
import weakref

import pytest

from duck.contrib.websockets import WebSocketView

from ..support.commands import environment

PATCHED = """
import asyncio

asyncio.Task = asyncio.tasks.Task = asyncio.tasks._CTask = asyncio.tasks._PyTask

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.testing import connect


class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await asyncio.sleep(0)
        await self.send(message, opcode)


with connect(Echo) as ws:
    ws.send("first")
    ws.send("second")
    print(ws.recv(), ws.recv())
"""
"""A program whose asyncio has tasks in plain Python, as after `nest_asyncio.apply()`."""


class Keeping(WebSocketView):
    """Handles a message by the method of that name, and keeps the handlers' tasks."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tasks = []
        self.go_on = asyncio.Event()

    async def on_receive(self, message, opcode):
        self.tasks.append(asyncio.current_task())
        return await getattr(self, message.decode())()

    async def at_once(self):
        await self.send("at once")
        return 5

    async def wait(self):
        await asyncio.sleep(0)
        await self.send("waited")
        return 6

    async def stay(self):
        await self.send("stays")
        await self.go_on.wait()
        await self.send("went on")

    async def cancel_itself(self):
        self.tasks[-1].cancel()
        await self.send("cancelled")

    async def fail(self):
        await asyncio.sleep(0)
        raise ValueError("expected")

    async def exit(self):
        await asyncio.sleep(0)
        sys.exit(3)


@pytest.mark.parametrize("way", ["at_once", "wait"])
async def test_a_referenced_task_ends_with_its_handler(connect, way):
    async with connect(Keeping) as session:
        for number in range(3):
            session.peer.send(way)
            await session.peer.message()
            task = session.view.tasks[number]
            assert await task == (5 if way == "at_once" else 6)
        assert len({*session.view.tasks}) == 3


async def test_the_task_of_a_hook_that_is_no_coroutine_has_its_result(connect):
    class Returning:
        def __await__(self):
            yield
            return 7

    class View(Keeping):
        def on_receive(self, message, opcode):
            self.tasks.append(asyncio.current_task())
            _ = self.send(message)
            return Returning()

    async with connect(View) as session:
        session.peer.send("x")
        await session.peer.message()
        assert await session.view.tasks[0] == 7


async def test_messages_of_one_read_have_tasks_of_their_own_where_they_are_kept(connect):
    async with connect(Keeping) as session:
        session.peer.send("at_once", "wait", "at_once", "cancel_itself", "at_once", "wait")
        for _ in range(6):
            await session.peer.message()
        tasks = session.view.tasks
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, False, False, True, False, False]
        assert len({*tasks}) == 6


@pytest.mark.parametrize("waits", [False, True])
async def test_the_task_of_on_open_is_of_use_after_its_end(connect, waits):
    class View(WebSocketView):
        async def on_open(self):
            self.opening = asyncio.current_task()
            if waits:
                await asyncio.sleep(0)

        async def on_receive(self, message, opcode):
            called = asyncio.Event()
            self.opening.add_done_callback(lambda task: called.set())
            await called.wait()
            await asyncio.gather(self.opening)
            self.opening.set_name("opening")
            await self.send(f"{self.opening.cancel()} {self.opening.uncancel()} {self.opening.get_name()}")

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "False 0 opening"


async def test_an_unreferenced_task_serves_the_next_message(connect):
    """A connection has one task as long as its handlers do not wait."""
    if not hasattr(sys, "getrefcount"):
        pytest.skip("the references to a task cannot be told")
    seen = []

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            seen.append(id(asyncio.current_task()))
            await self.send(message)

    async with connect(View) as session:
        for _ in range(20):
            session.peer.send(*["x"] * 5)
            for _ in range(5):
                await session.peer.message()
        assert len({*seen}) == 1


def remember(task):
    remember.by = weakref.WeakKeyDictionary({task: 1})


@pytest.mark.parametrize(
    "notice",
    [
        lambda task: task.add_done_callback(lambda _: remember.called.append(1)),
        lambda task: task.set_name("by the handler"),
        lambda task: setattr(task, "user", "alice"),
        lambda task: setattr(task, "_user", "alice"),
        lambda task: task.cancel() and task.uncancel(),
        remember,
    ],
    ids=["callback", "name", "attribute", "private attribute", "cancel and uncancel", "weak reference"],
)
async def test_changes_of_a_handler_to_its_task_do_not_reach_the_next(connect, notice):
    remember.called = []
    seen = []

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            task = asyncio.current_task()
            if message == b"notice":
                notice(task)
                task = None
            else:
                known = getattr(remember, "by", {})
                named = task.get_name() == "by the handler"
                named = named or hasattr(task, "user") or hasattr(task, "_user")
                seen.append((named, task.cancelling(), task in known))
            await self.send(message)

    async with connect(View) as session:
        for _ in range(3):
            session.peer.send("notice", "innocent")
            assert await session.peer.message() == "notice"
            assert await session.peer.message() == "innocent"
    assert seen == [(False, 0, False)] * 3
    assert len(remember.called) in (0, 3)


@pytest.mark.parametrize(
    "read",
    [
        lambda task: task.get_name(),
        lambda task: repr(task).partition(" coro=")[0],
        lambda task: task.get_coro(),
        lambda task: task.get_context() if hasattr(task, "get_context") else object(),  # from Python 3.12 on
    ],
    ids=["name", "repr", "coroutine", "context"],
)
async def test_what_a_handler_reads_of_its_task_is_not_that_of_another(connect, read):
    seen = []

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            seen.append(read(asyncio.current_task()))
            await self.send(message)

    async with connect(View) as session:
        for _ in range(2):
            session.peer.send("x", "x")
            for _ in range(2):
                await session.peer.message()
    assert len({id(value) if not isinstance(value, str) else value for value in seen}) == 4


async def test_a_callback_is_called_when_the_handler_has_ended(connect):
    ended = asyncio.Event()

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            asyncio.current_task().add_done_callback(lambda task: ended.set())

    async with connect(View) as session:
        session.peer.send("x")
        await ended.wait()


async def test_an_exception_of_a_handler_is_that_of_its_task(connect, log):
    async with connect(Keeping) as session:
        session.peer.send("fail")
        assert await session.peer.closing() == (1011, "internal error")
        (task,) = session.view.tasks
        assert isinstance(task.exception(), ValueError)
    async with connect(Keeping) as session:
        session.peer.send("exit")
        assert await session.peer.closing() == (1011, "internal error")
        (task,) = session.view.tasks
        assert task.done()
    assert len(log()) == 2
    del session, task
    gc.collect()  # and the loop is told of no exception that was never retrieved


async def test_debuggers_see_the_hook_and_its_frames(connect):
    async with connect(Keeping) as session:
        session.peer.send("stay")
        assert await session.peer.message() == "stays"
        (task,) = session.view.tasks
        assert task in asyncio.all_tasks()
        assert "Keeping.on_receive() running at" in repr(task)
        (frame,) = task.get_stack()
        assert frame.f_code.co_name == "on_receive"
        session.view.go_on.set()
        assert await session.peer.message() == "went on"
        await task
        session.peer.send("at_once")
        await session.peer.message()
        assert all("Worker" not in repr(task) for task in asyncio.all_tasks())


async def test_a_handler_that_runs_waits_for_nothing(connect):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            if message == b"later":
                await asyncio.sleep(0)
            await self.send(repr(asyncio.current_task()))

    async with connect(View) as session:
        for message in ("now", "later"):
            session.peer.send(message)
            seen = await session.peer.message()
            assert "on_receive() running at" in seen
            assert "wait_for" not in seen


@pytest.mark.parametrize("hook", ["on_open", "on_receive", "on_close"])
async def test_hooks_may_wait_for_the_same_future(connect, hook):
    """As for a value that the first of them has begun to fetch, also where all begin in one pass of the loop."""
    found = []

    async def fetch(self, *arguments):
        found.append(await fetched)

    fetched = asyncio.get_running_loop().create_future()
    view = type("View", (WebSocketView,), {hook: fetch})
    async with connect(view) as one, connect(view) as other:
        for session in (one, other):
            session.peer.send("first", "second")
        for session in (one, other):
            session.peer.leave()
        asyncio.get_running_loop().call_later(0.01, fetched.set_result, "value")
        await one.ended()
        await other.ended()
    assert found == ["value"] * (4 if hook == "on_receive" else 2)


async def test_messages_are_handled_after_the_cancellation_of_all_tasks(connect):
    """The one that is kept for the next message is among them."""

    class Echo(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(message, opcode)

    async with connect(Echo) as session:
        before = asyncio.all_tasks()
        for _ in range(2):
            session.peer.send("again")
            assert await session.peer.message() == "again"
            (idle,) = asyncio.all_tasks() - before
            assert idle.cancel()
            await asyncio.wait([idle])
            assert idle.cancelled()


async def test_every_hook_has_a_task_that_debuggers_know_by_its_name(connect):
    class View(WebSocketView):
        async def on_open(self):
            await asyncio.Event().wait()

        async def _heartbeat_loop(self):
            await asyncio.Event().wait()

        async def on_close(self, frame=None):
            closing.set()
            await go_on.wait()

    closing, go_on = asyncio.Event(), asyncio.Event()
    async with connect(View) as session:
        names = {task.get_coro().__qualname__.rpartition(".")[2] for task in asyncio.all_tasks()}
        assert {"on_open", "_heartbeat_loop"} <= names
        session.view.CLOSE_TIMEOUT = 0
        session.peer.leave()
        await closing.wait()
        assert any("View.on_close()" in repr(task) for task in asyncio.all_tasks())
        go_on.set()
        await session.ended()


def run_nested(until):
    """Runs asyncio's loop from within a task, as nest_asyncio does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    ready = len(loop._ready)
    asyncio.tasks._leave_task(loop, task)
    try:
        while not until():
            loop._run_once()
    finally:
        asyncio.tasks._enter_task(loop, task)
    while len(loop._ready) < ready:  # which the current iteration of the loop has counted
        loop.call_soon(int)


async def test_a_handler_may_run_the_loop(serving, dial, loop_name):
    """As with nest_asyncio: messages of other connections are not mixed with the one being handled."""
    if loop_name == "uvloop":
        pytest.skip("uvloop does not run inside its own callbacks")

    class Nested(WebSocketView):
        async def on_receive(self, message, opcode):
            if message == b"nest":
                run_nested(until=lambda: served)
            if message == b"other":
                served.append(1)
            await self.send(message)

    served = []
    async with serving(Nested) as server, dial(server) as one, dial(server) as other:
        await one.head()
        await other.head()
        behind = [f"behind {number} " + "x" * 200 for number in range(200)]
        one.send("nest", *behind)
        other.send(*["y" * 300] * 100, "other")
        for expected in ("nest", *behind):
            assert await one.message() == expected
        for expected in (*["y" * 300] * 100, "other"):
            assert await other.message() == expected


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="current_task does not know tasks of plain Python")
def test_handlers_run_where_asyncio_was_patched_before_the_import():
    script = subprocess.run(
        [sys.executable, "-P", "-c", PATCHED], env=environment(), capture_output=True, text=True, check=False
    )
    assert script.stdout == "first second\n", script.stderr
