"""The application of the interoperability tests: views that show a client both ends of a connection, and a page."""

import asyncio
import json

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.http.request import HttpRequest
from duck.urls import path

FRAGMENT_SIZE = 1000

SIZES = (7, 300, 20, 1, 5000, 255, 256)

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>A peer</title>
<script>
  class Peer {
    constructor(url, subprotocols) {
      const socket = this.socket = new WebSocket(url, subprotocols);
      this.opened = new Promise((resolve, reject) => {
        socket.onopen = () => resolve();
        socket.onerror = () => reject(new Error("no connection"));
      });
      this.closed = new Promise(resolve => {
        socket.onclose = event => resolve([event.code, event.reason]);
      });
      const messages = new ReadableStream({
        start(stream) { socket.onmessage = event => stream.enqueue(event.data) }
      });
      this.reader = messages.getReader();
    }

    // Binary messages cross the DevTools protocol in base64.

    async sendBinary(base64) {
      const response = await fetch("data:application/octet-stream;base64," + base64);
      this.socket.send(await response.blob());
    }

    async receive() {
      const message = (await this.reader.read()).value;
      if (typeof message === "string") return { text: message };
      const file = new FileReader();
      await new Promise(resolve => { file.onload = resolve; file.readAsDataURL(message) });
      return { base64: file.result.split(",")[1] ?? "" };
    }

    // For a message that would take seconds on its way through the DevTools protocol. A binary unit is Latin-1.

    async echoes(unit, times, isBinary) {
      const text = unit.repeat(times);
      const sent = isBinary ? new Uint8Array(text.length).map((_, at) => text.charCodeAt(at)) : text;
      this.socket.send(sent);
      const heard = (await this.reader.read()).value;
      if (!isBinary) return heard === sent;
      const bytes = new Uint8Array(await heard.arrayBuffer());
      return bytes.length === sent.length && bytes.every((byte, at) => byte === sent[at]);
    }
  }
</script>
"""

_endings: dict[str, asyncio.Future[tuple[int | None, str]]] = {}


def text_of(size: int) -> str:
    """A text of so many bytes."""
    return (f"{size} bytes, " * size)[:size]


def page(request: HttpRequest) -> str:
    return PAGE


class EchoView(WebSocketView):
    MAX_FRAME_SIZE = 16 * 1024 * 1024
    SUBPROTOCOLS = ("duck", "chat")

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)

    async def on_close(self, frame: Frame | None = None) -> None:
        if "name" in self.kwargs:
            ending(self.kwargs["name"]).set_result((self.close_code, self.close_reason))


class FragmentsView(WebSocketView):
    """Sends every message back in fragments, which cut characters in two."""

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send((message[i : i + FRAGMENT_SIZE] for i in range(0, len(message), FRAGMENT_SIZE)), opcode)


class SizesView(WebSocketView):
    """Sends messages of the sizes in SIZES, then closes."""

    async def on_open(self) -> None:
        for size in SIZES:
            await self.send(text_of(size))
        await self.send_close()


class ClosingView(WebSocketView):
    """Closes at once, with the code in the URL."""

    async def on_open(self) -> None:
        await self.send_close(self.kwargs["code"], "the sërver's reason")


class FailingView(WebSocketView):
    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        raise ValueError("as the test expects")


class EndingView(WebSocketView):
    """Tells how the connection to `/echo/<name>` ended, once it has."""

    async def on_open(self) -> None:
        code, reason = await ending(self.kwargs["name"])
        await self.send(json.dumps([code, reason]))


def ending(name: str) -> asyncio.Future[tuple[int | None, str]]:
    if name not in _endings:
        _endings[name] = asyncio.get_running_loop().create_future()
    return _endings[name]


urlpatterns = [
    path("/", page),
    path("/echo", EchoView),
    path("/echo/<name>", EchoView),
    path("/ending/<name>", EndingView),
    path("/fragments", FragmentsView),
    path("/close/<int:code>", ClosingView),
    path("/fail", FailingView),
    path("/sizes", SizesView),
]
