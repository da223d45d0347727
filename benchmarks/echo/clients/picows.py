"""picows, its core API: a listener whose callbacks are handed frames."""

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from .load import MAX_SIZE, Load

__all__ = ["connect", "echo", "receive"]

BINARY = WSMsgType.BINARY


class Listener(WSListener):
    """Echoes, or only counts."""

    def __init__(self, load: Load, echoes: bool) -> None:
        super().__init__()
        self.load = load
        self.echoes = echoes
        self.done = asyncio.get_running_loop().create_future()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != BINARY:
            return
        load = self.load
        message = frame.get_payload_as_bytes()
        if self.echoes and message != load.payload:
            load.wrong()
        load.count += 1
        if not load.running:
            if not self.done.done():
                self.done.set_result(None)
        elif self.echoes:
            transport.send(BINARY, load.payload)


async def _run(load: Load, echoes: bool) -> None:
    transport, listener = await ws_connect(lambda: Listener(load, echoes), load.url, max_frame_size=MAX_SIZE)
    if echoes:
        for _ in range(load.depth):
            transport.send(BINARY, load.payload)
    await listener.done
    transport.send_close()
    transport.disconnect()
    await transport.wait_disconnected()


async def echo(load: Load) -> None:
    await _run(load, echoes=True)


async def receive(load: Load) -> None:
    await _run(load, echoes=False)


class Closing(WSListener):
    """Ends the connection after the server's close frame."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


async def connect(load: Load) -> None:
    while load.running:
        transport, _ = await ws_connect(Closing, load.url, max_frame_size=MAX_SIZE)
        load.count += 1
        transport.send_close(1000)
        await transport.wait_disconnected()
