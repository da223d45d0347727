"""A chat with rooms, across processes: `REDIS_URL=redis://localhost duck serve examples/rooms.py`, and visit /tea.

Without REDIS_URL each process has its own rooms.
"""

import json
import os

from duck.contrib.websockets import BrokerError, Frame, OpCode, WebSocketView
from duck.contrib.websockets.groups import Groups
from duck.http.request import HttpRequest
from duck.server import run
from duck.urls import path

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Rooms</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: auto; padding: 1rem }</style>
<h1></h1>
<ul id="log"></ul>
<form><input autofocus autocomplete="off" maxlength="1000" aria-label="Message"><button>Send</button></form>
<script>
  const room = location.pathname, input = document.querySelector("input");
  document.querySelector("h1").textContent = "Room " + room.slice(1);
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws" + room);
  socket.onmessage = event => {
    const line = document.createElement("li");
    line.textContent = JSON.parse(event.data).text;
    document.querySelector("#log").append(line);
  };
  socket.onclose = () => { document.querySelector("h1").textContent += " (connection lost)" };
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    socket.send(input.value);
    input.value = "";
  };
</script>
"""

rooms = Groups(os.environ.get("REDIS_URL"), history=20)


def page(request: HttpRequest, room: str) -> str:
    return PAGE


class Chat(WebSocketView):
    """Passes each message on to all members of the room, in any process."""

    MAX_FRAME_SIZE = 4096  # bytes; the page limits its input
    SLOW_CONSUMER = "close"  # a client that does not read is disconnected

    async def on_open(self) -> None:
        await rooms.join(self, self.kwargs["room"], since="")  # with the whole history
        await self.say("somebody has come")

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.say(message.decode(errors="replace"))

    async def on_close(self, frame: Frame | None) -> None:
        await self.say("somebody has left")

    async def on_gap(self, group: str) -> None:
        await self.send_json({"text": "some messages may be missing here"})

    async def say(self, text: str) -> None:
        try:
            await rooms.publish(self.kwargs["room"], json.dumps({"text": text}))
        except BrokerError:
            if self.state:
                await self.send_json({"text": f"not sent: {text}"})


urlpatterns = [path("/<room>", page), path("/ws/<room>", Chat)]

if __name__ == "__main__":
    run(urlpatterns)
