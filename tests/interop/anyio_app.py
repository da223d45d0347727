"""Views whose handlers are written with anyio: a path for each of its idioms."""

import threading
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.urls import path


class Group(WebSocketView):
    """A task group in a handler: its tasks send, and the handler ends after them."""

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        async def part(word: str, turn: anyio.Event, following: anyio.Event) -> None:
            await turn.wait()
            await self.send(word)
            following.set()

        words = message.decode().split()
        turns = [anyio.Event() for _ in range(len(words) + 1)]
        async with anyio.create_task_group() as group:
            for number, word in enumerate(words):
                group.start_soon(part, word, turns[number], turns[number + 1])
            await checkpoint()
            turns[0].set()
        await self.send("all sent")


class Failing(WebSocketView):
    """A task that fails cancels the others and the body; the handler sees it once, and the next message nothing."""

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        if message != b"fail":
            await checkpoint()
            await self.send(message)
            return

        async def fail() -> None:
            raise LookupError(message.decode())

        async def forever(ended: list[str]) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("cancelled")

        ended: list[str] = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(forever, ended)
                await checkpoint()
                group.start_soon(fail)
                await anyio.sleep_forever()
        except* LookupError as errors:
            ended += [str(error) for error in errors.exceptions]
        await self.send(" ".join(ended))


class Timeouts(WebSocketView):
    """`move_on_after` and `fail_after`, one in the other, before the first wait and behind it."""

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        if message == b"wait":
            await checkpoint()
        found = []
        with anyio.move_on_after(0) as outer:
            await anyio.sleep_forever()
        found.append(outer.cancelled_caught)
        try:
            with anyio.fail_after(0):
                with anyio.move_on_after(60) as inner:
                    await anyio.sleep_forever()
                found.append("not reached")
        except TimeoutError:
            found.append(inner.cancelled_caught)
        with anyio.move_on_after(60) as unused:
            await checkpoint()
        found.append(unused.cancelled_caught)
        await self.send(" ".join(map(str, found)))


class Scopes(WebSocketView):
    """A message cancels the handler of another: the one in its scope, and no other."""

    CLOSE_TIMEOUT = 0.2  # then those that wait are cancelled

    async def on_open(self) -> None:
        self.scopes: dict[bytes, anyio.CancelScope] = {}

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        verb, _, name = message.partition(b" ")
        if verb == b"cancel":
            self.scopes[name].cancel()
            return
        with anyio.CancelScope() as self.scopes[name]:
            try:
                await self.send(f"{name.decode()} waits")
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):  # cleaning up may wait
                    await anyio.sleep(0.01)
                    await self.send(f"{name.decode()} cleans up")
        await self.send(f"{name.decode()} goes on")


class Streams(WebSocketView):
    """A task group around the whole connection; a memory stream leads from the handlers to a task that answers."""

    async def run(self, *args: Any, **kwargs: Any) -> None:
        self.into, out_of = anyio.create_memory_object_stream[str](1)
        async with anyio.create_task_group() as group:
            group.start_soon(self.answer, out_of)
            await super().run(*args, **kwargs)

    async def answer(self, out_of: MemoryObjectReceiveStream[str]) -> None:
        async with out_of:
            async for word in out_of:
                await self.send(word.upper())

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.into.send(message.decode())

    async def on_close(self, frame: Frame | None) -> None:
        await self.into.aclose()  # which ends the task, and so the group and the connection


class Threads(WebSocketView):
    """A worker thread, which calls back into the loop."""

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        def work() -> str:
            anyio.from_thread.run(self.send, "from the thread")
            return "elsewhere" if threading.get_ident() != here else "here"

        here = threading.get_ident()
        await self.send(await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1)))


urlpatterns = [path(f"/{view.__name__.lower()}", view) for view in (Group, Failing, Timeouts, Scopes, Streams, Threads)]
