"""websockets, its asyncio server."""

from websockets.asyncio.server import ServerConnection, broadcast, serve

from .options import BACKLOG, HOST, MAX_SIZE, Options

__all__ = ["run"]

everyone: set[ServerConnection] = set()


async def handle(websocket: ServerConnection) -> None:
    if websocket.request.path == "/broadcast":
        await handle_broadcast(websocket)
        return
    async for message in websocket:
        await websocket.send(message)


async def handle_broadcast(websocket: ServerConnection) -> None:
    everyone.add(websocket)
    try:
        async for message in websocket:
            broadcast(everyone, message)
    finally:
        everyone.discard(websocket)


async def main(options: Options) -> None:
    async with serve(
        handle,
        HOST,
        options.port,
        backlog=BACKLOG,
        ssl=options.ssl_context(),
        compression="deflate" if options.deflate else None,
        max_size=MAX_SIZE,
    ) as server:
        await server.serve_forever()


def run(options: Options) -> None:
    options.run(main(options))
