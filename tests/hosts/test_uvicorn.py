"""ASGI applications on our protocol for uvicorn: the scope, the answer to a request, and the events both ways."""

import asyncio

import pytest

from duck.contrib.websockets import Frame, OpCode, WebSocketView

from .applications import ACCEPT, App, Echo, answering, settled

pytest.importorskip("uvicorn")

pytestmark = pytest.mark.usefixtures("impatient")

SET_BY_SERVER = (
    b"Connection",
    b"content-length",
    b"sec-websocket-accept",
    b"Sec-WebSocket-Extensions",
    b"transfer-encoding",
    b"upgrade",
)

# Messages


async def test_messages_are_received_unchanged(serving_asgi, dial, http, either_tls):
    app = App()
    messages = ["text", b"binary", "", b"", "mixed: é ✓ 🦆\0", bytes(range(256)), "🦆" * 20_000]
    async with (
        serving_asgi(app, http=http, tls=either_tls) as server,
        dial(server, tls=either_tls, read_limit=2**20) as peer,
    ):
        await peer.head()
        peer.send(*messages)
        assert [await peer.message() for _ in messages] == messages
        peer.close(4000, "enough")
        assert await peer.closing() == (4000, "")
        assert await peer.rest() == []
    connect, *received, disconnect = app.events
    assert connect == {"type": "websocket.connect"}
    keys = {str: "text", bytes: "bytes"}
    assert received == [{"type": "websocket.receive", keys[type(message)]: message} for message in messages]
    assert disconnect == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}


async def test_fragments_are_received_as_one_message(serving_asgi, dial):
    async with serving_asgi(App()) as server, dial(server) as peer:
        await peer.head()
        peer.send(Frame(OpCode.TEXT, False, b"frag"), Frame(OpCode.PING), Frame(OpCode.CONTINUATION, payload=b"ments"))
        assert (await peer.frame()).opcode == OpCode.PONG
        assert await peer.message() == "fragments"


async def test_a_message_of_some_mib_leaves_in_one_frame(serving_asgi, dial):
    message = bytes(range(256)) * 12_000
    async with serving_asgi(App()) as server, dial(server, read_limit=2**23) as peer:
        await peer.head()
        peer.send(message)
        assert (await peer.message() == message) is True


async def test_messages_before_the_acceptance_are_kept(serving_asgi, dial, until):
    accepted = asyncio.Event()

    async def slow(scope, receive, send):
        await accepted.wait()
        await App()(scope, receive, send)

    async with serving_asgi(slow) as server, dial(server) as peer:
        await until(lambda: server.state.tasks)
        (protocol,) = server.state.connections
        messages = [f"{i} " + "x" * 65_536 for i in range(20)]  # more than is kept: the rest waits in the socket
        peer.send(*messages)
        await until(lambda: not protocol.transport.is_reading())
        accepted.set()
        assert (await peer.head())[0] == 101
        assert [await peer.message() for _ in messages] == messages


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"type": "websocket.send"}, TypeError),
        ({"type": "websocket.send", "text": b"bytes"}, TypeError),
        ({"type": "websocket.send", "bytes": "text"}, TypeError),
        ({"type": "websocket.send", "bytes": [b"parts"]}, TypeError),
        ({"type": "websocket.accept"}, RuntimeError),
        ({"type": "websocket.http.response.start", "status": 404}, RuntimeError),
        ({"type": "websocket.close", "code": 1006}, ValueError),
        ({"type": "websocket.close", "code": 99}, ValueError),
    ],
)
async def test_invalid_events_are_refused(serving_asgi, dial, event, error):
    """The connection stays as it is."""
    done = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        with pytest.raises(error):
            await send(event)
        await send({"type": "websocket.send", "text": "still here", "bytes": None})
        done.append(True)

    async with serving_asgi(app) as server, dial(server) as peer:
        await peer.head()
        assert await peer.message() == "still here"
        assert await peer.closing() == (1000, "")
    assert done


