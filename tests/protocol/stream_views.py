"""A view that notes the parts of its messages."""

import asyncio

from duck.contrib.websockets import ConnectionClosed, WebSocketView

__all__ = ["Noting", "joined"]


class Noting(WebSocketView):
    """Notes the parts of its messages, and how each reading ends."""

    CLOSE_TIMEOUT = 1

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events = []
        self.noted = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def note(self, event):
        self.events.append(event)
        self.noted.set()

    async def until(self, condition):
        while not condition(self.events):
            self.noted.clear()
            await self.noted.wait()

    async def on_stream(self, message):
        self.note(message.opcode.name)
        try:
            await self.gate.wait()
            async for part in message:
                self.note(part)
                await self.gate.wait()
        except ConnectionClosed as error:
            self.note(error.code)
            raise
        self.note("end")

    async def on_close(self, frame):
        self.note("close")


def joined(events):
    """The events, with the parts of each message joined."""
    found = []
    for event in events:
        if found and isinstance(event, bytes) and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found
