"""The end of a connection on ASGI servers: no message is handled after our close frame, and `on_close` is last."""

import asyncio
import weakref

import pytest

from duck.contrib.websockets import WebSocketView

pytest.importorskip("uvicorn")


def telling(opening=None, handling=None, closes=None):
    """A view that notes its hooks, and closes on request."""

    class View(WebSocketView):
        COMPRESSION = False

        async def on_open(self):
            events.append("on_open begins")
            if opening is not None:
                await opening.wait()
            if closes == "on_open":
                await self.send_close(1008)
            events.append("on_open ends")

        async def on_receive(self, message, opcode):
            events.append(message.decode())
            if handling is not None:
                await handling.wait()
            if closes == message.decode():
                await self.send_close(1008)
            events.append("handled")

        async def on_close(self, frame=None):
            events.append("on_close")

    events = View.events = []
    return View


async def test_no_message_is_handled_after_a_close_in_on_open(serving_asgi, dial, until, ws):
    opening = asyncio.Event()
    View = telling(opening=opening, closes="on_open")
    async with serving_asgi(View.as_asgi(), ws=ws) as server, dial(server) as peer:
        await peer.head()
        peer.send("delete", "everything")
        await peer.settled()
        opening.set()
        assert (await peer.closing())[0] == 1008
        peer.send("now")
        peer.close(1008)
        await until(lambda: "on_close" in View.events)
    assert View.events == ["on_open begins", "on_open ends", "on_close"]


async def test_no_message_is_handled_after_a_close_in_a_handler(serving_asgi, dial, until, ws):
    View = telling(closes="bad")
    async with serving_asgi(View.as_asgi(), ws=ws) as server, dial(server) as peer:
        await peer.head()
        peer.send("good", "bad", "delete", "everything")
        assert (await peer.closing())[0] == 1008
        peer.close(1008)
        await until(lambda: "on_close" in View.events)
    assert View.events == ["on_open begins", "on_open ends", "good", "handled", "bad", "handled", "on_close"]


@pytest.mark.usefixtures("no_collector")
async def test_the_view_of_a_closed_connection_is_freed_at_once(serving_asgi, dial, until, ws):
    """Memory that waits for the garbage collector is cold when it is used again, and the collector has work."""
    views = weakref.WeakSet()

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            views.add(self)
            await self.send(message, opcode)

    async with serving_asgi(View.as_asgi(), ws=ws) as server:
        async with dial(server) as peer:
            await peer.head()
            peer.send("Hi!")
            assert await peer.message() == "Hi!"
            assert len(views) == 1
            peer.close()
            await peer.closing()
            assert await peer.rest() == []
        await until(lambda: not views)


async def test_on_close_runs_after_on_open_has_ended(serving_asgi, dial, until, ws):
    opening = asyncio.Event()
    View = telling(opening=opening)
    async with serving_asgi(View.as_asgi(), ws=ws) as server, dial(server) as peer:
        await peer.head()
        await until(lambda: View.events)
        peer.close()
        await peer.closing()
        assert await peer.rest() == []
        opening.set()
        await until(lambda: "on_close" in View.events)
    assert View.events == ["on_open begins", "on_open ends", "on_close"]


async def test_on_close_runs_after_the_handlers_have_ended(serving_asgi, dial, until, ws):
    handling = asyncio.Event()
    View = telling(handling=handling)
    async with serving_asgi(View.as_asgi(), ws=ws) as server, dial(server) as peer:
        await peer.head()
        peer.send("work")
        await until(lambda: "work" in View.events)
        peer.close()
        await peer.closing()
        assert await peer.rest() == []
        await asyncio.sleep(0.05)
        handling.set()
        await until(lambda: "on_close" in View.events)
    assert View.events[2:] == ["work", "handled", "on_close"]
