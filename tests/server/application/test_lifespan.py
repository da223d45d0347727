"""The lifespan of an application: start before the first connection, end after the last."""

import asyncio
import contextlib
import socket

import pytest
from websockets.asyncio.client import connect as ws_connect

from duck.contrib.websockets import WebSocketView
from duck.server import serve
from duck.server.application.lifespan import LifespanError


class Greeting(WebSocketView):
    async def on_open(self):
        await self.send(self.server.state["greeting"])

    async def on_receive(self, message, opcode):
        pass

    async def on_close(self, frame=None):
        self.server.state["ended"].append("connection")


async def test_a_lifespan_encloses_all_connections():
    ended = []

    @contextlib.asynccontextmanager
    async def lifespan(server):
        assert server.addresses == []
        yield {"greeting": "hello", "ended": ended}
        ended.append("lifespan")

    with pytest.raises(ZeroDivisionError):
        async with serve(Greeting, port=0, lifespan=lifespan) as server, ws_connect(server.addresses[0]) as client:
            assert await client.recv() == "hello"
            assert ended == []
            await server.close()
            raise ZeroDivisionError
    assert ended == ["connection", "lifespan"]


async def test_an_error_at_startup_comes_before_anything_is_served():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))

        @contextlib.asynccontextmanager
        async def lifespan(server):
            with pytest.raises(ConnectionRefusedError, match="refused"):
                socket.create_connection(sock.getsockname())
            raise ConnectionRefusedError("no database")
            yield

        with pytest.raises(LifespanError, match="failed at startup: ConnectionRefusedError: no database") as caught:
            async with serve(Greeting, sockets=[sock], lifespan=lifespan):
                pass
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert sock.fileno() == -1


async def test_an_end_that_hangs_is_cancelled():
    @contextlib.asynccontextmanager
    async def lifespan(server):
        yield
        await asyncio.Event().wait()

    with pytest.raises(LifespanError, match=r"did not end within .* 0\.01 s, and was cancelled"):
        async with serve(Greeting, port=0, lifespan=lifespan, shutdown_timeout=0.01):
            pass


async def test_an_end_that_swallows_its_cancellation_is_named_in_the_log(monkeypatch, caplog):
    @contextlib.asynccontextmanager
    async def lifespan(server):
        yield
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        while not caplog.records:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    monkeypatch.setattr("duck.server.application.lifespan._GRACE", 0.01)
    async with serve(Greeting, port=0, lifespan=lifespan, shutdown_timeout=0.01):
        pass
    assert "nor when cancelled: it swallows CancelledError" in caplog.text


async def test_an_error_at_shutdown_comes_after_the_last_connection():
    @contextlib.asynccontextmanager
    async def lifespan(server):
        yield {"greeting": "hello", "ended": ended}
        raise OSError("not flushed")

    ended = []
    with pytest.raises(LifespanError, match="lifespan failed: OSError: not flushed"):
        async with serve(Greeting, port=0, lifespan=lifespan) as server, ws_connect(server.addresses[0]) as client:
            await client.recv()
    assert ended == ["connection"]


async def test_an_error_of_a_task_group_in_the_lifespan_stops_the_server():
    async def fail():
        await asyncio.sleep(0)
        raise OSError("no feed")

    @contextlib.asynccontextmanager
    async def lifespan(server):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            yield

    with pytest.raises(LifespanError, match="lifespan failed: OSError: no feed"):
        async with serve(Greeting, port=0, lifespan=lifespan) as server:
            await server.serve_forever()


async def test_functions_that_are_no_lifespan_are_refused():
    async def generator(server):
        yield

    async def coroutine(server):
        pass

    @contextlib.asynccontextmanager
    async def without_argument():
        yield

    for lifespan in (generator, coroutine):
        with pytest.raises(TypeError, match=r"decorate it with contextlib\.asynccontextmanager"):
            async with serve(Greeting, port=0, lifespan=lifespan):
                pass
    with pytest.raises(LifespanError, match=r"failed at startup: TypeError: .*takes 0 positional arguments"):
        async with serve(Greeting, port=0, lifespan=without_argument):
            pass


@pytest.mark.parametrize("failure", ["failed at startup", "failed"])
async def test_a_lifespan_that_cancels_itself_has_failed(failure):
    @contextlib.asynccontextmanager
    async def lifespan(server):
        if failure == "failed at startup":
            raise asyncio.CancelledError
        yield
        raise asyncio.CancelledError

    with pytest.raises(LifespanError, match=f"the lifespan {failure}: CancelledError"):
        async with serve(Greeting, port=0, lifespan=lifespan):
            pass


@pytest.mark.parametrize("moment", ["startup", "shutdown"])
async def test_a_cancelled_program_has_no_failed_lifespan(moment):
    reached = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(server):
        if moment == "shutdown":
            yield
        reached.set()
        await asyncio.Event().wait()
        yield

    async def program():
        async with serve(Greeting, port=0, lifespan=lifespan):
            pass

    task = asyncio.create_task(program())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
