"""Granian, with an application for RSGI, its own and faster interface. It sends no pings of its own."""

from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.log import LogLevels
from granian.rsgi import WebsocketMessageType

from .options import BACKLOG, HOST, Options

__all__ = ["app", "run"]

everyone: set[Any] = set()


async def app(scope: Any, protocol: Any) -> None:
    websocket = await protocol.accept()
    if scope.path == "/broadcast":
        await broadcast(websocket)
        return
    while (message := await websocket.receive()).kind != WebsocketMessageType.close:
        await send(websocket, message)


async def broadcast(websocket: Any) -> None:
    everyone.add(websocket)
    try:
        while (message := await websocket.receive()).kind != WebsocketMessageType.close:
            for receiver in everyone:
                await send(receiver, message)
    finally:
        everyone.discard(websocket)


async def send(websocket: Any, message: Any) -> None:
    if message.kind == WebsocketMessageType.bytes:
        await websocket.send_bytes(message.data)
    else:
        await websocket.send_str(message.data)


def run(options: Options) -> None:
    Granian(
        f"{__name__}:app",
        address=HOST,
        port=options.port,
        interface=Interfaces.RSGI,
        loop=Loops(options.loop),
        backlog=BACKLOG,
        log_level=LogLevels.warning,
        ssl_cert=Path(options.certfile) if options.certfile else None,
        ssl_key=Path(options.keyfile) if options.keyfile else None,
    ).serve()
