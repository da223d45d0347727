"""Views behind middleware that copies or changes the scope and changes events, on every kind of server."""

import asyncio
import copy

import pytest

from duck.contrib.websockets import WebSocketView
from duck.http.response import HttpResponse

from ..support.servers import OURS
from ..support.views import Listed

pytest.importorskip("uvicorn")


class View(Listed):
    """The application inside the middleware."""


def sending(change):
    """Middleware that changes each event that is sent by `change`."""

    def middleware(app):
        async def changed(scope, receive, send):
            async def send_changed(event):
                await send(change(event))

            await app(scope, receive, send_changed)

        return changed

    return middleware


def changing(change):
    """Middleware that hands a deep copy of the scope on, changed by `change`."""

    def middleware(app):
        async def changed(scope, receive, send):
            scope = copy.deepcopy(scope)
            change(scope)
            await app(scope, receive, send)

        return changed

    return middleware


def slow(app, asked, answered):
    """Middleware that sends nothing before `answered` is set, and sets `asked` when there is something to send."""

    async def slowed(scope, receive, send):
        async def send_slowly(event):
            asked.set()
            await answered.wait()
            await send(event)
            await asyncio.sleep(0)

        await app(scope, receive, send_slowly)

    return slowed


async def echoed(peer):
    peer.send("hello")
    assert await peer.message() == "hello"
    peer.close()
    await peer.closing()


async def test_changes_of_middleware_in_a_copy_of_the_scope_reach_the_view(serving_asgi, dial, ws):
    class Behind(View):
        pass

    def change(scope):
        scope["client"] = ("192.0.2.9", 4711)
        scope["scheme"] = "wss"
        scope["path"] = "/inner/é"
        scope["query_string"] = b"b=2"
        scope["headers"] = [(b"X-Added", b"yes"), *(field for field in scope["headers"] if field[0] != b"x-name")]
        scope["user"] = "ducky"

    app = changing(change)(Behind.as_asgi())
    async with (
        serving_asgi(app, ws=ws) as server,
        dial(server, target="/outer?a=1", headers={"X-Name": "value"}) as peer,
    ):
        assert (await peer.head())[0] == 101
        await echoed(peer)
    (view,) = Behind.views
    request = view.request
    assert request.client_address == ("192.0.2.9", 4711)
    assert request.secure
    assert (request.path, request.query) == ("/inner/é", {"b": ["2"]})
    assert (request.get_header("x-added"), request.get_header("x-name")) == ("yes", None)
    assert view.scope is request.scope
    assert view.scope["user"] == "ducky"
    assert view.scope["state"] == {"from": "lifespan"}


@pytest.mark.parametrize("accepts", [True, False])
async def test_middleware_may_name_the_client_in_a_list(serving_asgi, dial, caplog, accepts):
    """The specification has a list; uvicorn's own log takes a tuple."""
    caplog.set_level("INFO", "uvicorn.error")

    async def app(scope, receive, send):
        scope["client"] = ["192.0.2.9", 4711]
        await receive()
        await send({"type": "websocket.accept" if accepts else "websocket.close"})

    async with serving_asgi(app) as server, dial(server, target="/chat") as peer:
        assert (await peer.head())[0] == (101 if accepts else 403)
    assert f'192.0.2.9:4711 - "WebSocket /chat" {"[accepted]" if accepts else "403"}' in caplog.messages


async def test_middleware_may_replace_the_header_fields_in_place(serving_asgi, dial, ws):
    class Behind(View):
        pass

    async def app(scope, receive, send):
        scope["headers"] = [(b"host", b"inner")]
        await Behind.as_asgi()(scope, receive, send)

    async with serving_asgi(app, ws=ws) as server, dial(server) as peer:
        assert (await peer.head())[0] == 101
        await echoed(peer)
    assert Behind.views[0].request.get_header("host") == "inner"


async def test_a_stopping_server_lets_a_refused_client_read_why(serving_asgi, dial):
    headers = {"Origin": "http://example.org"}
    async with serving_asgi(View.as_asgi()) as server, dial(server, headers=headers) as peer:
        assert (await peer.head())[0] == 403
        (connection,) = server.state.connections
        connection.shutdown()
        assert not connection.transport.is_closing()
        assert await peer.reader.read() == b"connections from this origin are not allowed\n"