@pytest.mark.parametrize(
    ("event", "error", "advice"),
    [
        ({**ACCEPT, "subprotocol": b"one"}, TypeError, "'subprotocol' that is a str"),
        (
            {**ACCEPT, "subprotocol": "one", "headers": [(b"Sec-WebSocket-Protocol", b"one")]},
            ValueError,
            "leave it out",
        ),
        *(({**ACCEPT, "headers": [(name, b"5")]}, ValueError, "leave it out") for name in SET_BY_SERVER),
        ({**ACCEPT, "headers": [("x-name", "value")]}, TypeError, "header are bytes"),
        ({"type": "websocket.http.response.start"}, TypeError, "'status' that is an int"),
        ({"type": "websocket.http.response.start", "status": "404"}, TypeError, "'status' that is an int"),
        ({"type": "websocket.http.response.start", "status": 199}, RuntimeError, "status code '199'"),
        ({"type": "websocket.http.response.start", "status": 600}, RuntimeError, "status code '600'"),
        ({"type": "websocket.http.response.start", "status": 404, "headers": [("a", b"")]}, TypeError, "are bytes"),
    ],
)
async def test_invalid_answers_are_refused_with_advice(serving_asgi, dial, event, error, advice):
    """The application may still accept."""

    async def app(scope, receive, send):
        await receive()
        with pytest.raises(error, match=advice):
            await send(event)
        await send({**ACCEPT, "headers": iter([(b"sec-websocket-protocol", b"one")])})

    async with serving_asgi(app) as server, dial(server, headers={"Sec-WebSocket-Protocol": "one"}) as peer:
        status, headers = await peer.head()
        assert (status, headers["sec-websocket-protocol"]) == (101, "one")
        assert await peer.closing() == (1000, "")


# The request and its answer


async def test_a_client_that_stays_behind_its_close_frame_is_not_waited_for(serving_asgi, dial, tls):
    """TLS would wait for the peer's end, but the closing handshake is complete."""

    class View(WebSocketView):
        CLOSE_TIMEOUT = 30

    async def closed(application):
        async with serving_asgi(application, tls=tls) as server, dial(server, tls=tls) as peer:
            assert (await peer.head())[0] == 101
            peer.writer.transport.pause_reading()
            peer.close(4001)
            async with asyncio.timeout(9):
                await server.idle()

    await asyncio.gather(closed(App()), closed(View.as_asgi()))


async def test_the_scope_is_that_of_the_specification(serving_asgi, dial, http, either_tls):
    app = App()
    headers = {"Sec-WebSocket-Protocol": "one, two", "X-Name": "caf\xe9"}
    async with (
        serving_asgi(app, http=http, tls=either_tls, root_path="/root") as server,
        dial(server, target="/a%20path/%2F?q=%20", headers=headers, tls=either_tls) as peer,
    ):
        await peer.head()
        assert app.scope["server"] == ("127.0.0.1", server.port)
    scope = app.scope
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == ("wss" if either_tls else "ws")
    assert scope["path"] == "/root/a path//"
    assert scope["raw_path"] == b"/root/a%20path/%2F"
    assert scope["root_path"] == "/root"
    assert scope["query_string"] == b"q=%20"
    assert (b"x-name", b"caf\xe9") in scope["headers"]
    assert scope["subprotocols"] == ["one", "two"]
    assert scope["client"][0] == "127.0.0.1"
    assert scope["state"] == {"from": "lifespan"}
    assert scope["extensions"]["websocket.http.response"] == {}


@pytest.mark.parametrize("offers", ["one,, two", ", one, two", "one, two,"])
async def test_the_subprotocols_of_the_scope_omit_empty_members_of_the_list(serving_asgi, dial, offers):
    app = App()
    async with serving_asgi(app) as server, dial(server, headers={"Sec-WebSocket-Protocol": offers}) as peer:
        await peer.head()
    assert app.scope["subprotocols"] == ["one", "two"]


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("ws://other:81/a%20b?c=d", "/a b", b"c=d", b"other:81"),
        ("ws://other:81?c=d", "/", b"c=d", b"other:81"),
        ("/a?to=ws://other:81/", "/a", b"to=ws://other:81/", b"127.0.0.1"),  # a URL in the query is no absolute target
    ],
)
async def test_the_scope_has_the_path_and_the_host_of_an_absolute_target(
    serving_asgi, dial, http, target, path, query, host
):
    app = App()
    async with serving_asgi(app, http=http) as server, dial(server, target=target) as peer:
        assert (await peer.head())[0] == 101
    assert (app.scope["path"], app.scope["query_string"]) == (path, query)
    assert [value for name, value in app.scope["headers"] if name == b"host"] == [host]


@pytest.mark.parametrize(
    "changes",
    [{"without": ["Host"]}, {"headers": {"host": "b"}}, {"headers": {"Host": "a b"}}, {"target": "ws://user@a/"}],
    ids=["none", "two", "a space", "a user"],
)
async def test_a_request_without_one_well_formed_host_is_refused(serving_asgi, dial, changes):
    app = App()
    async with serving_asgi(app) as server, dial(server, **changes) as peer:
        assert (await peer.head())[0] == 400
    assert app.scope is None


