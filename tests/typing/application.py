"""An annotated application: each documented form of the hooks, and all members of a view."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, assert_type

from duck.contrib.websockets import (
    CloseCode,
    Compression,
    ConnectionClosed,
    Extension,
    Frame,
    Handshake,
    IncomingMessage,
    OpCode,
    WebSocketView,
)
from duck.contrib.websockets.metrics import Stats
from duck.http.request import HttpRequest
from duck.http.response import HttpResponse
from duck.server import Limits, Server, run, serve
from duck.urls import path, re_path


class Plain(WebSocketView):
    """The hooks as the README has them."""

    MAX_FRAME_SIZE = 4096
    MAX_CONCURRENT_MESSAGES = 1
    PING_INTERVAL = None
    RATE_LIMIT = 2.5
    SLOW_CONSUMER = "drop"
    SUBPROTOCOLS = ["chat"]
    ALLOWED_ORIGINS = ("https://example.org",)
    COMPRESSION = Compression(level=1)

    async def on_open(self) -> None:
        await super().on_open()
        assert_type(self.server.addresses, list[str])
        assert_type(self.server.connections, list[WebSocketView])
        assert_type(self.server.stats(), Stats)
        assert_type(self.request, HttpRequest)
        assert_type(self.subprotocol, str | None)
        assert_type(self.latency, float | None)
        assert_type(await self.ping(), float)

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)
        print(self.scope["user"], self.scope["state"]["database"])  # under ASGI
        _ = self.send_ping()

    async def on_close(self, frame: Frame | None) -> None:
        await super().on_close(frame)
        assert_type(self.close_code, int | None)


class WithDefaults(WebSocketView):
    """The hooks as their signatures are at run time, which views of Duck Framework have too."""

    async def on_receive(self, message: bytes, opcode: OpCode, **kwargs: Any) -> None:
        await super().on_receive(message, opcode, **kwargs)

    async def on_close(self, frame: Frame | None = None) -> None:
        await super().on_close()
        await super().on_close(frame=frame)


class OtherNames(WebSocketView):
    """The hooks are called with positional arguments, so names are free, and so are wider types."""

    async def on_receive(self, data: bytes, kind: int, *args: object, **kwargs: object) -> None:
        if kind == OpCode.BINARY:
            await self.send_binary(data)

    async def on_close(self, closing: object) -> None:
        pass

    async def on_handshake(self, opening: Handshake) -> None:
        await super().on_handshake(opening)

    async def on_gap(self, name: str) -> None:
        await super().on_gap(name)


class Upload(WebSocketView):
    async def on_stream(self, upload: IncomingMessage) -> None:
        await super().on_stream(upload)


class Child(Plain):
    async def on_open(self) -> None:
        await super().on_open()

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await super().on_receive(message.upper(), opcode)

    async def on_close(self, frame: Frame | None) -> None:
        await super().on_close(frame)


class Greeting:
    """A mixin that is no view."""

    async def on_close(self, frame: Frame | None = None) -> None:
        print("bye")


class Greeted(Greeting, WebSocketView):
    pass


class Talkative(WebSocketView):
    """The types of messages, and the ways to wait for a send."""

    async def send(self, data: Any, opcode: int = OpCode.TEXT) -> None:
        await super().send(data, opcode)

    async def on_open(self) -> None:
        await self.send("text")
        await self.send_text(word for word in ("a ", "stream"))
        await self.send_binary(bytearray(1))
        await self.send_binary(self.blocks())
        await self.send_json({"answer": 42})
        await self.send_ping()
        await self.send_pong(b"pong")
        await self.send_frame(Frame(OpCode.TEXT, payload=b"frame"))
        task: asyncio.Task[None] = asyncio.create_task(self.send("in a task"))
        await task
        await asyncio.gather(self.send("both"), self.send_ping())
        await asyncio.wait_for(self.send("in time"), 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.send_json([]))
        coroutine: Coroutine[Any, Any, None] = self.send_text("kept")
        asyncio.run_coroutine_threadsafe(coroutine, asyncio.get_running_loop())

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        try:
            for view in self.server.connections:
                await view.send(message, opcode)
        except ConnectionClosed as error:
            print(error, self.kwargs["room"], self.server.addresses, self.dropped)
        await self.send_close(CloseCode.NORMAL_CLOSURE, "thanks")
        await self.safe_close()

    async def blocks(self) -> AsyncIterator[bytes]:
        yield b"block"


class Pulling(WebSocketView):
    """The steps of serving."""

    async def read_frame(self) -> Frame:
        return await super().read_frame()

    async def on_new_frame(self, frame: Frame) -> None:
        await super().on_new_frame(frame)

    async def send_frame(self, frame: Frame) -> None:
        await super().send_frame(frame)

    async def run(self) -> None:
        await super().run()

    async def run_forever(self) -> None:
        await super().run_forever()


class Reverse(Extension):
    def encode(self, frame: Frame) -> Frame:
        return frame.replace(payload=frame.payload[::-1], rsv1=True)

    def decode(self, frame: Frame, max_size: int | None = None) -> Frame:
        return frame.replace(payload=frame.payload[::-1], rsv1=False) if frame.rsv1 else frame


class Mirror(WebSocketView):
    EXTENSIONS = {"x-reverse": lambda parameters: Reverse("x-reverse") if not parameters else None}


def page(request: HttpRequest) -> str:
    return f"{request.path} {request.get_header('user-agent', '')}"


async def slow_page(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(name.encode(), status=404)


def rooms() -> Iterator[type[WebSocketView]]:
    yield from (Plain, WithDefaults, Child)


urlpatterns = [
    path("/", page),
    path("/slow/<name>", slow_page, methods=["GET"]),
    path("/talk/<room>", Talkative, name="talk"),
    re_path(r"/(?P<room>\w+)/raw", Pulling),
    *(path(f"/{view.__name__}", view) for view in rooms()),
]
application = Talkative.as_asgi(room="lobby")


async def main() -> None:
    async with serve(urlpatterns, port=0, limits=Limits(connections=10)) as server:
        assert_type(server, Server)
    async with serve(Plain, uds="/tmp/socket"):
        pass


if __name__ == "__main__":
    run(urlpatterns, port=8000, trusted_proxies=["127.0.0.1"])
