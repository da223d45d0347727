"""Cancellations of handlers: they have the effect that they would have on any task of asyncio."""

import asyncio

import pytest

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.contrib.websockets.protocol import stepping

from ..support.views import Gates


async def test_the_handler_before_may_always_be_cancelled(connect):
    """A search cancels the one before it, which may have ended, or may still run."""

    class Search(WebSocketView):
        previous = None

        async def on_receive(self, message, opcode):
            if self.previous is not None:
                self.previous.cancel()
            self.previous = asyncio.current_task()
            if message.startswith(b"slow"):
                await asyncio.Event().wait()
            elif message.startswith(b"wait"):
                await asyncio.sleep(0)
            await self.send(message)

    async with connect(Search) as session:
        for number in range(3):
            for word in ("at once", "wait", "wait too"):
                session.peer.send(f"{word} {number}")
                assert await session.peer.message() == f"{word} {number}"
            session.peer.send(f"slow {number}", f"wait {number}")
            assert await session.peer.message() == f"wait {number}"


async def test_a_cancellation_of_another_origin_is_an_error(connect, log):
    """Before the first wait, during it and after it; also where the task was cancelled before."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            if message == b"handled":
                asyncio.current_task().cancel()
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    await self.send("handled")
                return
            if message == b"later":
                await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            other = loop.create_future()
            if message == b"meanwhile":
                loop.call_soon(other.cancel)
            else:
                other.cancel()
            await other

    for message in ("now", "meanwhile", "later"):
        async with connect(View) as session:
            session.peer.send("handled")
            assert await session.peer.message() == "handled"
            session.peer.send(message)
            assert await session.peer.closing() == (1011, "internal error")
    assert [type(entry.error) for entry in log()] == [asyncio.CancelledError] * 3


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("kind", ["of another loop", "without await"])
async def test_a_cancelled_handler_that_waits_for_a_wrong_future_is_cancelled(connect, kind, waits):
    """Before the first wait and after it: the cancellation replaces the error, and does not reach the future."""

    class Wrong:
        def __await__(self):
            yield from asyncio.sleep(0).__await__() if waits else ()
            seen.append(asyncio.current_task().cancel("a reason"))
            try:
                if kind == "without await":
                    yield future
                else:
                    yield from future
            except BaseException as error:
                seen.append((type(error), error.args, future.cancelled()))

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await Wrong()
            await self.send(message)

    future, seen = None, []
    other = asyncio.new_event_loop()
    future = (asyncio.get_running_loop() if kind == "without await" else other).create_future()
    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "x"
    other.close()
    assert seen == [True, (asyncio.CancelledError, ("a reason",), False)]


async def test_the_reason_of_a_cancellation_is_that_of_the_task(connect):
    """The handler ends without a wait, so that nothing raises the cancellation in it."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            kept.append(asyncio.current_task())
            kept[-1].cancel("a reason")

    kept = []
    async with connect(View) as session:
        session.peer.send("x")
        await session.peer.settled()
        (error,) = await asyncio.gather(*kept, return_exceptions=True)
        assert (type(error), error.args) == (asyncio.CancelledError, ("a reason",))


async def test_a_cancellation_before_the_first_wait_is_one_that_anyio_knows(connect):
    """anyio does not cancel a task that is about to be cancelled, so the cancellation is not taken for its own."""
    anyio = pytest.importorskip("anyio")

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            try:
                asyncio.current_task().cancel("a reason")
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await asyncio.sleep(0)
                await self.send("swallowed")
            except asyncio.CancelledError as error:
                await self.send(str(error))

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "a reason"


async def test_a_task_has_run_to_its_first_wait_once_it_is_started():
    """So its coroutine begins although the task is cancelled at once."""
    begun = []

    async def hook():
        begun.append(asyncio.current_task())
        await asyncio.sleep(1000)

    async def fails():
        raise ValueError

    loop, ours = asyncio.get_running_loop(), asyncio.current_task()
    task = stepping.start_task(loop, hook())
    assert begun == [task]
    assert "hook()" in repr(task)
    assert asyncio.current_task() is ours
    task.cancel("a reason")
    with pytest.raises(asyncio.CancelledError, match="a reason"):
        await task
    assert stepping.start_task(loop, asyncio.sleep(0)).done() is False
    failed = stepping.start_task(loop, fails())
    assert failed.done()
    assert isinstance(failed.exception(), ValueError)


async def test_a_cancellation_before_the_second_step_reaches_the_future_of_the_first_wait():
    waited_for = asyncio.get_running_loop().create_future()

    async def hook():
        await waited_for

    task = stepping.start_task(asyncio.get_running_loop(), hook())
    task.cancel()
    assert waited_for.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await task


