"""duck: a view on the embedded server."""

import asyncio

from duck.contrib.websockets import Frame, OpCode, WebSocketView, broadcast
from duck.server import serve
from duck.urls import path

from .options import HOST, MAX_SIZE, Options

__all__ = ["run"]


class EchoView(WebSocketView):
    MAX_FRAME_SIZE = MAX_SIZE

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)


everyone: set["BroadcastView"] = set()


class BroadcastView(WebSocketView):
    async def on_open(self) -> None:
        everyone.add(self)

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        broadcast(everyone, message, opcode)

    async def on_close(self, frame: Frame | None = None) -> None:
        everyone.discard(self)


async def main(options: Options) -> None:
    urlpatterns = [path("/", EchoView), path("/broadcast", BroadcastView)]
    async with serve(urlpatterns, HOST, options.port, ssl=options.ssl_context()):
        await asyncio.Event().wait()


def run(options: Options) -> None:
    options.run(main(options))