async def test_a_stopping_server_drops_a_handshake_between_event_and_response(serving_asgi, dial):
    """Middleware may run on after it has passed the event on."""
    passed, going_on = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        async def send_slowly(event):
            await send(event)
            passed.set()
            await going_on.wait()

        await View.as_asgi()(scope, receive, send_slowly)

    async with serving_asgi(app) as server, dial(server) as peer:
        await passed.wait()
        stopping = asyncio.create_task(server.shut_down())
        assert await peer.rest() == []
        going_on.set()
        await stopping


async def test_there_is_no_scope_on_the_embedded_server(connect):
    async with connect(View) as session:
        assert session.view.scope is None
        assert session.view.request.scope is None


async def test_headers_that_middleware_adds_to_the_response_are_sent(serving_asgi, dial, ws):
    def change(event):
        if event["type"] == "websocket.accept":
            return {**event, "headers": [*event["headers"], (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]}
        return event

    async with serving_asgi(sending(change)(View.as_asgi()), ws=ws) as server, dial(server) as peer:
        head = (await peer.reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 101")
        assert b"\r\nset-cookie: a=1\r\n" in head
        assert b"\r\nset-cookie: b=2\r\n" in head
        await echoed(peer)


async def test_headers_that_middleware_adds_to_a_refusal_are_sent(serving_asgi, dial, ws):
    def change(event):
        if event["type"] == "websocket.http.response.start":
            return {**event, "headers": [*event["headers"], (b"x-reason", b"origin")]}
        return event

    app = sending(change)(View.as_asgi())
    async with serving_asgi(app, ws=ws) as server, dial(server, headers={"Origin": "http://example.org"}) as peer:
        status, headers = await peer.head()
        assert (status, headers["x-reason"]) == (403, "origin")
        body = await peer.reader.readexactly(int(headers["content-length"]))
        assert body == b"connections from this origin are not allowed\n"
        assert await peer.reader.read() == b""


async def test_middleware_may_close_instead_of_accepting(serving_asgi, dial, log):
    class Refused(View):
        pass

    def change(event):
        return {"type": "websocket.close"} if event["type"] == "websocket.accept" else event

    async with serving_asgi(sending(change)(Refused.as_asgi())) as server, dial(server) as peer:
        assert (await peer.head())[0] == 403
    assert Refused.views == []
    assert log() == []


async def test_a_client_may_leave_during_slow_middleware(serving_asgi, dial, log, until):
    class Late(View):
        pass

    asked, answered = asyncio.Event(), asyncio.Event()
    async with serving_asgi(slow(Late.as_asgi(), asked, answered)) as server:
        async with dial(server) as peer:
            await asked.wait()
            peer.leave()
            await until(lambda: not server.state.connections)
        answered.set()
        await until(lambda: not server.state.tasks)
    assert Late.views == []
    assert log() == []


async def test_subprotocols_are_taken_from_the_scope(serving_asgi, dial, ws):
    """Some servers remove the header, or have none."""

    class Spoken(View):
        SUBPROTOCOLS = ("duck",)

    def change(scope):
        assert scope["subprotocols"] == ["other", "duck"]
        scope["headers"] = [field for field in scope["headers"] if field[0] != b"sec-websocket-protocol"]

    app = changing(change)(Spoken.as_asgi())
    headers = {"Sec-WebSocket-Protocol": "other, duck"}
    async with serving_asgi(app, ws=ws) as server, dial(server, headers=headers) as peer:
        _, fields = await peer.head()
        assert fields["sec-websocket-protocol"] == "duck"
        await echoed(peer)
    assert Spoken.views[0].subprotocol == "duck"


# uvicorn's own settings


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({}, 101), ({"Origin": "http://example.org"}, 403), ({"Sec-WebSocket-Version": "12"}, 426)],
)
async def test_headers_of_the_server_are_sent(serving_asgi, dial, headers, expected):
    of_server = {"server": "uvicorn", "date": "today", "x-set": "by an option"}
    async with serving_asgi(View.as_asgi()) as server:
        server.state.default_headers = [(name.encode(), value.encode()) for name, value in of_server.items()]
        async with dial(server, headers=headers) as peer:
            status, fields = await peer.head()
            assert status == expected
            assert fields.items() >= of_server.items()
            if status == 101:
                await echoed(peer)


@pytest.mark.parametrize(("own", "of_server"), [(1000, 2000), (2000, 1000), (None, 1000)])
async def test_the_smaller_of_two_limits_holds(serving_asgi, dial, own, of_server):
    class Limited(View):
        MAX_FRAME_SIZE = own

    async with serving_asgi(Limited.as_asgi(), ws_max_size=of_server) as server, dial(server) as peer:
        await peer.head()
        peer.send(bytes(1000))
        assert await peer.message() == bytes(1000)
        peer.send(bytes(1001))
        assert await peer.closing() == (1009, "message too big")
        peer.close(1009)