# The messages behind a handler that is cancelled


async def test_a_handler_may_be_cancelled_by_another(connect, log):
    """The cancellation ends that handler, and neither the connection nor later messages."""

    class View(WebSocketView):
        tasks = ()

        async def on_receive(self, message, opcode):
            if message == b"stop":
                for task in self.tasks:
                    task.cancel()
                await self.send("stopped")
                return
            self.tasks = (*self.tasks, asyncio.current_task())
            await self.send("started")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await self.send("cancelled")
                raise

    async with connect(View) as session:
        peer = session.peer
        for _ in range(3):
            peer.send("wait")
            assert await peer.message() == "started"
            peer.send("stop")
            assert [await peer.message(), await peer.message()] == ["stopped", "cancelled"]
        assert await peer.settled() == []
    assert not log()


async def test_messages_behind_a_handler_that_was_cancelled_are_handled(connect, log):
    class View(Gates):
        MAX_CONCURRENT_MESSAGES = 1
        task = None

        async def on_receive(self, message, opcode):
            self.task = self.task or asyncio.current_task()
            await super().on_receive(message, opcode)

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("a", "b", "c")
        await view.until(lambda: view.events)
        view.gate("b").set()
        view.gate("c").set()
        view.task.cancel()
        assert [await peer.message(), await peer.message()] == ["b", "c"]
        peer.send("b")
        assert await peer.message() == "b"
    assert not log()


async def test_messages_behind_an_on_open_that_was_cancelled_are_handled(connect, log):
    class View(Gates):
        async def on_open(self):
            self.opening = asyncio.current_task()
            self.note("opening")
            await asyncio.Event().wait()

    async with connect(View) as session:
        view, peer = session.view, session.peer
        view.gate("a").set()
        view.gate("b").set()
        peer.send("a", Frame(OpCode.PING))
        assert (await peer.frame()).opcode == OpCode.PONG
        assert view.events == ["opening"]
        view.opening.cancel()
        assert await peer.message() == "a"
        peer.send("b")
        assert await peer.message() == "b"
    assert not log()


@pytest.mark.parametrize("by", ["nobody", "a later handler", "a later handler that then waits"])
async def test_cancelling_the_task_of_a_handler_that_has_ended_affects_no_other(connect, log, by):
    """The task may serve other handlers by then, which are not affected."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            if message == b"first":
                self.task = asyncio.current_task()
            elif message == b"cancel":
                self.task.cancel()
                if by == "a later handler that then waits" and self.task is asyncio.current_task():
                    with pytest.raises(asyncio.CancelledError):
                        await asyncio.sleep(0)
            await self.send(message)

    async with connect(View) as session:
        peer = session.peer
        for _ in range(3):
            peer.send("first")
            assert await peer.message() == "first"
            if by == "nobody":
                session.view.task.cancel()
                peer.send("between")
                await asyncio.sleep(0)
                assert await peer.message() == "between"
            else:
                peer.send("cancel", "behind")
                assert {await peer.message(), await peer.message()} == {"cancel", "behind"}
        peer.send("last")
        assert await peer.message() == "last"
    assert not log()


async def test_a_handler_that_swallows_its_cancellation_goes_on(connect, log):
    class View(Gates):
        async def on_receive(self, message, opcode):
            self.task = asyncio.current_task()
            try:
                await super().on_receive(message, opcode)
            except asyncio.CancelledError:
                await self.send("survived")

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("a")
        await view.until(lambda: view.events)
        view.task.cancel()
        assert await peer.message() == "survived"
        view.gate("b").set()
        peer.send("b")
        assert await peer.message() == "b"
    assert not log()


async def test_messages_that_wait_at_the_cancellation_of_all_tasks_are_not_handled(connect, until):
    """As `asyncio.run` cancels them at its end: the handler and the end of the connection in one pass of the loop."""

    class View(WebSocketView):
        MAX_CONCURRENT_MESSAGES = 1

        async def on_receive(self, message, opcode):
            handled.append(message)
            await asyncio.Event().wait()

    handled = []
    async with connect(View) as session:
        session.peer.send("a", "b", "c")
        await session.peer.settled()
        session.peer.leave()
        protocol = session.view._protocol
        await until(lambda: protocol.hooks._emptied)
        handlers = {*protocol.consumer.workers}
        for task in [*handlers, *(asyncio.all_tasks() - handlers - {asyncio.current_task()})]:
            task.cancel()
    assert handled == [b"a"]
