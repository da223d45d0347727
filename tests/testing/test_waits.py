"""The timeouts of a tested connection: each method that waits for the view has one."""

import asyncio

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.exceptions import HandshakeError, HandshakeRefused
from duck.contrib.websockets.testing import VirtualTimeLoop, connect


class Stuck(WebSocketView):
    MAX_CONCURRENT_MESSAGES = MAX_WAITING_MESSAGES = 1
    CLOSE_TIMEOUT = 0.05

    async def on_receive(self, message, opcode):
        await asyncio.Event().wait()


class Private(WebSocketView):
    async def on_handshake(self, handshake):
        raise HandshakeError(403)


class Half(WebSocketView):
    CLOSE_TIMEOUT = 0.05

    async def on_receive(self, message, opcode):
        await self.send(self.half())

    async def half(self):
        yield "a"
        await asyncio.Event().wait()


@pytest.mark.in_memory
async def test_a_send_to_a_view_that_does_not_receive_ends():
    words = r"waiting for room to send: .* wait for Stuck; Stuck\.on_receive is at line"
    with pytest.raises(TimeoutError, match=words):
        async with connect(Stuck, timeout=0.05, compression=False) as ws:  # no thread, whose time is real
            while True:
                await ws.send(b"x" * 300_000)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.in_memory
async def test_reading_a_message_whose_rest_is_not_sent_ends():
    async with connect(Half, timeout=0.05, stream=True) as ws:
        await ws.send("")
        message = await ws.recv_stream()
        with pytest.raises(TimeoutError, match=r"waiting for the rest of a message: .*Half\.on_receive is at line"):
            await message.read()
        with pytest.raises(TimeoutError, match="waiting for a message: 1 messages were received; "):
            await ws.recv_stream()


def test_a_failed_task_of_the_view_is_named():
    class Pump(WebSocketView):
        async def on_open(self):
            self.running = asyncio.create_task(asyncio.Event().wait())
            self.cancelled = asyncio.create_task(asyncio.Event().wait())
            self.cancelled.cancel()
            self.pumping = asyncio.create_task(self.pump())

        async def pump(self):
            raise ZeroDivisionError("as asked for")

        async def on_close(self, frame):
            self.running.cancel()

    words = "no hook of Pump is running; ZeroDivisionError has ended the task Pump.pumping: as asked for$"
    with connect(Pump, loop_factory=VirtualTimeLoop) as ws, pytest.raises(TimeoutError, match=words):
        ws.recv()


def test_an_error_of_a_task_that_is_one_of_a_hook_is_named_once():
    class Pump(WebSocketView):
        async def on_open(self):
            self.pumping = self.create_task(self.pump())

        async def pump(self):
            raise ZeroDivisionError("as asked for")

        async def on_close(self, frame):
            await asyncio.Event().wait()

    with (
        pytest.raises(TimeoutError, match=r"Pump.on_close is at .*; ZeroDivisionError was raised: as asked for$"),
        connect(Pump, loop_factory=VirtualTimeLoop, raise_errors=False) as ws,
    ):
        ws.wait_closed()


@pytest.mark.in_memory
async def test_a_close_that_is_not_answered_ends():
    async with connect(Half, timeout=0.05) as ws:
        ws.stop_reading()
        with pytest.raises(TimeoutError, match=r"waiting for the end of the connection: .*; the client does not read"):
            await ws.close()


def test_a_view_that_waits_for_the_close_frame_of_the_client_says_so():
    class Slow(WebSocketView):
        COMPRESSION = False
        SLOW_CONSUMER = "close"

        async def on_receive(self, message, opcode):
            for _ in range(100):
                await self.send(message)

    with connect(Slow, timeout=0.05, loop_factory=VirtualTimeLoop) as ws:
        ws.stop_reading()
        ws.send("x" * 1000)
        words = "Slow has closed with 1008, and waits for the close frame of the client; the client does not read"
        with pytest.raises(TimeoutError, match=words):
            ws.wait_closed()
        ws.drop()