@pytest.mark.parametrize(("own", "of_server"), [(0.05, 20), (20, 0.05), (None, 0.05), (0.05, None)])
async def test_the_shorter_of_two_intervals_holds(serving_asgi, dial, own, of_server):
    class Pinging(View):
        PING_INTERVAL = own

    async with serving_asgi(Pinging.as_asgi(), ws_ping_interval=of_server) as server, dial(server) as peer:
        await peer.head()
        assert (await peer.frame()).opcode == 9
        peer.close()
        await peer.closing()


@pytest.mark.parametrize("name", ["MAX_FRAME_SIZE", "PING_INTERVAL", "PONG_TIMEOUT", "COMPRESSION"])
async def test_a_setting_that_is_a_property_decides_alone(serving_asgi, dial, name):
    Computed = type("Computed", (View,), {name: property(lambda self: 500 if name != "COMPRESSION" else True)})
    options = {"ws_max_size": 100, "ws_ping_interval": 100, "ws_ping_timeout": 100, "ws_per_message_deflate": False}
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with serving_asgi(Computed.as_asgi(), **options) as server, dial(server, headers=headers) as peer:
        status, fields = await peer.head()
        assert status == 101
        assert ("sec-websocket-extensions" in fields) is (name == "COMPRESSION")
        peer.send(bytes(500 if name == "MAX_FRAME_SIZE" else 100))
        await peer.frame()
        peer.close()
        await peer.closing()


@pytest.mark.parametrize("compressing", [True, False])
async def test_compression_follows_the_setting_of_the_server(serving_asgi, dial, compressing):
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with (
        serving_asgi(View.as_asgi(), ws_per_message_deflate=compressing) as server,
        dial(server, headers=headers) as peer,
    ):
        _, fields = await peer.head()
        assert ("sec-websocket-extensions" in fields) is compressing
        peer.close()
        await peer.closing()


# A view that answers in its own way


@pytest.mark.parametrize(
    ("result", "status", "body"),
    [
        (HttpResponse("log in first\n", 401, "text/plain"), 401, b"log in first\n"),
        (HttpResponse("", 204), 204, b""),
        (None, 500, b"internal server error\n"),
    ],
)
async def test_a_run_without_a_handshake_is_answered(serving_asgi, dial, ws, log, result, status, body):
    class Silent(WebSocketView):
        async def run(self, *args, **kwargs):
            return result

    async with serving_asgi(Silent.as_asgi(), ws=ws) as server, dial(server) as peer:
        found, headers = await peer.head()
        assert found == status
        if status != 204:
            assert headers["content-length"] == str(len(body))
        elif ws == OURS:
            assert "content-length" not in headers
        assert await peer.reader.read() == body
    words = "Silent.run() sent no response: call super().run(), or return a HttpResponse"
    assert [entry.message.partition(" /': ")[2] for entry in log()] == ([] if result else [words])


async def test_a_view_that_answers_nothing_is_answered_500(serving_asgi, dial, ws):
    class Silent(WebSocketView):
        async def initiate_upgrade_to_ws(self):
            return False

    async with serving_asgi(Silent.as_asgi(), ws=ws) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500


async def test_messages_during_slow_middleware_are_kept(serving_asgi, dial, ws):
    asked, answered = asyncio.Event(), asyncio.Event()
    async with serving_asgi(slow(View.as_asgi(), asked, answered), ws=ws) as server, dial(server) as peer:
        messages = [f"message {number}" for number in range(5000)]  # more than is kept
        await asked.wait()  # because uvicorn drops bytes that arrive together with the request
        peer.send(*messages)
        await asyncio.sleep(0.05)
        answered.set()
        assert (await peer.head())[0] == 101
        assert [await peer.message() for _ in messages] == messages
        peer.close()
        await peer.closing()


@pytest.mark.parametrize("error", [None, ValueError("as the test expects")], ids=["returns", "fails"])
async def test_a_run_that_leaves_the_connection_open_closes_with_1011(serving_asgi, dial, ws, caplog, error):
    class Leaving(WebSocketView):
        async def run(self, *args, **kwargs):
            await self.initiate_upgrade_to_ws()
            if error is not None:
                raise error

    async with serving_asgi(Leaving.as_asgi(), ws=ws) as server, dial(server) as peer:
        assert (await peer.head())[0] == 101
        assert (await peer.closing())[0] == 1011
        peer.close(1011)
    assert ("as the test expects" if error else "Leaving.run() left the connection open") in caplog.text
