"""Hostile and odd input that has broken other implementations, on a socket: to the embedded server, and to our protocol
in uvicorn with each of its parsers of HTTP."""

import asyncio
import contextlib
from collections import Counter

import pytest

from duck.contrib.websockets import Frame, OpCode, PerMessageDeflate, WebSocketView

from ..sansio.test_attacks import LONG
from ..support.frames import RSV1, RSV2, RSV3, frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode
KIB, MIB = 2**10, 2**20
COMPRESSED = {"Sec-WebSocket-Extensions": "permessage-deflate"}

pytestmark = pytest.mark.usefixtures("impatient")

EMBEDDED = "embedded"
UVICORN = ("uvicorn-httptools", "uvicorn-h11")


class Host:
    """A server that echoes messages; after `last` it sends some more, and closes.

    Attributes:
        kind: The name of the server.
        handled: Messages that have reached a handler, or the application, by their sizes.
    """

    LAST = b"last"
    MORE = 200
    CLOSE_TIMEOUT = 10

    def __init__(self, kind, serving, serving_asgi):
        self.kind = kind
        self.handled = Counter()
        self._serving = serving
        self._serving_asgi = serving_asgi

    def serve(self, max_size=MIB):
        """A context that gives the server."""
        if self.kind == EMBEDDED:
            return self._serving(self._view(max_size))
        http = self.kind.split("-")[1]
        return self._serving_asgi(self._application, interface="asgi3", ws_max_size=max_size, http=http)

    def _view(self, max_size):
        host = self

        class Echo(WebSocketView):
            MAX_FRAME_SIZE = max_size
            CLOSE_TIMEOUT = host.CLOSE_TIMEOUT

            async def on_receive(self, message, opcode):
                host.handled[len(message)] += 1
                await self.send(message, opcode)
                if message == host.LAST:
                    for _ in range(host.MORE):
                        await self.send_binary(bytes(KIB))
                    await self.send_close(4000, "that was all")

        return Echo

    async def _application(self, scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            message = event.get("bytes") or event.get("text", "").encode()
            self.handled[len(message)] += 1
            await send({**event, "type": "websocket.send"})
            if message == self.LAST:
                for _ in range(self.MORE):
                    await send({"type": "websocket.send", "bytes": bytes(KIB)})
                await send({"type": "websocket.close", "code": 4000, "reason": "that was all"})

    async def unsent(self, server):
        """Bytes that wait in the transport of the only connection."""
        if self.kind == EMBEDDED:
            view, _ = await server.views.get()
            return view.request.transport.get_write_buffer_size()
        (protocol,) = server.state.connections
        return protocol.transport.get_write_buffer_size()


@pytest.fixture
def make_host(serving, serving_asgi):
    def make(kind):
        if kind != EMBEDDED:
            pytest.importorskip("uvicorn")
            pytest.importorskip(kind.split("-")[1])
        return Host(kind, serving, serving_asgi)

    return make


@pytest.fixture(params=[EMBEDDED, UVICORN[0]])
def host(request, make_host):
    """Each host, for messages after the handshake."""
    return make_host(request.param)


@pytest.fixture(params=[EMBEDDED, *UVICORN])
def http_host(request, make_host):
    """Each host with each parser of HTTP."""
    return make_host(request.param)


@contextlib.asynccontextmanager
async def connected(host, dial, max_size=MIB, **options):
    """A server, and a peer that has done its handshake."""
    async with host.serve(max_size) as server, dial(server, **options) as peer:
        assert (await peer.head())[0] == 101
        yield server, peer


async def still_serves(server, dial):
    async with dial(server) as peer:
        assert (await peer.head())[0] == 101
        peer.send("hello")
        assert await peer.message() == "hello"
        peer.close()
        await peer.closing()


def announcing(first, length):
    """The header of a frame whose payload does not come."""
    return bytes([first, 0xFF]) + length.to_bytes(8) + b"mask"


# The request


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x00", "\x7f"])
async def test_control_characters_in_a_header_are_refused(http_host, dial, character):
    """daphne: some separate lines for one parser and not for another."""
    async with http_host.serve() as server:
        async with dial(server, headers={"X-Odd": f"a{character}Origin: b"}) as peer:
            assert (await peer.head())[0] == 400
        await still_serves(server, dial)


@pytest.mark.parametrize("target", ["http://[/", "/\x80"])
async def test_a_target_that_is_no_url_is_refused(http_host, dial, target):
    async with http_host.serve() as server:
        async with dial(server, target=target) as peer:
            assert (await peer.head())[0] == 400
        await still_serves(server, dial)


async def test_ten_thousand_headers_do_not_end_the_server(http_host, dial):
    """ws: they ended the process. uvicorn sets the limit of their number itself."""
    async with http_host.serve() as server:
        async with dial(server, headers={f"X-{i}": "x" for i in range(10_000)}) as peer:
            status = (await peer.head())[0]
            assert status == 431 if http_host.kind == EMBEDDED else status in (101, 400)
        await still_serves(server, dial)


@pytest.mark.parametrize("case", LONG)
async def test_long_headers_take_linear_time(http_host, dial, case):
    """ws, websocket-extensions: an expression took exponential time (ReDoS)."""
    name, value = LONG[case]
    async with http_host.serve() as server:
        async with dial(server, headers={name: value}) as peer:
            assert (await peer.head())[0] in (101, 400, 404, 431)
        await still_serves(server, dial)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("Connection", "keep-alive, Upgrade", True),
        ("Connection", "notupgrade", False),
        ("Upgrade", "notwebsocket", False),
        ("Upgrade", "notupgrade", False),
    ],
)
async def test_tokens_are_compared_whole(http_host, dial, name, value, accepted):
    """aiohttp: a name that contained the right one was taken for it."""
    async with http_host.serve() as server, dial(server, headers={name: value}) as peer:
        status = (await peer.head())[0]
        assert status == 101 if accepted else status in (400, 404, 426)