def test_the_timeout_of_a_synchronous_test_may_be_changed():
    with connect(Stuck, timeout=60, loop_factory=VirtualTimeLoop) as ws:
        ws.timeout = 0.01
        with pytest.raises(TimeoutError, match=r"timeout after 0\.01 seconds"):
            ws.recv()


def test_a_loop_over_messages_has_the_timeout_of_recv():
    with connect(Stuck, loop_factory=VirtualTimeLoop) as ws, pytest.raises(TimeoutError, match="waiting for a message"):
        list(ws)


async def test_a_test_may_drop_the_connection_in_the_step_that_receives():
    """The step is taken while the network delivers the bytes."""

    class Two(WebSocketView):
        async def on_open(self):
            await self.send("a")
            await self.send("b" * 100_000)

    async with connect(Two) as ws:
        ws.slow_down(200)
        await ws.recv()
        ws.drop()
        assert await ws.wait_closed() == 1006


async def test_a_hook_that_its_server_cancels_fails_the_test_by_an_error():
    """A CancelledError would be taken for a cancellation of the test."""

    class Hanging(WebSocketView):
        CLOSE_TIMEOUT = 0.01

        async def on_close(self, frame=None):
            await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match=r"a hook of Hanging was cancelled, .* CLOSE_TIMEOUT") as caught:
        async with connect(Hanging):
            pass
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("explicit", [True, False])
async def test_an_error_of_a_hook_keeps_its_cause(explicit):
    """It got the `ConnectionClosed` of the test as its context, and lost its cause."""

    class Failing(WebSocketView):
        async def on_receive(self, message, opcode):
            try:
                {}["key"]
            except KeyError as error:
                if explicit:
                    raise ZeroDivisionError from error
                raise ZeroDivisionError  # noqa: B904

    async with connect(Failing) as ws:
        await ws.send("x")
        with pytest.raises(ZeroDivisionError) as caught:
            await ws.recv()
    assert (caught.value.__cause__ is not None, caught.value.__suppress_context__) == (explicit, explicit)
    assert isinstance(caught.value.__context__, KeyError)


async def test_a_connect_object_serves_one_block_at_a_time():
    connecting = connect(Stuck)
    async with connecting as ws:
        for _ in range(2):  # the second time after the end of the connection
            with pytest.raises(RuntimeError, match="write another connect"):
                async with connecting:
                    pass
            await ws.close()
    async with connecting:
        pass
    refused = connect(Private)
    for _ in range(2):
        with pytest.raises(HandshakeRefused):
            async with refused:
                pass


@pytest.mark.in_memory
@pytest.mark.parametrize("parts", [[], [b"half of"]])
async def test_a_response_that_an_asgi_application_leaves_unfinished_is_no_wait(parts):
    """A server ends the connection with the application."""

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 451, "headers": []})
        for part in parts:
            await send({"type": "websocket.http.response.body", "body": part, "more_body": True})

    refusal = await connect(application).refusal()
    assert (refusal.status, refusal.body, asyncio.get_running_loop().time()) == (451, b"".join(parts), 0)


class HangingInHandshake(WebSocketView):
    async def on_handshake(self, handshake):
        await asyncio.Event().wait()


class HangingInOpen(WebSocketView):
    async def on_open(self):
        await asyncio.Event().wait()


async def hanging_before_accept(scope, receive, send):
    await asyncio.Event().wait()


async def hanging_after_accept(scope, receive, send):
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()


@pytest.mark.in_memory
@pytest.mark.parametrize(
    "application", [HangingInHandshake, HangingInOpen, hanging_before_accept, hanging_after_accept]
)
async def test_a_test_that_is_cancelled_again_and_again_leaves_nothing_running(application):
    """As by a cancelled scope of anyio, which cancels each wait."""

    async def wait():
        async with connect(application) as ws:
            await ws.recv()

    test = asyncio.create_task(wait())
    for _ in range(20):
        await asyncio.sleep(0)
    while not test.done():
        test.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
