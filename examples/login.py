"""A chat for users who have signed in: run `duck serve examples/login.py`, and open the printed port."""

import secrets
from html import escape
from urllib.parse import parse_qs

from duck.contrib.websockets import Frame, Handshake, HandshakeError, OpCode, WebSocketView, broadcast
from duck.http.request import HttpRequest
from duck.http.response import HttpResponse
from duck.server import run
from duck.urls import path

SESSIONS: dict[str, str] = {}  # names by the tokens in the cookies; in a real application a database table

LOGIN = """<!doctype html><meta charset="utf-8"><title>Sign in</title>
<form action="/login"><input name="name" maxlength="40" required autofocus aria-label="Name"><button>Sign in</button>
</form>"""

CHAT = """<!doctype html><meta charset="utf-8"><title>Chat</title>
<p>You are <b id="name">%s</b>. <a href="/logout">Sign out</a></p>
<form><input autofocus autocomplete="off" aria-label="Message"><button>Send</button></form><ul id="log"></ul>
<script>
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/chat");
  const [form, input, log] = ["form", "input", "#log"].map(name => document.querySelector(name));
  socket.onmessage = event => log.append(Object.assign(document.createElement("li"), {textContent: event.data}));
  form.onsubmit = event => {
    event.preventDefault();
    socket.send(input.value);
    input.value = "";
  };
</script>"""


def page(request: HttpRequest) -> str:
    name = SESSIONS.get(request.cookies.get("session", ""))
    return LOGIN if name is None else CHAT % escape(name)


def login(request: HttpRequest) -> HttpResponse:
    """Starts a session; a real application checks a password first."""
    token = secrets.token_urlsafe()
    SESSIONS[token] = parse_qs(request.query_string).get("name", ["somebody"])[0][:40]
    cookie = f"session={token}; HttpOnly; SameSite=Lax; Path=/"
    return HttpResponse(status=303, headers=[("Location", "/"), ("Set-Cookie", cookie)])


def logout(request: HttpRequest) -> HttpResponse:
    SESSIONS.pop(request.cookies.get("session", ""), None)
    return HttpResponse(status=303, headers=[("Location", "/"), ("Set-Cookie", "session=; Max-Age=0; Path=/")])


everyone: set["Chat"] = set()


class Chat(WebSocketView):
    MAX_FRAME_SIZE = 4096

    async def on_handshake(self, handshake: Handshake) -> None:
        name = SESSIONS.get(handshake.request.cookies.get("session", ""))
        if name is None:
            raise HandshakeError(401, "sign in first")
        self.name = name

    async def on_open(self) -> None:
        everyone.add(self)

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        broadcast(everyone, f"{self.name}: {message.decode(errors='replace')}")

    async def on_close(self, frame: Frame | None) -> None:
        everyone.discard(self)


urlpatterns = [path("/", page), path("/login", login), path("/logout", logout), path("/chat", Chat)]

if __name__ == "__main__":
    run(urlpatterns)
