"""aiohttp, its web server."""

import asyncio

from aiohttp import WSMessage, WSMsgType, web

from .options import BACKLOG, HEARTBEAT, HOST, MAX_SIZE, Options

__all__ = ["run"]

heartbeat = web.AppKey("heartbeat", float)
deflate = web.AppKey("deflate", bool)
everyone: set[web.WebSocketResponse] = set()


async def accept(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(
        compress=request.app[deflate], max_msg_size=MAX_SIZE, heartbeat=request.app.get(heartbeat)
    )
    await websocket.prepare(request)
    return websocket


async def send(websocket: web.WebSocketResponse, message: WSMessage) -> None:
    if message.type == WSMsgType.BINARY:
        await websocket.send_bytes(message.data)
    elif message.type == WSMsgType.TEXT:
        await websocket.send_str(message.data)


async def echo(request: web.Request) -> web.WebSocketResponse:
    websocket = await accept(request)
    async for message in websocket:
        if message.type == WSMsgType.BINARY:
            await websocket.send_bytes(message.data)
        elif message.type == WSMsgType.TEXT:
            await websocket.send_str(message.data)
    return websocket


async def broadcast(request: web.Request) -> web.WebSocketResponse:
    websocket = await accept(request)
    everyone.add(websocket)
    try:
        async for message in websocket:
            for receiver in everyone:
                await send(receiver, message)
    finally:
        everyone.discard(websocket)
    return websocket


async def main(options: Options) -> None:
    app = web.Application()
    app[deflate] = options.deflate
    app.add_routes([web.get("/", echo), web.get("/broadcast", broadcast)])
    if options.heartbeat:
        app[heartbeat] = HEARTBEAT
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, options.port, ssl_context=options.ssl_context(), backlog=BACKLOG).start()
    await asyncio.Event().wait()


def run(options: Options) -> None:
    options.run(main(options))
