"""duck: a view and `Groups`, on the embedded server or, as an ASGI application, under uvicorn."""

import os

from duck.contrib.websockets import OpCode, WebSocketView
from duck.contrib.websockets.groups import Groups
from duck.http.request import HttpRequest
from duck.urls import path

__all__ = ["asgi", "urlpatterns"]

rooms = Groups(os.environ["REDIS_URL"])


class Chat(WebSocketView):
    SLOW_CONSUMER = "drop"

    async def on_open(self) -> None:
        await rooms.join(self, "everyone")

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await rooms.publish("everyone", message, opcode)


def dropped(request: HttpRequest) -> str:
    """The number of messages that slow members did not get."""
    return str(sum(view.dropped for view in request.application.server.connections))


urlpatterns = [path("/dropped", dropped), path("/", Chat)]
asgi = Chat.as_asgi()