async def test_uvicorn_applies_the_headers_of_a_proxy(serving_asgi, dial, caplog):
    caplog.set_level("INFO", "uvicorn.error")
    app = App()
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    async with serving_asgi(app) as server, dial(server, target="/chat?x=1", headers=headers) as peer:
        await peer.head()
    assert app.scope["client"] == ("192.0.2.7", 0)
    assert app.scope["scheme"] == "wss"
    assert '192.0.2.7:0 - "WebSocket /chat?x=1" [accepted]' in caplog.messages


@pytest.mark.parametrize("app", [App(), Echo.as_asgi()], ids=["events", "view"])
async def test_the_address_of_a_proxy_does_not_break_a_line(serving_asgi, dial, caplog, app):
    caplog.set_level("INFO", "uvicorn.error")
    headers = {"X-Forwarded-For": "a\x85b\x9b31m"}
    async with serving_asgi(app) as server, dial(server, target="/chat", headers=headers) as peer:
        await peer.head()
    assert '- "WebSocket /chat" [accepted]' in caplog.text
    assert all(message.isprintable() for message in caplog.messages)


async def test_the_application_accepts_with_a_subprotocol_and_headers(serving_asgi, dial):
    app = App(subprotocol="two", headers=[(b"X-Name", b"value"), (b"set-cookie", b"a=b")])
    async with (
        serving_asgi(app) as server,
        dial(server, headers={"Sec-WebSocket-Protocol": "one, two"}) as peer,
    ):
        status, headers = await peer.head()
        assert status == 101
        assert headers["sec-websocket-protocol"] == "two"
        assert headers["x-name"] == "value"
        assert headers["set-cookie"] == "a=b"
        assert headers["server"] == "uvicorn"
        peer.send("hello")
        assert await peer.message() == "hello"


@pytest.mark.parametrize("header", [(b"x", b"a\r\nb: c"), (b"x y", b"value"), (b"", b"value"), (b"x", b"\0")])
async def test_a_header_with_a_line_break_is_refused(serving_asgi, dial, caplog, header):
    async with serving_asgi(App(headers=[header])) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500
    assert any(isinstance(record.exc_info[1], ValueError) for record in caplog.records if record.exc_info)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"without": ["Sec-WebSocket-Key"]}, 400),
        ({"headers": {"Sec-WebSocket-Key": "abc"}}, 400),
        ({"headers": {"Sec-WebSocket-Version": "12"}}, 426),
    ],
)
async def test_a_request_that_is_no_handshake_is_refused_before_the_application(
    serving_asgi, dial, http, either_tls, changes, status
):
    app = App()
    async with (
        serving_asgi(app, http=http, tls=either_tls) as server,
        dial(server, tls=either_tls, **changes) as peer,
    ):
        assert (await peer.head())[0] == status
        await peer.reader.read()
    assert app.scope is None


async def test_any_origin_may_connect_as_far_as_the_server_is_concerned(serving_asgi, dial):
    async with serving_asgi(App()) as server, dial(server, headers={"Origin": "http://example.org"}) as peer:
        assert (await peer.head())[0] == 101


async def test_closing_before_accepting_is_403(serving_asgi, dial):
    outcome = []
    app = answering({"type": "websocket.close", "code": 4000}, outcome=outcome)
    async with serving_asgi(app) as server, dial(server) as peer:
        status, headers = await peer.head()
        assert (status, headers["content-length"], headers["connection"]) == (403, "0", "close")
        assert outcome == [{"type": "websocket.disconnect", "code": 1006}]  # before the client ends its side
        assert await peer.reader.read() == b""


START = {"type": "websocket.http.response.start", "status": 404, "headers": [(b"x-name", b"value")]}
BODY = {"type": "websocket.http.response.body"}


@pytest.mark.parametrize(
    ("bodies", "length"),
    [
        ([{**BODY, "body": b"not here"}], "8"),
        ([BODY], "0"),
        ([{**BODY, "body": b"not ", "more_body": True}, {**BODY, "body": b"here"}], None),
        ([], None),
    ],
)
async def test_the_application_denies_with_a_response(serving_asgi, dial, bodies, length):
    async with serving_asgi(answering(START, *bodies)) as server, dial(server) as peer:
        status, headers = await peer.head()
        assert (status, headers["x-name"], headers["connection"]) == (404, "value", "close")
        assert headers.get("content-length") == length
        assert await peer.reader.read() == b"".join(body.get("body", b"") for body in bodies)


