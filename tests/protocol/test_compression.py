"""Compression on a connection (RFC 7692)."""

import asyncio

import pytest

from duck.contrib.websockets import (
    Compression,
    Frame,
    OpCode,
    PerMessageDeflate,
    WebSocketView,
    broadcast,
)
from duck.contrib.websockets.testing import connect as memory

from ..support.views import Echo
from .large import OFFER, Client, compressed, far_end

pytestmark = pytest.mark.in_memory

JSON = b'{"symbol": "ABCD", "price": 123.45, "side": "buy"}, ' * 20


async def test_a_view_compresses_messages_above_the_threshold(serving, dial):
    async with serving(Echo) as server, dial(server, headers=OFFER) as peer:
        status, headers = await peer.head()
        assert status == 101
        assert headers["sec-websocket-extensions"] == (
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
        )
        view, _ = await server.views.get()
        assert [extension.name for extension in view.extensions] == ["permessage-deflate"]
        client = far_end()
        sizes = []
        for payload in (JSON, b"small", b"", JSON, b"x" * 255, b"x" * 256):
            peer.write(compressed(client, payload))
            first, got = await peer.joined()
            sizes.append(len(got))
            assert first == (0b11000001 if len(payload) >= 256 else 0b10000001)
            assert (client.decompress(got) if first & 0b01000000 else got) == payload
        assert sizes[0] < len(JSON) / 8
        assert sizes[3] < sizes[0] / 2  # it refers to the first


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize(
    "send",
    [
        lambda view, data, opcode: view.send(data, opcode),
        lambda view, data, opcode: view.send(bytearray(data), opcode),
        lambda view, data, opcode: view.send([data[:500], data[500:]], opcode),
        lambda view, data, opcode: view.send_frame(Frame(opcode, payload=data)),
        lambda view, data, opcode: broadcast([view], data, opcode),
    ],
    ids=["bytes", "bytearray", "parts", "frame", "broadcast"],
)
async def test_binary_messages_stay_uncompressed_if_the_settings_say_so(send, size):
    class View(WebSocketView):
        COMPRESSION = Compression(binary=False)

    async with memory(View, keep_frames=True, max_size=None) as ws:
        for text in (b"text" * (size // 4), b"more" * (size // 4)):
            for opcode, payload in (OpCode.TEXT, text), (OpCode.BINARY, bytes(size)):
                before = len(ws.frames)
                send(ws.view, payload, opcode)
                got = await ws.recv()
                assert (got.encode() if opcode == OpCode.TEXT else got) == payload
                assert ws.frames[before].rsv1 is (opcode == OpCode.TEXT)


async def test_a_client_leaves_its_binary_messages_uncompressed():
    async with memory(Echo, compression=Compression(binary=False), keep_frames=True) as ws:
        counted = []
        for send, data in (ws.send, "x" * 1000), (ws.send_binary, bytes(1000)):
            before = ws.view._protocol.connection.deflate._received
            await send(data)
            assert await ws.recv() == data
            counted.append(ws.view._protocol.connection.deflate._received != before)
        assert counted == [True, False]


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        (False, None),
        (True, "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"),
        (
            Compression(server_max_window_bits=9, client_context_takeover=False),
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=12",
        ),
    ],
    ids=["off", "on", "settings"],
)
async def test_the_settings_of_a_view_decide_the_agreement(serving, dial, setting, answer):
    class View(Echo):
        COMPRESSION = setting

    async with serving(View) as server, dial(server, headers=OFFER) as peer:
        _, headers = await peer.head()
        assert headers.get("sec-websocket-extensions") == answer
        peer.send("plain")
        assert await peer.message() == "plain"


async def test_the_next_offer_is_accepted_after_a_declined_one(serving, dial):
    offers = (
        "permessage-deflate; server_max_window_bits=7, x-unknown, permessage-deflate; foo,"
        ' permessage-deflate; server_max_window_bits="10"; client_max_window_bits=15, permessage-deflate'
    )
    async with serving(Echo) as server, dial(server, headers={"Sec-WebSocket-Extensions": offers}) as peer:
        _, headers = await peer.head()
        assert headers["sec-websocket-extensions"] == (
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=12"
        )


