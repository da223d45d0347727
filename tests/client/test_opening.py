"""The opening of a client's connection, and its end by `close` in another task or thread."""

import asyncio
import socket

import pytest

from duck.contrib.websockets import ConnectionClosed, State, WebSocketView
from duck.contrib.websockets.client import Reconnect, WebSocketClient
from duck.contrib.websockets.testing import connect as connect_in_memory


@pytest.mark.parametrize("way", ["close", "safe_close", "terminate", "from a thread"])
def test_a_close_ends_the_opening(run, way):
    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = WebSocketClient(f"ws://127.0.0.1:{listener.getsockname()[1]}", open_timeout=None)
            opening = asyncio.create_task(client.run())
            accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            with accepted:
                if way == "from a thread":
                    await asyncio.to_thread(asyncio.run, client.close())
                elif way == "terminate":
                    client.terminate()
                else:
                    await getattr(client, way)()
                with pytest.raises(ConnectionClosed):
                    await opening
            assert client.state is State.CLOSED

    run(scenario())


def test_a_close_during_the_opening_ends_a_series(run):
    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            client = WebSocketClient(f"ws://127.0.0.1:{listener.getsockname()[1]}", open_timeout=None)
            series = asyncio.create_task(Reconnect().run(lambda: client))
            accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            with accepted:
                await client.close()
                await series

    run(scenario())


def test_a_response_to_a_closed_opening_is_not_accepted(run):
    """The response and the close in one pass of the loop."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            raise AssertionError("nothing is sent to this view")

    async def scenario():
        connection = connect_in_memory(View)._make()
        opening = asyncio.create_task(connection.open())
        while connection.view is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await connection.send_close()
        with pytest.raises(ConnectionClosed):
            await opening
        assert connection.state is State.CLOSED

    run(scenario())
