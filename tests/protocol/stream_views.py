"""A view that notes the parts of its messages."""

import asyncio

from duck.contrib.websockets import ConnectionClosed

from ..support.views import Noting

__all__ = ["PartRecorder", "joined"]


class PartRecorder(Noting):
    """Notes the parts of its messages, and how each reading ends."""

    CLOSE_TIMEOUT = 1

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate = asyncio.Event()
        self.gate.set()

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
