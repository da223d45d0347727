"""Sends every message back: run `duck serve examples/echo.py`, and open the printed address."""

from duck.contrib.websockets import OpCode, WebSocketView
from duck.http import HttpRequest
from duck.server import run
from duck.urls import path

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Echo</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: auto; padding: 1rem }
  #log { min-height: 9rem; padding: 0; list-style: none }
  #log li { display: flex; justify-content: space-between; padding: .3rem 0; border-bottom: 1px solid #ddd }
  #log li::after { content: attr(title); color: #777; white-space: nowrap }
  form { display: flex; gap: .5rem }
  input, button { font: inherit; padding: .4rem .8rem; border: 1px solid #bbb; border-radius: .3rem }
  input { flex: 1; min-width: 0 } button { background: #2563eb; color: #fff; border-color: #2563eb }
</style>
<h1>Echo</h1>
<ul id="log"></ul>
<form><input autofocus autocomplete="off" aria-label="Message"><button>Send</button></form>
<p id="state" role="status">Connecting…</p>
<script>
  const [log, form, input, state] =
    ["#log", "form", "input", "#state"].map(selector => document.querySelector(selector));
  const socket = new WebSocket(location.origin.replace(/^http/, "ws"));
  let sent = 0;

  socket.onopen = () => { state.textContent = "Connected." };
  socket.onclose = () => { state.textContent = "Connection lost." };
  socket.onmessage = event => {
    const line = document.createElement("li");
    line.textContent = event.data;
    line.title = `${(performance.now() - sent).toFixed(1)} ms`;
    log.append(line);
  };
  form.onsubmit = event => {
    event.preventDefault();
    sent = performance.now();
    socket.send(input.value);
    input.value = "";
  };
</script>
"""


def page(request: HttpRequest) -> str:
    return PAGE


class EchoView(WebSocketView):
    """Echoes text as text and binary as binary."""

    MAX_FRAME_SIZE = 16 * 1024 * 1024  # bytes; the default is 1 MiB

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)


urlpatterns = [path("/", EchoView), path("/page", page)]

if __name__ == "__main__":
    run(urlpatterns)