async def test_a_malformed_offer_is_refused(serving, dial):
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate; ="}
    async with serving(Echo) as server, dial(server, headers=headers) as peer:
        status, _ = await peer.head()
        assert status == 400


async def test_rsv1_without_an_agreement_is_a_breach(connect):
    async with connect(Echo) as session:
        session.peer.write(compressed(far_end(), JSON))
        code, _ = await session.peer.closing()
        assert code == 1002


@pytest.mark.parametrize(
    ("payload", "opcode", "code"),
    [
        (b"\xff\xff\xff", OpCode.TEXT, 1002),
        (far_end().compress(JSON)[:-3], OpCode.TEXT, 1002),
        (b"", OpCode.BINARY, None),
        (far_end().compress(b"caf\xe9"), OpCode.TEXT, 1007),
        (far_end().compress(bytes(2**20)), OpCode.BINARY, None),
        (far_end().compress(bytes(2**20 + 1)), OpCode.BINARY, 1009),
    ],
    ids=["garbage", "cut off", "nothing", "not UTF-8", "as large as allowed", "too large"],
)
async def test_compressed_messages_are_accepted_or_closed_with_a_code(connect, payload, opcode, code):
    async with connect(Echo, headers=OFFER) as session:
        session.peer.send(Frame(opcode, payload=payload, rsv1=True))
        if code is None:
            assert await session.peer.inflated(far_end()) == far_end().decompress(payload)
        else:
            assert (await session.peer.closing())[0] == code


@pytest.mark.parametrize(
    ("wrong", "code"),
    [(b"\xff\xff\xff", 1002), (far_end().compress(b"caf\xe9"), 1007)],
    ids=["garbage", "not UTF-8"],
)
async def test_messages_before_a_fault_are_answered_and_none_behind(connect, wrong, code):
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        uncompressed, wrong = Frame(OpCode.TEXT, payload=b"small"), Frame(OpCode.TEXT, payload=wrong, rsv1=True)
        client.send(JSON, uncompressed, wrong, JSON, uncompressed)
        assert [await client.message() for _ in range(2)] == [JSON, b"small"]
        assert await client.closing() == code


async def test_fragments_of_a_compressed_message_may_have_control_frames_between(connect):
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        for _ in range(3):
            payload = client.end.compress(JSON)
            client.send(
                Frame(OpCode.TEXT, False, payload[:10], rsv1=True),
                Frame(OpCode.PING, payload=b"between"),
                Frame(OpCode.CONTINUATION, False, b""),
                Frame(OpCode.CONTINUATION, False, payload[10:]),
                Frame(OpCode.CONTINUATION),
                Frame(OpCode.TEXT, payload=b"uncompressed"),
            )
            assert (await client.frame()).opcode == OpCode.PONG
            assert [await client.message() for _ in range(2)] == [JSON, b"uncompressed"]


async def test_messages_of_all_kinds_leave_in_order(connect):
    """Small ones, ones that are compressed, ones over MAX_FRAME_SIZE, and streams."""

    class View(Echo):
        MAX_FRAME_SIZE = 300

        async def on_open(self):
            for number in range(20):
                small, large = f"small {number}", JSON * 3 + b"%d" % number
                stream = [f"stream {number}, ", "x" * 280, "", "y" * 290]
                await asyncio.gather(self.send(small), self.send(JSON[:290]), self.send(stream), self.send(large))

    async with connect(View, headers=OFFER) as session:
        client = far_end()
        for number in range(20):
            assert await session.peer.inflated(client) == b"small %d" % number
            assert await session.peer.inflated(client) == JSON[:290]
            assert await session.peer.inflated(client) == b"stream %d, " % number + b"x" * 280 + b"y" * 290
            assert await session.peer.inflated(client) == JSON * 3 + b"%d" % number


async def test_decompression_without_memory_closes_the_connection(connect, log, monkeypatch):
    def decompress(self, payload, max_size=None):
        raise MemoryError

    async with connect(Echo, headers=OFFER) as session:
        monkeypatch.setattr(PerMessageDeflate, "decompress", decompress)
        session.peer.write(compressed(far_end(), JSON))
        assert await session.peer.closing() == (1011, "internal error")
    assert [type(entry.error) for entry in log()] == [MemoryError]
