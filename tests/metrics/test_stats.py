"""`Metrics` and `Stats` count the activity of connections of any host and role."""

import asyncio
import json
import threading

import pytest

from duck.contrib.websockets import ConnectionClosed, HandshakeError, OpCode, WebSocketView
from duck.contrib.websockets.metrics import HistogramStats, Metrics, Stats
from duck.contrib.websockets.testing import connect

from ..support.frames import frame


class Echo(WebSocketView):
    METRICS = None
    CLOSE_TIMEOUT = 0.2

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.METRICS = self.kwargs["metrics"]

    async def on_receive(self, message, opcode):
        if message == b"fail":
            raise ZeroDivisionError("as asked for")
        if message == b"wait":
            await asyncio.sleep(0)
        if message == b"close":
            await self.send_close(4000, "bye")
            return
        await self.send(message, opcode)


def counted(counts):
    return {name: number for name, number in counts.items() if number}


async def test_messages_and_their_bytes_are_counted():
    metrics = Metrics()
    async with connect(Echo, kwargs={"metrics": metrics}) as ws:
        assert metrics.stats().open == 1
        for message, opcode in (("hello", OpCode.TEXT), (b"bytes", OpCode.BINARY), ("wait", OpCode.TEXT)):
            await ws.send(message, opcode)
            assert await ws.recv() == message
        await ws.send("x" * 100_000)
        await ws.recv()
    stats = metrics.stats()
    assert (stats.open, stats.opened) == (0, 1)
    assert counted(stats.received) == counted(stats.sent) == {"text": 3, "binary": 1, "close": 1}
    assert stats.received_bytes["binary"] == stats.sent_bytes["binary"] == 5
    assert stats.received_plain_bytes == stats.sent_plain_bytes == 100_000
    assert 0 < stats.received_compressed_bytes < 1000 > stats.sent_compressed_bytes > 0
    assert stats.received_bytes["text"] == 9 + stats.received_compressed_bytes
    assert stats.sent_bytes["text"] == 9 + stats.sent_compressed_bytes
    assert stats.handlers.count == 4 and 0 < stats.handlers.sum < 30
    assert stats.closed == {"peer": {"1000": 1}}


@pytest.mark.parametrize(
    ("message", "closed", "errors"),
    [("close", {"local": {"4000": 1}}, 0), ("fail", {"local": {"1011": 1}}, 1), (None, {"none": {"1006": 1}}, 0)],
)
async def test_ends_are_counted_by_side_and_code_and_errors_apart(message, closed, errors):
    metrics = Metrics()
    async with connect(Echo, kwargs={"metrics": metrics}, raise_errors=False) as ws:
        if message is None:
            ws.drop()
        else:
            await ws.send(message)
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    stats = metrics.stats()
    assert (stats.open, stats.closed, stats.errors) == (0, closed, errors)
    assert stats.handlers.count == (message is not None)


async def test_codes_of_peers_are_few():
    metrics = Metrics()
    for code in (1001, 3001, 4999):
        async with connect(Echo, kwargs={"metrics": metrics}) as ws:
            await ws.send_close(code)
    assert metrics.stats().closed == {"peer": {"1001": 1, "other": 2}}


async def test_refusals_are_counted_by_reason():
    class Choosy(WebSocketView):
        async def on_handshake(self, handshake):
            status = int(self.kwargs["status"])
            if status:
                raise HandshakeError(status)
            await asyncio.Event().wait()

    Choosy.METRICS = metrics = Metrics()
    for status in (401, 429, 599):
        await connect(Choosy, kwargs={"status": status}).refusal()
    await connect(Choosy, kwargs={"status": 0}, origin="https://evil.test").refusal()
    Choosy.HANDSHAKE_TIMEOUT = 0.01
    await connect(Choosy, kwargs={"status": 0}).refusal()
    refused = {"unauthorized": 1, "too_many_requests": 1, "other": 1, "origin": 1, "timeout": 1}
    assert metrics.stats().refused == refused


