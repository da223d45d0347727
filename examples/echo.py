"""Sends every message back: `duck serve examples/echo.py`, or `python examples/echo.py`."""

from duck.contrib.websockets import OpCode, WebSocketView
from duck.server import run
from duck.urls import path


class EchoView(WebSocketView):
    """Echoes text as text and binary as binary."""

    # The default is 1 MiB; test suites send 16 MiB.
    MAX_FRAME_SIZE = 16 * 1024 * 1024

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)


urlpatterns = [path("/", EchoView)]

if __name__ == "__main__":
    run(urlpatterns)