async def test_bytes_beyond_ascii_in_a_header_are_accepted(http_host, dial):
    """Such bytes are opaque (RFC 9110, section 5.5), and must not look like the end of a line."""
    async with http_host.serve() as server:
        for value in ("city=Łódź", "price=5€", "a\x85Origin: b"):
            encoded = value.encode().decode("latin-1")
            async with dial(server, headers={"Cookie": encoded}) as peer:
                assert (await peer.head())[0] == 101


@pytest.mark.parametrize(
    ("header", "body", "accepted"),
    [
        (("Content-Length", "5"), b"hello", False),
        (("Content-Length", "70000"), b"\x82\x84mask" * 3, False),
        (("Transfer-Encoding", "chunked"), b"5\r\nhello\r\n0\r\n\r\n", False),
        (("Transfer-Encoding", "chunked"), b"0\r\n\r\n", False),
        (("Content-Length", "0"), b"", True),
    ],
)
async def test_an_upgrade_request_with_a_body_is_refused(http_host, dial, header, body, accepted):
    """A server that switches protocols before the body has ended (RFC 9110, section 7.8) reads it as frames."""
    async with http_host.serve() as server:
        async with dial(server, headers=dict([header]), behind=body) as peer:
            assert (await peer.head())[0] == (101 if accepted else 400)
        await still_serves(server, dial)


@pytest.mark.parametrize("size", [10, 3 * MIB])
async def test_bytes_behind_a_refused_request_are_discarded(http_host, dial, size):
    """aiohttp: they were taken for another request, or destroyed the answer on its way."""
    async with http_host.serve() as server:
        async with dial(server, headers={"Sec-WebSocket-Version": "12"}, behind=b"x" * size) as peer:
            status, headers = await peer.head()
            assert (status, headers["sec-websocket-version"], headers["connection"]) == (
                426,
                "13",
                "Upgrade, close",
            )
            assert len(await peer.reader.read()) == int(headers["content-length"])
        await still_serves(server, dial)


