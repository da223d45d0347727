"""A live dashboard of the server's own numbers: `duck serve examples/dashboard.py`; open its page several times."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from duck.contrib.websockets import OpCode, WebSocketView, broadcast
from duck.http import HttpRequest
from duck.server import Server, run
from duck.urls import path

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Dashboard</title><style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: auto; padding: 1rem } #state { color: #777 }
  figure { margin: 1rem 0 } figcaption { display: flex; justify-content: space-between } button { font: inherit }
  svg { width: 100%; height: 6rem; border: solid #ddd; border-width: 1px 0 }
  polyline { fill: none; stroke: #2a7; stroke-width: 2; vector-effect: non-scaling-stroke } output { font-weight: bold }
</style><h1>Dashboard</h1><div></div><button>Send 500 messages</button> <span id="state" role="status"></span>
<script>
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/numbers");
  const state = document.querySelector("#state"), WIDTH = 60;
  function chart(name) {
    const html = `<figcaption><span>${name}</span><output></output></figcaption>
      <svg viewBox="0 0 ${WIDTH - 1} 100" preserveAspectRatio="none" aria-hidden="true"><polyline/></svg>`;
    const figure = Object.assign(document.createElement("figure"), {id: name, innerHTML: html, values: []});
    return document.querySelector("div").appendChild(figure);
  }
  function draw(figure, value) {
    const values = figure.values = [...figure.values, value].slice(-WIDTH);
    const top = Math.max(1, ...values), left = WIDTH - values.length;
    const points = values.map((value, at) => `${left + at},${(98 - 96 * value / top).toFixed(1)}`).join(" ");
    figure.querySelector("polyline").setAttribute("points", points);
    figure.querySelector("output").textContent = value.toLocaleString("en");
  }
  socket.onopen = () => state.textContent = "Connected."; onpagehide = () => socket.close();
  socket.onclose = () => state.textContent = "The connection is lost: reload the page.";
  socket.onmessage = event => {
    const numbers = Object.entries(JSON.parse(event.data));
    numbers.forEach(([name, value]) => draw(document.getElementById(name) ?? chart(name), value));
  };
  document.querySelector("button").onclick = () => { for (let i = 0; i < 500; i++) socket.send("quack") };
</script>"""


class Numbers(WebSocketView):
    SLOW_CONSUMER = "drop"  # a page in the background misses numbers

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        """Received messages are only counted."""


async def measure(server: Server) -> None:
    """Sends the numbers of each second to all pages."""
    now = server.stats()
    while True:
        await asyncio.sleep(1)
        before, now = now, server.stats()
        received, sent = now.received["text"] - before.received["text"], now.sent["text"] - before.sent["text"]
        numbers = {"Open connections": now.open, "Messages received / s": received, "Messages sent / s": sent}
        broadcast(server.connections, json.dumps(numbers))


@asynccontextmanager
async def lifespan(server: Server) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as tasks:  # an error of the task stops the server
        task = tasks.create_task(measure(server))
        yield
        task.cancel()


def page(request: HttpRequest) -> str:
    return PAGE


urlpatterns = [path("/", page), path("/numbers", Numbers)]

if __name__ == "__main__":
    run(urlpatterns, lifespan=lifespan)
