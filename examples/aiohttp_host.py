"""A view beside the pages of an aiohttp server. Any asyncio server that gives up its transport can host a view.

    pip install aiohttp && python examples/aiohttp_host.py

Then open http://127.0.0.1:8080/.
"""

import asyncio

from aiohttp import web

from duck.contrib.websockets import CloseCode, OpCode, WebSocketView
from duck.http import HttpRequest

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Echo</title>
<input autofocus>
<ol></ol>
<script>
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/echo/visitor`);
  socket.onmessage = ({ data }) => {
    document.querySelector("ol").append(Object.assign(document.createElement("li"), { textContent: data }));
  };
  document.querySelector("input").onchange = ({ target }) => { socket.send(target.value); target.value = "" };
</script>
"""


class EchoView(WebSocketView):
    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(f"{self.kwargs['name']}: {message.decode()}")


views: set[EchoView] = set()


async def close_views(app: web.Application) -> None:
    """Closes the connections before aiohttp cancels their handlers, so that clients get a close code."""
    await asyncio.gather(*(view.close(CloseCode.GOING_AWAY) for view in views))


async def page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def echo(request: web.Request) -> web.Response:
    transport = request.transport
    assert transport is not None
    transport.pause_reading()  # until the view reads
    head = HttpRequest(
        request.method,
        request.raw_path,
        request.raw_headers,
        client_address=transport.get_extra_info("peername")[:2],
        secure=request.secure,
        transport=transport,
    )
    view = EchoView(head, **request.match_info)
    views.add(view)
    try:
        await view.run()
    finally:
        views.discard(view)
        request.protocol.connection_lost(None)  # the transport has another protocol, so aiohttp does not see its end
    return web.Response()  # aiohttp requires a response, and discards it


app = web.Application()
app.add_routes([web.get("/", page), web.get("/echo/{name}", echo)])
app.on_shutdown.append(close_views)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=8080, shutdown_timeout=1)