# Frames

ENDLESS = frame(CONTINUATION, b"x", fin=False)
BREACHES = {
    "a length over the limit": (announcing(0x82, MIB), 1009),
    "a length that overflows the sum": (frame(BINARY, b"x", fin=False) + announcing(0x80, 2**63 - 1), 1009),
    "a length of 2**63": (announcing(0x82, 2**63), 1002),
    "a length of 2**64 - 1": (announcing(0x82, 2**64 - 1), 1002),
    "an unknown opcode of any length": (b"\x83\xff", 1002),
    "a reserved control opcode": (b"\x8b\x80", 1002),
    "rsv1 where nothing was agreed": (frame(TEXT, b"x", rsv=RSV1), 1002),
    "rsv2": (frame(TEXT, b"x", rsv=RSV2), 1002),
    "rsv3": (frame(TEXT, b"x", rsv=RSV3), 1002),
    "no mask": (b"\x81\x01x", 1002),
    "endless fragments of a byte": (frame(TEXT, b"x", fin=False) + ENDLESS * 20_000, 1009),
    "endless empty fragments": (frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 2000, 1008),
    "close code 5000": (frame(CLOSE, (5000).to_bytes(2)), 1002),
    "close code 1005": (frame(CLOSE, (1005).to_bytes(2)), 1002),
    "text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
}


async def test_a_breach_is_answered_with_its_code_though_more_bytes_follow(host, dial):
    """The sender can read the reason, even if it continues to send; no message of it is handled."""
    async with host.serve(max_size=10_000) as server:

        async def answered(data):
            async with dial(server) as peer:
                assert (await peer.head())[0] == 101
                peer.write(data + bytes(MIB))
                code, _ = await peer.closing()
                assert await peer.rest() == []
                return code

        codes = await asyncio.gather(*(answered(data) for data, _ in BREACHES.values()))
        assert dict(zip(BREACHES, codes, strict=True)) == {case: code for case, (_, code) in BREACHES.items()}
        assert not host.handled
        await still_serves(server, dial)


async def test_a_sender_beyond_the_limit_is_cut_off_in_the_end(host, dial, monkeypatch):
    """The connection ends after the time for the peer to read the reason."""
    monkeypatch.setattr(Host, "CLOSE_TIMEOUT", 0.2)
    monkeypatch.setattr("duck.contrib.websockets.hosts.asgi_session.Accepted.CLOSE_TIMEOUT", 0.2)
    async with connected(host, dial) as (_, peer):
        peer.write(announcing(0x82, 2**40))
        with pytest.raises(ConnectionError):
            while True:
                peer.write(bytes(64 * KIB))
                await peer.writer.drain()
                await asyncio.sleep(0)
        assert not host.handled


async def test_the_first_close_frame_counts_inside_a_fragmented_message_too(host, dial):
    """websockets and picows answered the first with 1002."""
    async with connected(host, dial) as (_, peer):
        peer.send(Frame(TEXT, False, b"a"))
        peer.close(4001)
        peer.close(4002)
        assert (await peer.closing())[0] == 4001
        assert await peer.rest() == []
        assert not host.handled


async def test_the_close_frame_behind_much_is_read(host, dial):
    """uvicorn: the transport was closed right behind it, and the last frames lost, where the peer was still sending."""
    async with connected(host, dial, receive_buffer=4 * KIB, read_limit=4 * KIB) as (_, peer):
        peer.send(host.LAST, *[bytes(16 * KIB)] * 50)
        assert await peer.message() == host.LAST
        sizes = []
        while (answer := await peer.frame()).opcode != CLOSE:
            sizes.append(len(answer.payload))
        assert [size for size in sizes if size != 16 * KIB] == [KIB] * host.MORE
        assert answer.payload == b"\x0f\xa0that was all"
        peer.close(4000)
        assert await peer.rest() == []


