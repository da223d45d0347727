"""Cancellations of handlers: they have the effect that they would have on any task of asyncio."""

import asyncio

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.protocol import stepping


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
    """Before the first wait and after it; also where the task was cancelled before."""

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
            other = asyncio.get_running_loop().create_future()
            other.cancel()
            await other

    for message in ("now", "later"):
        async with connect(View) as session:
            session.peer.send("handled")
            assert await session.peer.message() == "handled"
            session.peer.send(message)
            assert await session.peer.closing() == (1011, "internal error")
    assert len(log()) == 2


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
