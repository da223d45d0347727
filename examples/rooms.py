"""A chat with rooms: `duck serve [--workers 2 --groups redis://127.0.0.1] examples/rooms.py`; open /tea or /coffee."""

import json
import os
from contextlib import suppress

from duck.contrib.websockets import BrokerError, CloseCode, OpCode, WebSocketView
from duck.contrib.websockets.groups import Groups
from duck.http import HttpRequest
from duck.server import run
from duck.urls import path

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Rooms</title><style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: auto; padding: 1rem } #state { color: #777 }
  #log { min-height: 9rem; padding: 0; list-style: none } #log li { padding: .3rem 0; border-bottom: 1px solid #ddd }
  form { display: flex; gap: .5rem } input { flex: 1; min-width: 0 } input, button { font: inherit; padding: .4rem }
</style><h1></h1><form><input name="name" required maxlength="40" placeholder="Your name"><button>Enter</button></form>
<p>Here: <b id="people"></b></p><ul id="log"></ul><p id="state" role="status"></p>
<form><input autofocus autocomplete="off" maxlength="1000" aria-label="Message"><button>Send</button></form><script>
  const [title, , people, log, state, form] = document.querySelectorAll("h1, form, #people, #log, #state");
  let ws, room = location.pathname.slice(1) || "lobby", here = new Map(), query = new URLSearchParams(location.search);
  (function connect() {
    ws = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws/${room}?${query}`);
    ws.onopen = () => { here.clear(); state.textContent = "Connected." };
    ws.onclose = () => { state.textContent = "Connection lost, trying again…"; setTimeout(connect, 1000) };
    ws.onmessage = event => {
      const {id, text, joined = [], left = []} = JSON.parse(event.data);
      if (id) query.set("since", id);  // from where the history continues after a reconnection
      if (text) log.append(Object.assign(document.createElement("li"), {textContent: text}));
      joined.forEach(([entry, name]) => here.set(entry, name)), left.forEach(([entry]) => here.delete(entry));
      people.textContent = [...here.values()].sort().join(", ");
    };
  })();
  title.textContent = "Room " + decodeURIComponent(room), onpagehide = () => ws.close();  // of a page that stays hidden
  form.onsubmit = event => { event.preventDefault(); ws.send(form[0].value); form.reset() };
</script>"""
rooms = Groups(
    os.environ.get("DUCK_GROUPS"),
    history=20,
    stamp=lambda payload, id: json.dumps({"id": id, "text": payload.decode()}),
    announce=lambda change: json.dumps({"joined": change.joined, "left": change.left}),
)


class Chat(WebSocketView):
    MAX_FRAME_SIZE = 4096  # bytes; the input of the page has room for 1000 characters

    async def on_open(self) -> None:
        query = {"name": ["somebody"], "since": [""]} | self.request.query
        self.name, self.room = query["name"][0][:40], self.kwargs["room"]
        try:
            complete = await rooms.join(self, self.room, since=query["since"][0], data=self.name)
            await self.show_all("" if complete else "(Some messages may be missing here.)")
        except ValueError as error:
            await self.send_close(CloseCode.POLICY_VIOLATION, str(error))

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        try:
            await rooms.publish(self.room, f"{self.name}: {message.decode(errors='replace')}")
        except BrokerError:
            await self.send_json({"text": "(Not sent; please try again later.)"})

    async def on_gap(self, group: str) -> None:
        await self.show_all("(Some messages may be missing here.)")

    async def show_all(self, text: str) -> None:
        with suppress(BrokerError):  # on_gap is called once the broker is back
            await self.send_json({"text": text, "joined": await rooms.presence(self.room)})


def page(request: HttpRequest, room: str = "lobby") -> str:
    return PAGE


urlpatterns = [path("/", page), path("/<room>", page), path("/ws/<room>", Chat)]

if __name__ == "__main__":
    run(urlpatterns)
