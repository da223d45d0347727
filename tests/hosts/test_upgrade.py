"""The opening handshake on a socket: the attributes of a view after it, without the loss of a byte."""

import asyncio
import base64
import hashlib
import socket
import struct
import sys
from email.utils import parsedate_to_datetime

import pytest

from duck.contrib.websockets import ConnectionClosed, Extension, Frame, OpCode, State, WebSocketView
from duck.contrib.websockets.exceptions import HandshakeError
from duck.contrib.websockets.protocol.transports import end_stream
from duck.http.request import HttpRequest
from duck.server import Limits

from ..support.frames import close
from ..support.peers import Peer
from ..support.views import Echo

MIB = 2**20

pytestmark = pytest.mark.usefixtures("impatient")


class Told(Echo):
    """Notes its called hooks."""

    events = ()

    async def on_open(self):
        self.events += ("open",)

    async def on_close(self, frame=None):
        self.events += ("close",)


async def test_the_101_response_has_the_accept_key_and_nothing_else(serving, dial):
    key = base64.b64encode(bytes(range(16))).decode()
    digest = hashlib.sha1((key + WebSocketView.MAGIC_STRING).encode()).digest()
    async with serving(Echo) as server, dial(server, headers={"Sec-WebSocket-Key": key}) as peer:
        status, headers = await peer.head()
        assert status == 101
        assert headers == {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": base64.b64encode(digest).decode(),
        }
        view, _ = await server.views.get()
        assert view.get_sec_accept_key(key) == headers["sec-websocket-accept"]


async def test_a_view_has_its_request_and_results(connect):
    class View(Echo):
        SUBPROTOCOLS = ("v2", "v1")

        async def on_open(self):
            self.state_in_on_open = self.state

        async def on_close(self, frame=None):
            self.state_in_on_close = self.state

    async with connect(View, headers={"Sec-WebSocket-Protocol": "v0, v1, v2"}) as session:
        view = session.view
        assert view.subprotocol == "v1"
        assert view.extensions == ()
        assert view.initiated_upgrade
        assert view.client_websocket_version == view.min_websocket_version == 13
        assert view.state is State.OPEN
        assert view.state_in_on_open is State.OPEN
        assert view.kwargs == {}
        assert view.server is session.server
        assert view.sock.getpeername() == session.peer.writer.get_extra_info("sockname")
        assert view.request.client_address == view.sock.getpeername()[:2]
        assert (view.close_code, view.close_reason) == (None, "")
        assert view.strictly_async() is True
        session.peer.close(4000, "enough")
        await session.ended()
        assert view.state is view.state_in_on_close is State.CLOSED
        assert (view.close_code, view.close_reason) == (4000, "enough")


def test_a_view_has_defaults_before_the_handshake():
    """A framework may make a view in a thread without a loop."""
    view = Echo(HttpRequest(), name="x")
    assert view.state is State.CLOSED
    assert view.kwargs == {"name": "x"}
    assert view.subprotocol is None
    assert not view.initiated_upgrade
    assert view.latency is None
    assert view.close_code is None
    assert view.close_reason == ""
    assert view.client_websocket_version is None


# Refusals

