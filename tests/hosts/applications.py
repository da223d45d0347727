"""ASGI applications that several modules of tests serve."""

import asyncio

from ..support.views import Listed


class App:
    """Accepts and echoes, and notes the scope, the received events and its end."""

    def __init__(self, **accept):
        self.accept = {"type": "websocket.accept", **accept}
        self.scope = None
        self.events = []

    async def __call__(self, scope, receive, send):
        self.scope = scope
        self.events.append(await receive())
        await send(self.accept)
        while True:
            event = await receive()
            self.events.append(event)
            if event["type"] == "websocket.disconnect":
                return
            await send({**event, "type": "websocket.send"})


def answering(*events, outcome=None):
    """An application that sends events, and notes the events received afterwards in `outcome`."""

    async def app(scope, receive, send):
        await receive()
        for event in events:
            await send(event)
        if outcome is not None:
            outcome.append(await receive())

    return app


ACCEPT = {"type": "websocket.accept"}


async def settled(sent):
    """Waits until the list stops growing for a while."""
    before = -1
    while before != len(sent):
        before = len(sent)
        await asyncio.sleep(0.1)


class Echo(Listed):
    """A view that the tests serve as an application."""

    SUBPROTOCOLS = ("duck",)