@pytest.mark.parametrize(("status", "length", "told"), [(204, b"9", None), (304, b"9", "9"), (304, None, None)])
async def test_a_204_and_a_304_have_no_body(serving_asgi, dial, status, length, told):
    """The length in a 304 is that of the response it stands for (RFC 9110, section 8.6)."""
    headers = [(b"etag", b'"1"'), *([(b"content-length", length)] if length else [])]
    bodies = [{**BODY, "body": b"dropped", "more_body": True}, {**BODY, "body": b"as well"}] if length else [BODY]
    app = answering({**START, "status": status, "headers": headers}, *bodies)
    async with serving_asgi(app) as server, dial(server) as peer:
        found, fields = await peer.head()
        assert (found, fields["etag"], fields.get("content-length")) == (status, '"1"', told)
        assert await peer.reader.read() == b""


async def test_a_client_denied_while_it_sends_can_read_the_reason(serving_asgi, dial):
    app = answering(START, {**BODY, "body": b"who are you?"})
    async with serving_asgi(app) as server, dial(server) as peer:
        peer.send(*[bytes(65536)] * 8)
        status, fields = await peer.head()
        assert (status, fields["content-length"]) == (404, "12")
        assert await peer.reader.read() == b"who are you?"


async def test_send_of_a_response_waits_for_a_slow_client(serving_asgi, dial):
    """`send` waits for it, and then for its end."""
    sent = []

    async def app(scope, receive, send):
        await send(START)
        while len(sent) < 160:
            await send({**BODY, "body": bytes(65536), "more_body": True})
            sent.append(1)
        await send(BODY)

    async with serving_asgi(app) as server, dial(server, receive_buffer=4096) as peer:
        await peer.head()
        await settled(sent)
        assert len(sent) < 160
        assert len(await peer.reader.read()) == 160 * 65536


async def test_an_application_that_gives_up_a_part_of_a_response_learns_of_the_end(serving_asgi, dial, until):
    """And so does the server, which waits for its connections when it stops."""
    waiting, events = asyncio.Event(), []

    async def app(scope, receive, send):
        await receive()
        await send(START)
        while True:
            part = asyncio.ensure_future(send({**BODY, "body": bytes(65536), "more_body": True}))
            await asyncio.sleep(0)
            if not part.done():
                break
        part.cancel()
        await asyncio.wait([part])
        waiting.set()
        events.append(await receive())

    async with serving_asgi(app) as server, dial(server, receive_buffer=4096) as peer:
        await waiting.wait()
        peer.writer.transport.abort()
        await until(lambda: events)
    assert events[0]["type"] == "websocket.disconnect"


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"type": "websocket.send", "text": "too early"}],
        [{**START, "status": 101}],
        [{**START, "status": 700}],
    ],
    ids=["none", "send", "101", "700"],
)
async def test_an_application_that_does_not_answer_gets_500_for_it(serving_asgi, dial, events):
    async with serving_asgi(answering(*events)) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500
        assert await peer.reader.read() == b"Internal Server Error"


async def test_an_exception_is_logged_with_its_traceback_whatever_its_truth_value(serving_asgi, dial, caplog):
    class Falsy(Exception):
        def __len__(self):
            return 0

    async def app(scope, receive, send):
        raise Falsy("a secret")

    async with serving_asgi(app) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500
    assert "a secret" in caplog.text


async def test_a_second_start_of_a_response_is_an_error_of_the_application(serving_asgi, dial, caplog):
    async with serving_asgi(answering(START, START)) as server, dial(server) as peer:
        assert (await peer.head())[0] == 404
    assert "Exception in ASGI application" in caplog.text


@pytest.mark.parametrize("more", [False, True])
async def test_a_body_that_is_no_bytes_leaves_no_client_without_an_end(serving_asgi, dial, caplog, more):
    bodies = [{**BODY, "body": b"begun", "more_body": True}] * more
    start = {**START, "headers": [(b"transfer-encoding", b"chunked")]}
    async with serving_asgi(answering(start, *bodies, {**BODY, "body": "text"})) as server, dial(server) as peer:
        status, headers = await peer.head()
        assert (status, headers.get("transfer-encoding")) == (404, None)  # the body leaves unchunked
        assert await peer.reader.read() == b"begun" * more
    assert "is bytes, not 'text'" in caplog.records[-1].exc_text
