"""The echo server for the interface of websockets, which picows also has."""

from types import ModuleType
from typing import Any

from .options import BACKLOG, HOST, MAX_SIZE, Options

__all__ = ["run_on"]


async def serve(module: ModuleType, options: Options, compression: str | None) -> None:
    broadcast = module.broadcast
    everyone: set[Any] = set()

    async def handle(websocket: Any) -> None:
        if websocket.request.path == "/broadcast":
            await handle_broadcast(websocket)
            return
        async for message in websocket:
            await websocket.send(message)

    async def handle_broadcast(websocket: Any) -> None:
        everyone.add(websocket)
        try:
            async for message in websocket:
                broadcast(everyone, message)
        finally:
            everyone.discard(websocket)

    async with module.serve(
        handle,
        HOST,
        options.port,
        backlog=BACKLOG,
        ssl=options.ssl_context(),
        compression=compression,
        max_size=MAX_SIZE,
    ) as server:
        await server.serve_forever()


def run_on(module: ModuleType, options: Options, compression: str | None = None) -> None:
    """Serves by the functions `serve` and `broadcast` of a module."""
    options.run(serve(module, options, compression))
