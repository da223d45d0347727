"""Hooks without annotations, as most programs have them."""
# mypy: allow-untyped-defs, allow-untyped-calls
# pyright: basic

import asyncio

from duck.contrib.websockets import WebSocketView


class Plain(WebSocketView):
    async def on_open(self):
        await super().on_open()
        self.greeting = asyncio.create_task(self.send("hello"))

    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

    async def on_close(self, frame):
        await super().on_close(frame)


class WithDefaults(WebSocketView):
    async def on_receive(self, message, opcode, **kwargs):
        await super().on_receive(message, opcode, **kwargs)

    async def on_close(self, frame=None):
        await super().on_close()
