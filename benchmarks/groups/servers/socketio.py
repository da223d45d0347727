"""python-socketio with its Redis manager."""

import os
from typing import Any

import socketio

__all__ = ["app"]

server = socketio.AsyncServer(
    async_mode="asgi", client_manager=socketio.AsyncRedisManager(os.environ["REDIS_URL"]), cors_allowed_origins="*"
)


@server.event
async def connect(sid: str, environ: dict[str, Any]) -> None:
    await server.enter_room(sid, "everyone")


@server.event
async def say(sid: str, text: str) -> None:
    await server.emit("say", text, room="everyone")


app = socketio.ASGIApp(server)
