"""The client against our own server, on a socket, as users write it."""

import asyncio
import gc
import socket
import ssl
from http.cookies import SimpleCookie
from types import MappingProxyType

import pytest

from duck.contrib.websockets import CloseCode, Compression, ConnectionClosed, Extension, OpCode, WebSocketView
from duck.contrib.websockets.client import (
    ClientOffer,
    HandshakeRefused,
    WebSocketClient,
    connect,
    dialing,
)
from duck.contrib.websockets.testing import connect as connect_in_memory
from duck.server import serve

from ..support.leftovers import left, open_files


class Echo(WebSocketView):
    SUBPROTOCOLS = ("chat", "other")
    ALLOWED_ORIGINS = ("https://example.org",)

    async def on_open(self):
        if self.request.path == "/greeting":
            await self.send("hello")

    async def on_receive(self, message, opcode):
        if message == b"close":
            await self.send_close(4001, "as you like")
        elif message == b"drop":
            self.request.transport.abort()
        elif message == b"headers":
            headers = self.request.headers
            await self.send_json({name: headers.get(name) for name in ("authorization", "cookie", "x-own", "origin")})
        else:
            await self.send(message, opcode)


def url_of(server, path="/", scheme="ws"):
    return f"{scheme}://127.0.0.1:{server.port}{path}"


