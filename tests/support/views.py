"""Views that several modules of tests serve."""

import asyncio

from duck.contrib.websockets import WebSocketView


class Noting(WebSocketView):
    """Notes that it has opened, for those below."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events = []

    async def on_open(self):
        self.events.append("open")


class Recorder(Noting):
    """Notes what happens to it."""

    CLOSE_TIMEOUT = 30

    async def on_receive(self, message, opcode):
        self.events.append(message)
        await self.send(message, opcode)

    async def on_close(self, frame=None):
        self.events.append(("close", frame and frame.payload))


class OpcodeRecorder(Noting):
    """Notes what happens to it, and the opcode of each message; answers every one."""

    async def on_receive(self, message, opcode):
        self.events.append((opcode.name, message))
        await self.send(message, opcode)

    async def on_close(self, frame=None):
        self.events.append(frame.payload if frame else None)


class Gates(WebSocketView):
    """Handles a message `name` until `name` is opened; notes who starts and who ends."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events = []
        self.noted = asyncio.Event()
        self.gates = {}
        self.running = self.most = 0

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    def note(self, event):
        self.events.append(event)
        self.noted.set()

    async def until(self, condition):
        """Until a note makes it true."""
        while not condition():
            self.noted.clear()
            await self.noted.wait()

    async def on_receive(self, message, opcode):
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

    async def on_close(self, frame=None):
        self.note("close")