async def test_dropped_messages_paused_reads_and_the_buffer_of_a_slow_peer_are_counted(until):
    """Its messages are dropped, reading is paused meanwhile, and the buffer that waits for it is seen."""

    class Flood(WebSocketView):
        SLOW_CONSUMER = "drop"
        COMPRESSION = False
        CLOSE_TIMEOUT = 0.2

        async def on_receive(self, message, opcode):
            while not self.dropped:
                await self.send(bytes(50_000), OpCode.BINARY)

    Flood.METRICS = metrics = Metrics()
    async with connect(Flood) as ws:
        ws.stop_reading()
        await ws.send("go")
        await until(lambda: metrics.stats().dropped)
        stats = metrics.stats()
        assert stats.dropped == {"slow_consumer": 1}
        assert stats.paused == {"writes": 1}
        assert stats.write_buffer_peak > Flood.WRITE_LIMIT
        ws.resume_reading()


@pytest.mark.parametrize("end", ["fail", "close", "drop"])
@pytest.mark.parametrize("hook", ["on_receive", "on_stream"])
async def test_messages_that_are_not_handled_before_the_end_are_counted(end, hook):
    class Ending(WebSocketView):
        MAX_CONCURRENT_MESSAGES = 1
        CLOSE_TIMEOUT = 0.05

        async def handle(self, *message):
            await asyncio.sleep(0)
            if end == "fail":
                raise ZeroDivisionError("as asked for")
            if end == "close":
                await self.send_close()
            ws.drop()
            await asyncio.Event().wait()

        vars()[hook] = handle

    Ending.METRICS = metrics = Metrics()
    async with connect(Ending, raise_errors=False) as ws:
        ws.send_raw(3 * frame(OpCode.TEXT, b"x"))
    assert metrics.stats().dropped == {"closing": 2}


async def test_the_peak_of_waiting_messages_is_kept(until):
    class Slow(WebSocketView):
        MAX_CONCURRENT_MESSAGES = 1
        MAX_WAITING_MESSAGES = 2
        CLOSE_TIMEOUT = 0.2

        async def on_receive(self, message, opcode):
            await self.kwargs["go"].wait()

    Slow.METRICS = metrics = Metrics()
    go = asyncio.Event()
    async with connect(Slow, kwargs={"go": go}) as ws:
        ws.send_raw(b"".join(frame(OpCode.BINARY, b"12345") for _ in range(5)))  # in one read
        await until(lambda: metrics.stats().waiting_peak)
        stats = metrics.stats()
        go.set()
        assert (stats.waiting_peak, stats.waiting_bytes_peak) == (4, 20)
        assert stats.paused == {"inbox": 1}
        assert stats.handlers.count == 0
        await until(lambda: metrics.stats().handlers.count == 5)


async def test_round_trips_of_pings_are_observed(until):
    class Pinging(WebSocketView):
        PING_INTERVAL = 0.01

    Pinging.METRICS = metrics = Metrics()
    async with connect(Pinging) as ws:
        await until(lambda: metrics.stats().pings.count)
        stats = metrics.stats()
        assert stats.received["pong"] >= 1 and stats.sent["ping"] >= 1
        assert stats.pings.sum >= ws.view.latency > 0


def test_numbers_of_several_threads_add_up():
    metrics = Metrics()

    def count():
        metrics.counters.opened += 2
        metrics.counters.note(("close", "1000", "peer"))
        metrics.counters.note_write_buffer(10)

    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    metrics.counters.opened += 1
    metrics.counters.note(("close", "1000", "peer"))
    metrics.counters.note(("close", "1001", "local"))
    metrics.counters.note_write_buffer(7)
    stats = metrics.stats()
    assert (stats.opened, stats.open, stats.write_buffer_peak) == (3, 0, 10)
    assert stats.closed == {"peer": {"1000": 2}, "local": {"1001": 1}}


def test_numbers_pass_through_json():
    stats = Stats(open=1, closed={"peer": {"1000": 2}}, handlers=HistogramStats((1.0, 2.0), (1, 2, 3), 9.5))
    assert Stats.from_dict(json.loads(json.dumps(stats.as_dict()))) == stats
    assert stats + Stats(handlers=HistogramStats((1.0, 2.0), (0, 0, 1), 2.0)) == Stats(
        open=1, closed={"peer": {"1000": 2}}, handlers=HistogramStats((1.0, 2.0), (1, 2, 4), 11.5)
    )
