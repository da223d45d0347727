"""An ASGI application that echoes, for uvicorn."""


async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
