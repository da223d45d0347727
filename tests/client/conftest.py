"""Fixtures for the client in synchronous code."""

import asyncio

import pytest

from duck.contrib.websockets import HandshakeError, WebSocketView


class Echo(WebSocketView):
    async def on_handshake(self, handshake):
        if self.request.path == "/private":
            raise HandshakeError(403, "not for you")

    async def on_receive(self, message, opcode):
        if message == b"close":
            await self.send_close(4001, "as you like")
        else:
            await self.send(message, opcode)


@pytest.fixture
def served(run, serving):
    """Runs a function with the URL of a server in a thread, without an event loop; returns its result."""

    def in_thread(function, view=Echo):
        async def scenario():
            async with serving(view) as server:
                return await asyncio.to_thread(function, server.addresses[0])

        return run(scenario())

    return in_thread
