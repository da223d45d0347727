"""uvicorn, with a bare ASGI application; the variant is its `--ws`."""

from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from .options import BACKLOG, HOST, MAX_SIZE, Options

__all__ = ["run"]

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

everyone: set[Send] = set()


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    if scope["path"] == "/broadcast":
        await broadcast(receive, send)
        return
    while (event := await receive())["type"] == "websocket.receive":
        await send(answer(event))


async def broadcast(receive: Receive, send: Send) -> None:
    everyone.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            for receiver in everyone:
                await receiver(answer(event))
    finally:
        everyone.discard(send)


def answer(event: Event) -> Event:
    if event.get("text") is not None:
        return {"type": "websocket.send", "text": event["text"]}
    return {"type": "websocket.send", "bytes": event["bytes"]}


def run(options: Options) -> None:
    uvicorn.run(
        app,
        host=HOST,
        port=options.port,
        loop=options.loop,
        http="httptools",
        ws=options.variant,
        ws_max_size=MAX_SIZE,
        ws_per_message_deflate=options.deflate,
        backlog=BACKLOG,
        lifespan="off",
        access_log=False,
        log_level="warning",
        ssl_certfile=options.certfile,
        ssl_keyfile=options.keyfile,
    )