REFUSED = {
    "plain request": ({}, ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"], 426),
    "no key": ({}, ["Sec-WebSocket-Key"], 400),
    "version 8": ({"Sec-WebSocket-Version": "8"}, [], 426),
    "foreign origin": ({"Origin": "http://evil.example"}, [], 403),
    "no connection": ({}, ["Connection"], 400),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("behind", [0, 3 * MIB], ids=["", "with bytes behind"])
async def test_a_refused_peer_gets_to_read_why(serving, dial, case, behind, log, until):
    """Unread bytes with a plain close() would reset the connection, and destroy the answer."""
    headers, without, expected = REFUSED[case]

    class View(Echo):
        async def on_open(self):
            raise AssertionError("opened")

        async def on_close(self, frame=None):
            raise AssertionError("closed")

    async with serving(View) as server:
        async with dial(server, headers=headers, without=without, behind=b"x" * behind) as peer:
            view, end = await server.views.get()
            status, headers_ = await peer.head()
            assert status == expected
            body = await peer.reader.read()
            assert headers_["content-length"] == str(len(body))
            assert parsedate_to_datetime(headers_["date"]) is not None
            assert headers_["connection"] == ("Upgrade, close" if expected == 426 else "close")
            assert end is None
            assert view.state is State.CLOSED
            assert not view.initiated_upgrade
            assert view.request.META["DEBUG_MESSAGE"] == f"WebSocket Error: {body.decode().strip()}"
        await until(view.request.transport.is_closing)
        assert not log()


async def test_a_refused_peer_that_stays_is_disconnected(serving, dial):
    """The connection ends after the server's `linger_timeout`, which holds for pages and views."""
    limits = Limits(linger_timeout=0.05)
    async with serving(Echo, limits=limits) as server, dial(server, without=["Sec-WebSocket-Key"]) as peer:
        status, _ = await peer.head()
        assert status == 400
        await peer.reader.read()
        # The peer keeps its side open and writes until it gets a reset.
        with pytest.raises(ConnectionError):
            while True:
                peer.write(b"x" * 1000)
                await peer.writer.drain()
                await asyncio.sleep(0.01)


async def test_a_refusal_can_be_read_over_tls(serving, dial, tls):
    async with serving(Echo, tls=tls) as server, dial(server, tls=tls, without=["Sec-WebSocket-Key"]) as peer:
        status, _ = await peer.head()
        assert status == 400
        assert b"Sec-WebSocket-Key" in await peer.reader.read()


async def test_a_request_without_a_transport_is_a_mistake_of_the_host():
    view = Echo(HttpRequest(headers=[("Host", "a")]))
    with pytest.raises(RuntimeError, match="no transport"):
        await view.run()


async def test_no_hook_is_called_if_the_peer_has_gone_before_the_answer(serving, dial, log):
    """`run` does not wait for an end that has passed."""

    class View(Told):
        async def initiate_upgrade_to_ws(self):
            self.request.transport.abort()
            await asyncio.sleep(0.01)
            upgraded = await super().initiate_upgrade_to_ws()
            self.events += (upgraded,)
            return upgraded

    async with serving(View) as server, dial(server):
        view, end = await server.views.get()
        await asyncio.wait([end])
        assert end.result() is None
        assert view.events == (False,)
        assert view.state is State.CLOSED
        assert not view.initiated_upgrade
        with pytest.raises(RuntimeError, match="not open yet"):
            view.send("x")
    assert not log()


async def test_no_hook_is_called_if_the_peer_goes_before_the_view_opens(serving, dial, log):
    """The connection has never been open to the view."""

    class View(Told):
        async def initiate_upgrade_to_ws(self):
            upgraded = await super().initiate_upgrade_to_ws()
            self.request.transport.abort()
            await asyncio.sleep(0.01)
            return upgraded

    async with serving(View) as server, dial(server):
        view, end = await server.views.get()
        await asyncio.wait([end])
        assert end.result() is None
        assert view.events == ()
        assert view.state is State.CLOSED
        assert view.close_code == 1006
        with pytest.raises(ConnectionClosed):
            await view.send("x")
    assert not log()


# Origin, over both kinds of transport


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:{}", 101), ("https://localhost:{}", 101), ("http://localhost", 403), ("null", 403)],
)
async def test_pages_of_the_servers_own_host_may_connect(serving, dial, origin, status):
    async with serving(Echo) as server:
        port = server.port
        headers = {"Host": f"localhost:{port}", "Origin": origin.format(port)}
        async with dial(server, headers=headers) as peer:
            assert (await peer.head())[0] == status


@pytest.mark.parametrize(("scheme", "status"), [("https", 101), ("http", 403)])
async def test_over_tls_only_https_pages_may_connect(serving, dial, tls, scheme, status):
    async with serving(Echo, tls=tls) as server:
        headers = {"Host": f"localhost:{server.port}", "Origin": f"{scheme}://localhost:{server.port}"}
        async with dial(server, headers=headers, tls=tls) as peer:
            assert (await peer.head())[0] == status


async def test_allowed_origins_replace_the_servers_own(serving, dial):
    class Open(Echo):
        ALLOWED_ORIGINS = ("https://app.example",)

    async with serving(Open) as server:
        for origin, status in (("https://app.example", 101), (f"http://127.0.0.1:{server.port}", 403)):
            async with dial(server, headers={"Origin": origin}) as peer:
                assert (await peer.head())[0] == status


# Bytes that come with the request


async def test_frames_behind_the_request_are_handled(connect):
    frames = [Peer.serialize(str(i)) for i in range(20)]
    async with connect(Echo, behind=b"".join(frames)) as session:
        for i in range(20):
            assert await session.peer.message() == str(i)
        session.peer.send("later")
        assert await session.peer.message() == "later"


@pytest.mark.parametrize("cut", [1, 2, 5, 6, 7, 100, 70_000])
async def test_a_frame_may_begin_behind_the_request(connect, cut):
    frame = Peer.serialize(bytes(70_000))
    async with connect(Echo, behind=frame[:cut]) as session:
        session.peer.write(frame[cut:])
        assert await session.peer.message() == bytes(70_000)


@pytest.mark.parametrize("by_run", [False, True], ids=["started", "run"])
@pytest.mark.parametrize("size", [1000, 100_000, MIB])
async def test_bytes_behind_the_request_are_not_overtaken_by_later_reads(connect, by_run, size):
    """They exceed one read."""

    class View(Echo):
        MAX_FRAME_SIZE = None

    frames = [Peer.serialize(i.to_bytes(2) + bytes(size)) for i in range(2)]
    frames += [Peer.serialize(str(i)) for i in range(2 * MIB // size)]
    async with connect(View, by_run=by_run, behind=b"".join(frames)) as session:
        for i in range(2):
            assert await session.peer.message() == i.to_bytes(2) + bytes(size)
        for i in range(len(frames) - 2):
            assert await session.peer.message() == str(i)


async def test_a_close_frame_behind_the_request_is_answered(connect):
    async with connect(Echo, behind=close()) as session:
        assert await session.peer.closing() == (1000, "")
        assert await session.peer.rest() == []
        await session.ended()
        assert session.view.close_code == 1000


async def test_messages_behind_the_request_are_answered_before_the_close_frame(connect):
    """Early bytes get the same answers as later ones."""
    behind = b"".join(Frame(opcode, payload=b"\x03\xe8").serialize(mask=True) for opcode in (2, 9, 2, 8))
    async with connect(Echo, behind=behind) as session:
        frames = await session.peer.rest()
        opcodes = [frame.opcode for frame in frames]
        assert sorted(opcodes) == [2, 2, 8, 10]
        assert opcodes[-1] == OpCode.CLOSE


async def test_a_breach_behind_the_request_is_answered_with_its_code(connect):
    async with connect(Echo, behind=Peer.serialize("first") + b"\x83\x80") as session:
        assert await session.peer.message() == "first"
        assert await session.peer.closing() == (1002, "reserved opcode")
        assert await session.peer.rest() == []


async def test_on_open_precedes_messages_sent_with_the_request(connect):
    class View(WebSocketView):
        async def on_open(self):
            await self.send("open")
            await asyncio.sleep(0)
            await self.send("ready")

        async def on_receive(self, message, opcode):
            await self.send(message)

    async with connect(View, behind=Peer.serialize("early")) as session:
        assert [await session.peer.message() for _ in range(3)] == ["open", "ready", "early"]


# Extensions of a view's own


def raises(parameters):
    raise RuntimeError("out of dictionaries")


def leaves(parameters):
    sys.exit("out of dictionaries")


@pytest.mark.parametrize(
    "negotiator",
    [raises, leaves, lambda parameters: "x-own", lambda parameters: True, lambda parameters: Extension("not a token")],
    ids=["raises", "leaves", "str", "bool", "bad name"],
)
async def test_a_negotiator_that_fails_is_answered_in_http_and_logged(serving, dial, log, negotiator):
    class View(Echo):
        EXTENSIONS = {"x-own": negotiator}  # noqa: RUF012

    async with serving(View) as server:
        async with dial(server, headers={"Sec-WebSocket-Extensions": "x-own"}) as peer:
            assert (await peer.head())[0] == 500
            assert await peer.reader.read() == b"internal error\n"
        view, ended = await server.views.get()
        assert ended is None
        assert view.state is State.CLOSED
        async with dial(server) as peer:
            assert (await peer.head())[0] == 101
    (entry,) = log()
    assert entry.level == "ERROR"
    assert "handshake of View" in entry.message
    assert entry.error is not None


async def test_a_negotiator_may_refuse_the_handshake(serving, dial, log):
    def refuse(parameters):
        raise HandshakeError(400, "x-own needs a version")

    class View(Echo):
        EXTENSIONS = {"x-own": refuse}  # noqa: RUF012

    async with serving(View) as server, dial(server, headers={"Sec-WebSocket-Extensions": "x-own"}) as peer:
        assert (await peer.head())[0] == 400
    assert log() == []


# HEAD


async def test_a_head_request_is_refused_without_a_body(serving):
    async with serving(Echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ")
        assert (b"Content-Length: 0" in head, body) == (False, b"")
        writer.close()


async def test_ending_a_stream_that_the_peer_has_reset_aborts_it():
    """The reset arrives between the response and the end of the stream, so asyncio has not noticed it."""

    class Lost(asyncio.Protocol):
        def __init__(self):
            self.lost = asyncio.Event()

        def connection_lost(self, exc):
            self.lost.set()

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as peer:
        peer.connect(listener.getsockname())
        accepted, _ = listener.accept()
        server, protocol = await asyncio.get_running_loop().connect_accepted_socket(Lost, accepted)
        server.write(b"answer")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        end_stream(server)
        await protocol.lost.wait()
