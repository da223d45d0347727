"""Views for several test modules."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from duck.contrib.websockets import Frame, OpCode, WebSocketView

__all__ = ["Echo", "Gates", "Listed", "Noting", "OpcodeRecorder", "Quiet", "Recorder"]


class Quiet(WebSocketView):
    """Sends nothing by itself, and must receive nothing."""

    PING_INTERVAL = None

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        raise AssertionError("nothing is sent to this view")


class Echo(WebSocketView):
    """Repeats its messages."""

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)


class Noting(WebSocketView):
    """Notes events; the base of the recorders."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.events: list[Any] = []
        self.noted = asyncio.Event()

    def note(self, event: Any) -> None:
        self.events.append(event)
        self.noted.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until an event makes the condition true."""
        while not condition():
            self.noted.clear()
            await self.noted.wait()


class Recorder(Noting):
    """Notes its hooks, and echoes messages."""

    CLOSE_TIMEOUT = 30

    async def on_open(self) -> None:
        self.note("open")

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        self.note(message)
        await self.send(message, opcode)

    async def on_close(self, frame: Frame | None = None) -> None:
        self.note(("close", frame and frame.payload))


class OpcodeRecorder(Recorder):
    """Notes the opcode of each message too."""

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        self.note((opcode.name, message))
        await self.send(message, opcode)

    async def on_close(self, frame: Frame | None = None) -> None:
        self.note(frame.payload if frame else None)


class Listed(Echo):
    """Each subclass has a list of its views."""

    views: ClassVar[list[Any]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.views = []

    async def on_open(self) -> None:
        self.views.append(self)


class Gates(Noting):
    """The handler of a message `name` waits until the gate `name` is opened. Starts and ends are noted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gates: dict[str, asyncio.Event] = {}
        self.running = self.most = 0

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        name = message.decode()
        self.running += 1
        self.most = max(self.most, self.running)
        self.note(f"{name} starts")
        try:
            await self.gate(name).wait()
        finally:
            self.running -= 1
        self.note(f"{name} ends")
        await self.send(name)

    async def on_close(self, frame: Frame | None = None) -> None:
        self.note("close")
