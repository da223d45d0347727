"""A chat between all visitors of its page: run `duck serve examples/chat.py`, and open the printed address."""

from duck.contrib.websockets import CloseCode, Frame, OpCode, WebSocketView, broadcast
from duck.http import HttpRequest
from duck.server import run
from duck.urls import path

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Chat</title><style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: auto; padding: 1rem }
  #log { min-height: 9rem; padding: 0; list-style: none }
  #log li { padding: .3rem 0; border-bottom: 1px solid #ddd; overflow-wrap: anywhere }
  #state { color: #777 }
  form { display: flex; gap: .5rem }
  input, button { font: inherit; padding: .4rem .8rem; border: 1px solid #bbb; border-radius: .3rem }
  input { flex: 1; min-width: 0 } button { background: #2563eb; color: #fff; border-color: #2563eb }
</style>
<h1>Chat</h1>
<ul id="log"></ul>
<form><input autofocus autocomplete="off" maxlength="1000" aria-label="Message"><button>Send</button></form>
<p id="state" role="status"></p>
<script>
  const [log, form, input, state] = ["#log", "form", "input", "#state"].map(name => document.querySelector(name));
  let socket;

  function connect() {
    state.textContent = "Connecting…";
    socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/chat");
    socket.onopen = () => { state.textContent = "Connected." };
    socket.onmessage = event => {
      log.append(Object.assign(document.createElement("li"), {textContent: event.data}));
      log.lastChild.scrollIntoView();
    };
    socket.onclose = () => {
      state.textContent = "Connection lost. Trying again in two seconds…";
      setTimeout(connect, 2000);
    };
  }

  form.onsubmit = event => {
    event.preventDefault();
    if (!input.value || socket.readyState !== WebSocket.OPEN) return;
    socket.send(input.value);
    form.reset();
  };
  connect();
</script>
"""

everyone: set["ChatView"] = set()


def page(request: HttpRequest) -> str:
    return PAGE


class ChatView(WebSocketView):
    """Sends each message to every open page."""

    MAX_FRAME_SIZE = 4096  # bytes; the input of the page has room for 1000 characters
    SLOW_CONSUMER = "close"  # disconnects clients that do not read

    async def on_open(self) -> None:
        everyone.add(self)

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        if opcode == OpCode.TEXT:
            broadcast(everyone, message)
        else:
            await self.send_close(CloseCode.UNSUPPORTED_DATA, "text only")

    async def on_close(self, frame: Frame | None) -> None:
        everyone.discard(self)


urlpatterns = [path("/", page), path("/chat", ChatView)]

if __name__ == "__main__":
    run(urlpatterns)
