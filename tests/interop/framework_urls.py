"""The `web/urls.py` of a project of Duck Framework, which the tests of the overlay put there."""

import asyncio

from duck.html.components.button import Button
from duck.html.components.page import Page

from duck.contrib.websockets import CloseCode, HandshakeError, OpCode, WebSocketView
from duck.urls import path


class EchoView(WebSocketView):
    MAX_FRAME_SIZE = 8 * 1024 * 1024

    async def on_receive(self, data, opcode):
        if data == b"fragments":
            await self.send(part for part in ("frag", "ments"))
        elif data == b"close":
            await self.send_close(4001, "as asked")
        elif data == b"fail":
            raise ValueError("as the test expects")
        else:
            await self.send(data, opcode)

    async def on_close(self, frame):
        await super().on_close(frame)
        endings.append([self.kwargs["name"], self.close_code, self.close_reason, frame is not None])


class EndingsView(WebSocketView):
    """Tells how the other connections ended."""

    async def on_receive(self, data, opcode):
        assert opcode == OpCode.TEXT
        await self.send_json(endings)
        await self.send_close(CloseCode.NORMAL_CLOSURE)


class MemberView(WebSocketView):
    """Accepts users with a session only."""

    SUBPROTOCOLS = ("v1", "v2")

    async def on_handshake(self, handshake):
        await asyncio.sleep(0.01)
        self.user = {"3f9a": "alice"}.get(handshake.request.cookies.get("session", ""))
        if self.user is None:
            raise HandshakeError(401, "log in first", {"WWW-Authenticate": "Cookie"})
        handshake.subprotocol = "v2"
        handshake.add_header("Set-Cookie", "seen=1")

    async def on_open(self):
        await self.send(self.user)


class UndecidedView(WebSocketView):
    """Tells that its hook was cancelled."""

    async def on_handshake(self, handshake):
        try:
            await asyncio.Event().wait()
        finally:
            endings.append(["undecided"])


async def answer(button, event, value, websocket):
    sum_of_both = await websocket.get_js_result("window.sum = 40 + 2;", "window.sum", timeout=30)
    button.inner_html = f"It is {sum_of_both}."


def page(request):
    page = Page(request, lazy=False)
    button = Button(id="button", text="What is it?", lazy=False)
    button.bind("click", answer)
    page.add_to_body(button)
    return page


endings: list = []

urlpatterns = [
    path("/page", page, name="page"),
    path("/echo/<name>", EchoView, name="echo"),
    path("/member", MemberView, name="member"),
    path("/undecided", UndecidedView, name="undecided"),
    path("/endings", EndingsView, name="endings"),
]
