"""A chat for users who have signed in: run `duck serve examples/login.py`, and open the printed address."""

import secrets
from html import escape

from duck.contrib.websockets import Frame, Handshake, HandshakeError, OpCode, WebSocketView, broadcast
from duck.http import HttpRequest, HttpResponse
from duck.server import run
from duck.urls import path

PASSWORDS = {"alice": "quack", "bob": "honk"}  # hashed, in a real application, and in a database
SESSIONS: dict[str, str] = {}  # names by the tokens in the cookies; a database table, in a real application
HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Chat</title><style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: auto; padding: 1rem } .error { color: #b00 }
  #log { min-height: 9rem; padding: 0; list-style: none } #log li { padding: .3rem 0; border-bottom: 1px solid #ddd }
  form { display: flex; gap: .5rem; align-items: baseline }
  input, button { font: inherit; padding: .4rem .8rem; border: 1px solid #bbb; border-radius: .3rem }
  input { flex: 1; min-width: 0 } button { background: #2563eb; color: #fff; border-color: #2563eb }
</style>"""
LOGIN = """<h1>Sign in</h1><form method="post" action="/login"><input name="name" required autofocus placeholder="Name">
<input name="password" type="password" placeholder="Password"><button>Sign in</button></form><p class="error">%s</p>"""
CHAT = """<h1>Chat</h1><form action="/logout" method="post"><p>You are <b>%s</b>.</p><button>Sign out</button></form>
<ul id="log"></ul><form id="chat"><input autofocus autocomplete="off" aria-label="Message"><button>Send</button></form>
<script>
  const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/chat");
  const [form, log] = ["#chat", "#log"].map(name => document.querySelector(name));
  socket.onmessage = event => log.append(Object.assign(document.createElement("li"), {textContent: event.data}));
  form.onsubmit = event => { event.preventDefault(); socket.send(form[0].value); form.reset() };
</script>"""


def user_of(request: HttpRequest) -> str | None:
    return SESSIONS.get(request.cookies.get("session", ""))


def page(request: HttpRequest) -> str:
    return HEAD + (CHAT % escape(user) if (user := user_of(request)) else LOGIN % "")


def login(request: HttpRequest) -> HttpResponse:
    name, password = (request.form.get(field, [""])[0] for field in ("name", "password"))
    if name not in PASSWORDS or not secrets.compare_digest(password.encode(), PASSWORDS[name].encode()):
        return HttpResponse(HEAD + LOGIN % "The name or the password is wrong.", status=403)
    SESSIONS[token := secrets.token_urlsafe()] = name
    cookie = f"session={token}; HttpOnly; SameSite=Lax; Path=/"
    return HttpResponse(status=303, headers={"Location": "/", "Set-Cookie": cookie})


def logout(request: HttpRequest) -> HttpResponse:
    SESSIONS.pop(request.cookies.get("session", ""), None)
    return HttpResponse(status=303, headers={"Location": "/", "Set-Cookie": "session=; Max-Age=0; Path=/"})


everyone: set["Chat"] = set()


class Chat(WebSocketView):
    async def on_handshake(self, handshake: Handshake) -> None:
        user = user_of(handshake.request)
        if user is None:
            raise HandshakeError(401, "sign in first")
        self.user = user

    async def on_open(self) -> None:
        everyone.add(self)

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        broadcast(everyone, f"{self.user}: {message.decode(errors='replace')}")

    async def on_close(self, frame: Frame | None) -> None:
        everyone.discard(self)


forms = [path("/login", login, methods="POST"), path("/logout", logout, methods="POST")]
urlpatterns = [path("/", page), *forms, path("/chat", Chat)]

if __name__ == "__main__":
    run(urlpatterns)
