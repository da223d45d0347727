"""Errors that a type checker must report: in each line that ends in `# wrong`, and in no other."""

from typing import Any

from duck.contrib.websockets import Frame, OpCode, WebSocketView, client
from duck.contrib.websockets.testing import connect
from duck.http.request import HttpRequest
from duck.server import run, serve
from duck.urls import path


class TooFew(WebSocketView):
    async def on_receive(self, message: bytes) -> None:  # wrong
        pass

    async def on_close(self) -> None:  # wrong
        pass


class TooMany(WebSocketView):
    async def on_open(self, request: HttpRequest) -> None:  # wrong
        pass

    async def on_receive(self, message: bytes, opcode: OpCode, room: str) -> None:  # wrong
        pass

    async def on_close(self, code: int, reason: str) -> None:  # wrong
        pass


class OtherTypes(WebSocketView):
    async def on_receive(self, message: str, opcode: OpCode) -> None:  # wrong
        pass

    async def on_close(self, frame: Frame) -> None:  # wrong
        pass


class NotCoroutines(WebSocketView):
    def on_open(self) -> None:  # wrong
        pass

    def on_receive(self, message: bytes, opcode: OpCode, **kwargs: Any) -> None:  # wrong
        pass

    def on_close(self, frame: Frame | None = None) -> None:  # wrong
        pass


class Settings(WebSocketView):
    MAX_FRAME_SIZE = "1MB"  # wrong
    PING_INTERVAL = "20"  # wrong
    MAX_CONCURRENT_MESSAGES = None  # wrong
    SLOW_CONSUMER = "block"  # wrong
    ALLOWED_ORIGINS = True  # wrong
    COMPRESSION = 6  # wrong
    EXTENSIONS = []  # wrong


class Sending(WebSocketView):
    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send({"a": "dict"}, "text")  # wrong
        await self.send(42)  # wrong
        await self.send_text(b"bytes")  # wrong
        await self.send_ping("latency", 1)  # wrong
        await self.send_close("going away")  # wrong
        await self.send_frame(message)  # wrong
        self.send(message)  # wrong
        self.server.conections  # wrong


routes = path("/", Sending, methods=True)  # wrong
run(Sending, port="8000")  # wrong
serve(Sending, ssl="cert.pem")  # wrong

with connect(Sending) as ws:
    ws.receive()  # wrong
    ws.send_text(b"bytes")  # wrong

with client.connect("ws://localhost") as network:
    network.receive()  # wrong
    network.send(42, "text")  # wrong
