"""Each page runs in a task and a context of its own, however the loop starts tasks."""

import asyncio
import contextvars
from contextlib import asynccontextmanager

import pytest

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.server import serve
from duck.urls import path

from ...support.handshake import upgrade

HANDSHAKE = upgrade("/ws")

GET = b"GET /page HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = GET[:-2] + b"Connection: close\r\n\r\n"

user = contextvars.ContextVar("user", default="nobody")


async def page(request):
    """Returns the user, and sets another one in its context."""
    before = user.get()
    user.set("alice")
    await asyncio.sleep(0)
    return before


class Named(WebSocketView):
    """Its `on_open` sends the user; each instance sets another one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.before = user.get()
        user.set("bob")

    async def on_open(self):
        await self.send(f"{self.before}, {user.get()}")


def greeting(words):
    return Frame(OpCode.TEXT, payload=words.encode()).serialize()


@pytest.fixture(params=["lazy", "eager"])
def serving(request, ssl):
    factory = request.getfixturevalue("eager_tasks") if request.param == "eager" else None

    @asynccontextmanager
    async def start(patterns):
        if factory is not None:
            asyncio.get_running_loop().set_task_factory(factory)
        async with serve(patterns, port=0, ssl=ssl) as server:
            yield server

    return start


async def test_a_page_sees_nothing_of_the_request_before(connect, serving):
    async with serving([path("/page", page)]) as server, connect(server) as client:
        for _ in range(2):
            assert (await client.get("/page")).body == b"nobody"
        client.send(GET * 3)
        for _ in range(3):
            assert (await client.response()).body == b"nobody"


async def test_a_view_sees_nothing_of_the_page_before(connect, serving):
    async with serving([path("/page", page), path("/ws", Named)]) as server:
        for _ in range(2):
            async with connect(server) as client:
                client.send(GET + HANDSHAKE)
                assert (await client.response()).body == b"nobody"
                assert (await client.response(head_only=True)).status == 101
                expected = greeting("nobody, bob")
                assert await client.reader.readexactly(len(expected)) == expected


async def test_a_page_sees_no_variables_of_the_page_before_it(connect, serving):
    """Writing is resumed in the context in which something was written."""
    size = 5_000_000

    async def large(request):
        before = user.get()
        user.set("alice")
        return before.ljust(size)

    async with serving([path("/page", large)]) as server, connect(server) as client:
        client.send(GET * 3)
        for _ in range(3):
            assert (await client.response()).body.strip() == b"nobody"


async def test_many_pipelined_requests_are_answered_without_nesting(connect, serving):
    count = 2000
    async with serving([path("/page", lambda request: "")]) as server, connect(server) as client:
        client.send(GET * (count - 1) + LAST)
        assert (await client.rest()).count(b"HTTP/1.1 200 ") == count