async def test_every_kind_of_message_goes_both_ways(serving):
    async def _until_closed(ws):
        with pytest.raises(ConnectionClosed) as caught:
            async for message in ws:
                yield message
        assert (caught.value.code, caught.value.reason) == (4001, "as you like")

    async with serving(Echo) as server, connect(url_of(server, "/greeting")) as ws:
        assert await ws.recv() == "hello"
        for message in ("\u00e4", b"\0", "", "x" * 200_000, b"x" * 70_000):
            await ws.send(message, OpCode.TEXT if isinstance(message, str) else OpCode.BINARY)
            assert await ws.recv(timeout=20) == message
        await ws.send(["in ", "parts"])
        assert await ws.recv() == "in parts"
        await ws.send_json({"a": 1})
        assert await ws.recv() == '{"a": 1}'
        await ws.send_json([{"a": 1.5}])
        assert await ws.recv_json(timeout=20) == [{"a": 1.5}]
        await ws.send_binary(b"\xff")
        with pytest.raises(ValueError, match="utf-8"):
            await ws.recv_json()
        for number in range(50):
            await ws.send(str(number))
        await ws.send("close")
        assert [message async for message in _until_closed(ws)] == [str(number) for number in range(50)]
    assert (ws.close_code, ws.close_reason) == (4001, "as you like")
    with pytest.raises(ConnectionClosed):
        await ws.send("late")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 5}, "'timeout' is not an option of a client: use open_timeout"),
        ({"extra_headers": {}}, "use headers"),
        ({"header": {}}, "'header' is not an option of a client: use headers"),
        ({"subprotocol": ["v1"]}, "use subprotocols"),
        ({"max_frame_size": 5}, "use max_size"),
        ({"sslopt": {}}, "use ssl"),
        ({"nonsense": 1}, "see duck.contrib.websockets.client.Options"),
        ({"open_timeout": "5"}, "OPEN_TIMEOUT is a number of seconds, or None for no limit, not '5'"),
        ({"open_timeout": True}, "OPEN_TIMEOUT is a number of seconds, or None for no limit, not True"),
        ({"open_timeout": float("nan")}, "OPEN_TIMEOUT is a number of seconds, or None for no limit, not nan"),
        ({"headers": "X-A: b"}, "headers are a mapping of names to values"),
        ({"headers": 5}, "headers are a mapping of names to values"),
        ({"headers": {"X-A": 1}}, "a header field is a name and a value, both str"),
        ({"cookies": "a=b"}, "cookies are a mapping of names to values"),
        ({"cookies": {"a": "b; c=d"}}, "would be misread"),
        ({"cookies": {"a=b": "c"}}, "would be misread"),
        ({"cookies": {"a": "\u20ac"}}, "percent-encode"),
        ({"origin": "https://a.example", "headers": {"Origin": "x"}}, "leave one out"),
        ({"ssl": "x"}, "ssl is an ssl.SSLContext"),
        ({"sock": 5}, "sock is a connected socket"),
        ({"proxy": 5}, "proxy is a URL"),
        ({"proxy": "http://h:1", "unix": "/x"}, "unix and proxy are different ways"),
        ({"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "ssl is the context of a server"),
        ({"server_hostname": "x"}, "server_hostname is for wss"),
        *(({"server_hostname": name}, "server_hostname is not a name") for name in (".x", "a\0b", "a.b" * 128)),
        ({"user_agent": 5}, "user_agent is a str or None, not 5"),
        ({"extensions": [1]}, "OFFERS is a mapping of names to a ClientOffer"),
        ({"extensions": {"x-name": 1}}, "OFFERS has 1 for 'x-name': give a ClientOffer"),
        ({"max_siz": 1}, "max_siz"),
        ({"max_size": 0}, "MAX_FRAME_SIZE is bytes"),
        ({"compression": "deflate"}, "COMPRESSION is True, False or a Compression"),
        *(({"max_redirects": most}, "max_redirects is a number") for most in (True, "1", -1)),
    ],
)
async def test_unknown_and_wrong_options_are_refused(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        await connect("ws://127.0.0.1:1/", **options)


def test_a_socket_with_tls_is_refused():
    """asyncio refuses it with other words, and uvloop takes what it has decrypted for TLS."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as plain,
        ssl.create_default_context().wrap_socket(plain, server_hostname="x", do_handshake_on_connect=False) as sock,
        pytest.raises(TypeError, match="sock is a socket without TLS"),
    ):
        WebSocketClient("ws://x", sock=sock)


async def test_a_client_whose_base_class_is_not_initialized_says_so():
    class Ticker(WebSocketClient):
        def __init__(self, url):
            self.feed = url

    with pytest.raises(TypeError, match=r"Ticker.__init__ must call super\(\).__init__\(url, \*\*options\)"):
        await Ticker("ws://127.0.0.1:1/").run()


@pytest.mark.parametrize("asked", [False, True])
async def test_an_iteration_raises_where_the_server_has_vanished(asked):
    async with connect_in_memory(Echo, ping_interval=0.02, pong_timeout=0.02, close_timeout=0.02) as ws:
        ws.stop_reading()
        if asked:
            await ws.send_close(CloseCode.GOING_AWAY)
            assert [message async for message in ws] == []
        else:
            with pytest.raises(ConnectionClosed, match="1001 no pong"):
                [message async for message in ws]


async def test_an_iteration_ends_with_a_normal_closure(serving):
    class Counting(WebSocketView):
        async def on_open(self):
            for number in range(3):
                await self.send(str(number))
            await self.send_close()

    async with serving(Counting) as server, connect(url_of(server)) as ws:
        assert [message async for message in ws] == ["0", "1", "2"]
        with pytest.raises(ConnectionClosed, match="1000"):
            await ws.recv()


async def test_a_timeout_and_a_cancellation_lose_no_message(serving):
    async with serving(Echo) as server, connect(url_of(server)) as ws:
        with pytest.raises(TimeoutError, match="no message from ws://127"):
            await ws.recv(timeout=0.01)
        waiting = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await ws.send("a")
        assert await ws.recv(timeout=20) == "a"


async def test_the_end_of_a_block_decides_the_close_code(serving):
    async with serving(Echo) as server:
        async with connect(url_of(server)) as ws:
            pass
        assert ws.close_code == CloseCode.NORMAL_CLOSURE
        with pytest.raises(ZeroDivisionError):
            async with connect(url_of(server)) as ws:
                raise ZeroDivisionError
        assert ws.close_code == CloseCode.INTERNAL_ERROR
        ws = await connect(url_of(server))
        await ws.send("drop")
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.recv()
        await ws.close()
        assert ws.close_code == CloseCode.ABNORMAL_CLOSURE


async def test_the_hooks_of_a_client_are_called_in_order(serving):
    seen = []

    class Client(WebSocketClient):
        PING_INTERVAL = 0.02

        async def on_open(self):
            seen.append(("open", self.subprotocol))
            await self.send("hi")

        async def on_receive(self, message, opcode):
            seen.append((message, opcode))
            while self.latency is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await self.close(4000, "bye")

        async def on_close(self, frame=None):
            seen.append(("close", self.close_code))

    async with serving(Echo) as server:
        client = Client(url_of(server), subprotocols=["other", "unknown"])
        await client.run()
        assert seen == [("open", "other"), (b"hi", OpCode.TEXT), ("close", 4000)]
        assert 0 < client.latency < 5
        with pytest.raises(RuntimeError, match="create another one"):
            await client.open()
        with pytest.raises(AttributeError, match="fixed once the connection is open"):
            client.MAX_FRAME_SIZE = 1


async def test_a_hook_waits_for_the_connection_and_not_for_its_own_end(serving):
    seen = []

    class Client(WebSocketClient):
        CLOSE_TIMEOUT = 1000

        async def on_open(self):
            await self.send("hi")

        async def on_receive(self, message, opcode):
            await self.send("close")
            seen.append(("receive", await self.wait_closed()))

        async def on_close(self, frame=None):
            seen.append(("close", await self.wait_closed()))

    async with serving(Echo) as server:
        await Client(url_of(server)).run()
    assert seen == [("receive", 4001), ("close", 4001)]


async def test_errors_in_hooks_end_a_connection(serving, log):
    class Client(WebSocketClient):
        async def on_open(self):
            raise ZeroDivisionError

    async with serving(Echo) as server:
        client = Client(url_of(server))
        await client.run()
        assert client.close_code == CloseCode.INTERNAL_ERROR
    assert [type(entry.error) for entry in log()] == [ZeroDivisionError]


async def test_a_cancelled_run_closes_with_1001_and_ends_after_on_close(serving):
    opened, closing, end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Client(WebSocketClient):
        async def on_open(self):
            opened.set()

        async def on_close(self, frame=None):
            closing.set()
            await end.wait()

    async with serving(Echo) as server:
        client = Client(url_of(server))
        running = asyncio.create_task(client.run())
        await opened.wait()
        running.cancel()
        await closing.wait()
        assert not running.done()
        end.set()
        await asyncio.wait([running])
        assert running.cancelled()
        assert client.close_code == CloseCode.GOING_AWAY


async def test_the_cookies_of_a_test_client_of_django_are_sent(serving):
    """`client.cookies` is a SimpleCookie: its values are Morsels, with attributes that only a server sends."""
    cookies = SimpleCookie({"session": "3f9a", "name": "a b"})
    cookies["session"]["path"] = "/"
    async with serving(Echo) as server, connect(url_of(server), cookies=cookies) as ws:
        await ws.send("headers")
        assert (await ws.recv_json())["cookie"] == 'session=3f9a; name="a b"'


async def test_options_become_header_fields_of_the_request(serving):
    async with serving(Echo) as server:
        url = f"ws://us%20er:pa%3Ass@127.0.0.1:{server.port}/?a=%20"
        options = {
            "headers": {"X-Own": "1", "Cookie": "c=3"},
            "cookies": {"a": "1", "b": "2"},
            "origin": "https://example.org",
        }
        async with connect(url, **options) as ws:
            assert "pa" not in ws.url and "pa" not in repr(ws)
            await ws.send("headers")
            assert await ws.recv() == (
                '{"authorization": "Basic dXMgZXI6cGE6c3M=", "cookie": "c=3; a=1; b=2", "x-own": "1", '
                '"origin": "https://example.org"}'
            )
        own = {"Authorization": "Bearer x", "Origin": "https://example.org"}  # beside those of the URL
        for headers, authorization in (({}, "Basic dXMgZXI6cGE6c3M="), (own, "Bearer x")):
            async with connect(url, headers=headers, user_agent=None) as ws:
                await ws.send("headers")
                fields = [authorization, None, None, headers.get("Origin")]
                assert list((await ws.recv_json()).values()) == fields
        with pytest.raises(HandshakeRefused, match="403 Forbidden") as caught:
            await connect(url_of(server), origin="https://example.com")
        assert (caught.value.status, caught.value.body) == (403, b"connections from this origin are not allowed\n")
        assert caught.value.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("compression", [True, False, Compression(client_context_takeover=False, level=9)])
async def test_large_and_small_messages_pass_under_each_setting_of_compression(serving, compression):
    async with serving(Echo) as server, connect(url_of(server), compression=compression) as ws:
        assert len(ws.extensions) == (compression is not False)
        for message in ("duck " * 200, "duck " * 200, "x" * 300_000, "duck"):
            await ws.send(message)
            assert await ws.recv() == message


def reverse(parameters):
    return Reversed("x-reversed", parameters)


class Reversed(Extension):
    uses_rsv1 = False

    def encode(self, frame):
        return frame.replace(payload=frame.payload[::-1])

    def decode(self, frame, max_size=None):
        return frame.replace(payload=frame.payload[::-1])


async def test_an_extension_of_a_users_own_is_negotiated_beside_compression(serving):
    class View(WebSocketView):
        EXTENSIONS = MappingProxyType({"x-reversed": reverse})

        async def on_receive(self, message, opcode):
            await self.send(message + b"!")

    offer = ClientOffer([("level", "1")], reverse)
    async with serving(View) as server, connect(url_of(server), extensions={"x-reversed": offer}) as ws:
        assert [extension.name for extension in ws.extensions] == ["permessage-deflate", "x-reversed"]
        for message in ("abc", "duck " * 100):
            await ws.send(message)
            assert await ws.recv() == f"{message}!"


async def test_certificates_are_verified_unless_ssl_is_false(serving, tls):
    async with serving(Echo, tls=tls) as server:
        url = f"wss://localhost:{server.port}/greeting"
        async with connect(url, ssl=tls.client) as ws:
            assert await ws.recv() == "hello"
            await ws.send("x" * 500_000)
            assert len(await ws.recv()) == 500_000
        assert ws.close_code == CloseCode.NORMAL_CLOSURE
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(url)
        async with connect(url, ssl=False) as ws:
            assert await ws.recv() == "hello"
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(url, ssl=tls.client, server_hostname="example.org")
        with pytest.raises(ValueError, match="ssl is for wss"):
            await connect("ws://localhost", ssl=tls.client)


@pytest.mark.parametrize("trusted", [True, False])
def test_the_certificates_of_the_system_are_loaded_once(run, serving, tls, monkeypatch, trusted):
    loaded = []

    def create_default_context():
        loaded.append(tls.client)
        return tls.client if trusted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def scenario():
        async with serving(Echo, tls=tls) as server:
            for _ in range(2):
                async with connect(f"wss://localhost:{server.port}/greeting", ssl=None if trusted else False) as ws:
                    assert await ws.recv() == "hello"

    monkeypatch.setattr(dialing.tls, "create_default_context", create_default_context)
    dialing._default_context.cache_clear()
    try:
        run(scenario())
    finally:
        dialing._default_context.cache_clear()
    assert len(loaded) == 1


async def test_a_unix_socket_or_a_given_socket_may_lead_to_the_server(tmp_path):
    path = str(tmp_path / "s")
    async with serve(Echo, uds=path):
        async with connect("ws://localhost/greeting", unix=path) as ws:
            assert await ws.recv() == "hello"
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        async with connect("ws://localhost/greeting", sock=sock) as ws:
            assert await ws.recv() == "hello"


async def test_the_server_is_slowed_down_while_no_task_receives(serving):
    sent = []

    class Flood(WebSocketView):
        COMPRESSION = False

        async def on_open(self):
            for number in range(400):
                await self.send(bytes(65_536), OpCode.BINARY)
                sent.append(number)

    async with serving(Flood) as server, connect(url_of(server)) as ws:
        while True:
            before = len(sent)
            await asyncio.sleep(0.1)
            if before == len(sent):
                break
        assert len(sent) < 390
        for _ in range(400):
            assert len(await ws.recv()) == 65_536


async def test_a_client_works_on_a_loop_with_eager_tasks(serving, eager_tasks):
    asyncio.get_running_loop().set_task_factory(eager_tasks)
    async with serving(Echo) as server, connect(url_of(server, "/greeting")) as ws:
        assert await ws.recv() == "hello"


def test_wrong_urls_and_settings_are_refused():
    with pytest.raises(ValueError, match="not a WebSocket URL"):
        connect("localhost").__await__().send(None)
    with pytest.raises(TypeError, match="a URL is a str, not None"):
        WebSocketClient(None)
    with pytest.raises(ValueError, match=r"Client\.PING_INTERVAL is seconds"):
        type("Client", (WebSocketClient,), {"PING_INTERVAL": -1})


def test_a_forgotten_await_is_explained():
    with pytest.raises(AttributeError, match="no attribute 'recv': the connection is not open; write async with"):
        connect("ws://localhost").recv()
    with pytest.raises(AttributeError, match=r"no attribute 'receive'$"):
        connect("ws://localhost").receive()


async def test_many_connections_leave_no_objects(serving, until):
    async with serving(Echo) as server:

        async def once():
            async with connect(url_of(server)) as ws:
                await ws.send("a")
                assert await ws.recv() == "a"
            await server.views.get()

        files = open_files()
        await once()
        await until(lambda: open_files() == files)
        gc.collect()
        before = left()
        for _ in range(25):
            await asyncio.gather(*(once() for _ in range(8)))
        await until(lambda: open_files() == files)
        gc.collect()
        assert left() == before