@pytest.mark.parametrize(
    "data", [frame(PING, bytes(125)) * 500, frame(BINARY, bytes(16 * KIB)) * 4], ids=["pings", "messages"]
)
async def test_a_flood_by_a_peer_that_does_not_read_is_bounded(host, dial, data):
    """Reading stops once too many answers wait."""
    async with connected(host, dial, receive_buffer=4 * KIB, read_limit=4 * KIB) as (server, peer):
        await peer.flood(data)
        assert await host.unsent(server) < MIB


async def test_a_message_may_come_byte_by_byte(host, dial):
    data = frame(TEXT, b"x" * 300)
    async with connected(host, dial) as (_, peer):
        for i in range(len(data)):
            peer.write(data[i : i + 1])
            await asyncio.sleep(0)
        assert await peer.message() == "x" * 300


@pytest.mark.parametrize("size", [2**23, 2**24])
async def test_large_messages_are_echoed(host, dial, size):
    """aiohttp: a frame of 2**23 bytes and more broke its parser."""
    async with connected(host, dial, max_size=2**24) as (_, peer):
        payload = bytes(range(256)) * (size // 256)
        peer.send(payload, "behind")
        received = []
        while sum(map(len, received)) < size:
            received.append((await peer.but_pings()).payload)
        assert (b"".join(received) == payload) is True
        assert await peer.message() == "behind"


async def test_20000_messages_pass_on_one_connection(host, dial):
    """ws: a count of fragments was never reset."""
    async with connected(host, dial) as (_, peer):
        batch = frame(TEXT, b"x") * 1000
        for _ in range(20):
            peer.write(batch)
            assert await peer.reader.readexactly(3000) == b"\x81\x01x" * 1000
        assert host.handled == {1: 20_000}


# Compressed


@pytest.mark.parametrize("fragments", [1, 50])
async def test_a_bomb_is_refused_by_its_decompressed_size(host, dial, fragments):
    """aiohttp, undici, autobahn: the limit applied to the compressed size, or the truncated message was handled."""
    bomb = PerMessageDeflate("permessage-deflate").compress(bytes(64 * MIB))
    size = -(-len(bomb) // fragments)
    pieces = [bomb[i : i + size] for i in range(0, len(bomb), size)]
    async with connected(host, dial, headers=COMPRESSED) as (server, peer):
        for i, piece in enumerate(pieces):
            peer.write(frame(CONTINUATION if i else BINARY, piece, fin=i == len(pieces) - 1, rsv=0 if i else RSV1))
        assert await peer.closing() == (1009, "message too big")
        assert await peer.rest() == []
        assert not host.handled
        await still_serves(server, dial)


async def test_a_ping_between_compressed_fragments_is_answered_uncompressed(host, dial):
    """aiohttp: the ping made it forget that the message is compressed."""
    compressed = PerMessageDeflate("permessage-deflate").compress(b"quack " * 100, fin=False)
    async with connected(host, dial, headers=COMPRESSED) as (_, peer):
        peer.write(frame(TEXT, compressed, fin=False, rsv=RSV1))
        peer.ping(b"quack " * 20)
        peer.write(frame(CONTINUATION, b"\x00"))
        pong = await peer.frame()
        assert (pong.opcode, pong.payload, pong.rsv1) == (PONG, b"quack " * 20, False)
        answer = await Frame.parse(
            peer.reader.readexactly, mask_required=False, extensions=[PerMessageDeflate("permessage-deflate")]
        )
        assert (answer.opcode, answer.payload) == (TEXT, b"quack " * 100)


@pytest.mark.parametrize("bits", ["0", "7", "16", "015", '""', "9" * 1000])
async def test_an_offer_of_an_invalid_window_is_declined(host, dial, bits):
    """undici: they ended the process."""
    offer = {"Sec-WebSocket-Extensions": f"permessage-deflate; server_max_window_bits={bits}"}
    async with host.serve() as server:
        async with dial(server, headers=offer) as peer:
            status, headers = await peer.head()
            assert status in (101, 400)
            assert "sec-websocket-extensions" not in headers
        await still_serves(server, dial)
