"""ASGI applications on our protocol for uvicorn: the scope, the events both ways, and every end."""

import asyncio
import logging

import pytest

from duck.contrib.websockets import CloseCode, Frame, OpCode, WebSocketView

pytest.importorskip("uvicorn")


class App:
    """Accepts and echoes, and notes the scope, the events received, and how it ended."""

    def __init__(self, **accept):
        self.accept = {"type": "websocket.accept", **accept}
        self.scope = None
        self.events = []

    async def __call__(self, scope, receive, send):
        self.scope = scope
        self.events.append(await receive())
        await send(self.accept)
        while True:
            event = await receive()
            self.events.append(event)
            if event["type"] == "websocket.disconnect":
                return
            await send({**event, "type": "websocket.send"})


def answering(*events, outcome=None):
    """An application that sends events, and notes in `outcome` what it receives then."""

    async def app(scope, receive, send):
        await receive()
        for event in events:
            await send(event)
        if outcome is not None:
            outcome.append(await receive())

    return app


ACCEPT = {"type": "websocket.accept"}


async def settled(sent):
    """Until nothing is added any more, for a while."""
    before = -1
    while before != len(sent):
        before = len(sent)
        await asyncio.sleep(0.1)


@pytest.fixture(params=["httptools", "h11"])
def http(request):
    """Each of uvicorn's parsers of HTTP, which hand a request over in their own ways."""
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(params=["tcp", "tls"])
def either_tls(request):
    return request.getfixturevalue("tls") if request.param == "tls" else None


# Messages


def test_messages_are_received_as_they_are(run, serving_asgi, dial, http, either_tls):
    app = App()
    messages = ["text", b"binary", "", b"", "mixed: é ✓ 🦆\0", bytes(range(256)), "🦆" * 20_000]

    async def scenario():
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

    run(scenario())
    connect, *received, disconnect = app.events
    assert connect == {"type": "websocket.connect"}
    keys = {str: "text", bytes: "bytes"}
    assert received == [{"type": "websocket.receive", keys[type(message)]: message} for message in messages]
    assert disconnect == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}


def test_fragments_are_received_as_one_message(run, serving_asgi, dial):
    async def scenario():
        async with serving_asgi(App()) as server, dial(server) as peer:
            await peer.head()
            peer.send(
                Frame(OpCode.TEXT, False, b"frag"), Frame(OpCode.PING), Frame(OpCode.CONTINUATION, payload=b"ments")
            )
            assert (await peer.frame()).opcode == OpCode.PONG
            assert await peer.message() == "fragments"

    run(scenario())


def test_a_message_of_some_mib_leaves_in_one_frame(run, serving_asgi, dial):
    message = bytes(range(256)) * 12_000

    async def scenario():
        async with serving_asgi(App()) as server, dial(server, read_limit=2**23) as peer:
            await peer.head()
            peer.send(message)
            assert (await peer.message() == message) is True

    run(scenario())


def test_what_a_client_sends_before_it_is_accepted_is_not_lost(run, serving_asgi, dial, until):
    accepted = asyncio.Event()

    async def slow(scope, receive, send):
        await accepted.wait()
        await App()(scope, receive, send)

    async def scenario():
        async with serving_asgi(slow) as server, dial(server) as peer:
            await until(lambda: server.state.tasks)
            messages = [f"message {i}" for i in range(5000)]  # more than is kept: the rest waits in the socket
            peer.send(*messages)
            await asyncio.sleep(0.05)
            accepted.set()
            assert (await peer.head())[0] == 101
            assert [await peer.message() for _ in messages] == messages

    run(scenario())


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
def test_what_cannot_be_sent(run, serving_asgi, dial, event, error):
    """The connection stays as it is."""
    done = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        with pytest.raises(error):
            await send(event)
        await send({"type": "websocket.send", "text": "still here", "bytes": None})
        done.append(True)

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            assert await peer.message() == "still here"
            assert await peer.closing() == (1000, "")

    run(scenario())
    assert done


# The request and its answer


@pytest.mark.parametrize("as_view", [False, True], ids=["application", "view"])
def test_a_client_that_stays_behind_its_close_frame(run, serving_asgi, dial, tls, as_view):
    """TLS would wait for its end, but all has been said."""

    class View(WebSocketView):
        CLOSE_TIMEOUT = 30

    async def scenario():
        application = View.as_asgi() if as_view else App()
        async with serving_asgi(application, tls=tls) as server, dial(server, tls=tls) as peer:
            assert (await peer.head())[0] == 101
            peer.writer.transport.pause_reading()
            peer.close(4001)
            async with asyncio.timeout(5):
                while server.state.connections or server.state.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)

    run(scenario())


def test_the_scope(run, serving_asgi, dial, http, either_tls):
    app = App()
    headers = {"Sec-WebSocket-Protocol": "one, two", "X-Name": "caf\xe9"}

    async def scenario():
        async with (
            serving_asgi(app, http=http, tls=either_tls, root_path="/root") as server,
            dial(server, target="/a%20path/%2F?q=%20", headers=headers, tls=either_tls) as peer,
        ):
            await peer.head()
            assert app.scope["server"] == ("127.0.0.1", server.port)

    run(scenario())
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


def test_headers_of_a_proxy(run, serving_asgi, dial, caplog):
    caplog.set_level("INFO", "uvicorn.error")
    app = App()
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}

    async def scenario():
        async with serving_asgi(app) as server, dial(server, target="/chat?x=1", headers=headers) as peer:
            await peer.head()

    run(scenario())
    assert app.scope["client"] == ("192.0.2.7", 0)
    assert app.scope["scheme"] == "wss"
    assert '192.0.2.7:0 - "WebSocket /chat?x=1" [accepted]' in caplog.messages


def test_the_application_accepts_with_a_subprotocol_and_headers(run, serving_asgi, dial):
    app = App(subprotocol="two", headers=[(b"X-Name", b"value"), (b"set-cookie", b"a=b")])

    async def scenario():
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

    run(scenario())


@pytest.mark.parametrize("header", [(b"x", b"a\r\nb: c"), (b"x y", b"value"), (b"", b"value"), (b"x", b"\0")])
def test_a_header_that_would_break_out_of_its_line(run, serving_asgi, dial, caplog, header):
    async def scenario():
        async with serving_asgi(App(headers=[header])) as server, dial(server) as peer:
            assert (await peer.head())[0] == 500

    run(scenario())
    assert any(isinstance(record.exc_info[1], ValueError) for record in caplog.records if record.exc_info)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"without": ["Sec-WebSocket-Key"]}, 400),
        ({"headers": {"Sec-WebSocket-Key": "abc"}}, 400),
        ({"headers": {"Sec-WebSocket-Version": "12"}}, 426),
    ],
)
def test_a_request_that_is_no_handshake(run, serving_asgi, dial, http, either_tls, changes, status):
    app = App()

    async def scenario():
        async with (
            serving_asgi(app, http=http, tls=either_tls) as server,
            dial(server, tls=either_tls, **changes) as peer,
        ):
            assert (await peer.head())[0] == status
            await peer.reader.read()

    run(scenario())
    assert app.scope is None


def test_any_origin_may_connect_as_far_as_the_server_is_concerned(run, serving_asgi, dial):
    async def scenario():
        async with serving_asgi(App()) as server, dial(server, headers={"Origin": "http://example.org"}) as peer:
            assert (await peer.head())[0] == 101

    run(scenario())


def test_closing_before_accepting_is_403(run, serving_asgi, dial):
    outcome = []

    async def scenario():
        app = answering({"type": "websocket.close", "code": 4000}, outcome=outcome)
        async with serving_asgi(app) as server, dial(server) as peer:
            status, headers = await peer.head()
            assert (status, headers["content-length"], headers["connection"]) == (403, "0", "close")
            assert await peer.reader.read() == b""

    run(scenario())
    assert outcome == [{"type": "websocket.disconnect", "code": 1006}]


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
def test_the_application_denies_with_a_response(run, serving_asgi, dial, bodies, length):
    async def scenario():
        async with serving_asgi(answering(START, *bodies)) as server, dial(server) as peer:
            status, headers = await peer.head()
            assert (status, headers["x-name"], headers["connection"]) == (404, "value", "close")
            assert headers.get("content-length") == length
            assert await peer.reader.read() == b"".join(body.get("body", b"") for body in bodies)

    run(scenario())


def test_a_response_that_the_client_reads_slowly(run, serving_asgi, dial):
    """`send` waits for it, and then for its end."""
    sent = []

    async def app(scope, receive, send):
        await send(START)
        while len(sent) < 400:
            await send({**BODY, "body": bytes(65536), "more_body": True})
            sent.append(1)
        await send(BODY)

    async def scenario():
        async with serving_asgi(app) as server, dial(server, receive_buffer=4096) as peer:
            await peer.head()
            await settled(sent)
            assert len(sent) < 400
            assert len(await peer.reader.read()) == 400 * 65536

    run(scenario())


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
def test_an_application_that_does_not_answer_gets_500_for_it(run, serving_asgi, dial, events):
    async def scenario():
        async with serving_asgi(answering(*events)) as server, dial(server) as peer:
            assert (await peer.head())[0] == 500
            assert await peer.reader.read() == b"Internal Server Error"

    run(scenario())


def test_a_second_start_of_a_response(run, serving_asgi, dial, caplog):
    async def scenario():
        async with serving_asgi(answering(START, START)) as server, dial(server) as peer:
            assert (await peer.head())[0] == 404

    run(scenario())
    assert "Exception in ASGI application" in caplog.text


# The end


def test_the_application_closes(run, serving_asgi, dial):
    outcome = []
    app = answering(ACCEPT, {"type": "websocket.close", "code": 4001, "reason": "enough"}, outcome=outcome)

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            assert await peer.closing() == (4001, "enough")
            peer.send("dropped")
            peer.close(4001)
            assert await peer.rest() == []

    run(scenario())
    assert outcome == [{"type": "websocket.disconnect", "code": 4001, "reason": "enough"}]


def test_nothing_can_be_sent_after_closing(run, serving_asgi, dial):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await send({"type": "websocket.close"})
        with pytest.raises(RuntimeError, match=r"after sending 'websocket\.close'"):
            await send({"type": "websocket.send", "text": "late"})
        await send({"type": "websocket.close"})

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            assert await peer.closing() == (1000, "")
            peer.close()
            assert await peer.rest() == []

    run(scenario())


@pytest.mark.parametrize(
    ("returned", "code"), [(None, CloseCode.NORMAL_CLOSURE), ("something", CloseCode.INTERNAL_ERROR)]
)
def test_an_application_that_returns(run, serving_asgi, dial, returned, code):
    async def app(scope, receive, send):
        await send(ACCEPT)
        return returned

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            assert (await peer.closing())[0] == code
            peer.close(code)

    run(scenario())


def test_an_application_that_fails(run, serving_asgi, dial, caplog):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await receive()
        await receive()
        raise ValueError("as the test expects")

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            peer.send("now")
            assert await peer.closing() == (1011, "internal error")
            peer.close(1011)

    run(scenario())
    assert "as the test expects" in caplog.text


@pytest.mark.parametrize("leave", ["leave", "reset", "shut"])
def test_a_client_goes_without_a_word(run, serving_asgi, dial, caplog, leave, until):
    """Each later `receive` tells of it again, and `send` raises an OSError, which is no fault of the application."""
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        events.extend([await receive(), await receive()])
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "?"})
        await send({"type": "websocket.send", "text": "?"})

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            getattr(peer, leave)()
            await until(lambda: not server.state.tasks)

    run(scenario())
    assert events == [{"type": "websocket.disconnect", "code": 1006}] * 2
    assert not caplog.records


def test_a_client_goes_before_it_is_answered(run, serving_asgi, dial, until):
    events = []

    async def app(scope, receive, send):
        events.extend([await receive(), await receive()])
        with pytest.raises(OSError, match="closed"):
            await send(ACCEPT)

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await until(lambda: events or server.state.tasks)
            peer.leave()
            await until(lambda: not server.state.tasks)

    run(scenario())
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.disconnect"]


def test_messages_before_the_end_are_still_received(run, serving_asgi, dial, until):
    go_on = asyncio.Event()
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go_on.wait()
        events.extend([await receive() for _ in range(3)])

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            peer.send("one", b"two")
            peer.close(4000)
            assert await peer.closing() == (4000, "")
            go_on.set()
            await until(lambda: not server.state.tasks)

    run(scenario())
    assert [event.get("text", event.get("bytes", event.get("code"))) for event in events] == ["one", b"two", 4000]


def test_the_server_shuts_down(run, serving_asgi, dial):
    app = App()

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            closing = asyncio.create_task(server.shut_down())
            assert await peer.closing() == (1012, "")
            peer.close(1012)
            assert await peer.rest() == []
            await closing

    run(scenario())
    assert app.events[-1]["type"] == "websocket.disconnect"
    assert app.events[-1]["code"] == 1012


def test_the_server_shuts_down_and_the_client_does_not_care(run, serving_asgi, dial):
    async def scenario():
        async with serving_asgi(App()) as server, dial(server) as peer:
            await peer.head()
            await server.shut_down()
            assert await peer.closing() == (1012, "")

    run(scenario())


class Pushing(WebSocketView):
    """Has much to send, and does not wait until it has left."""

    async def on_open(self):
        self.sending = asyncio.create_task(self.send(PUSHED, OpCode.BINARY))

    async def on_close(self, frame=None):
        await asyncio.gather(self.sending, return_exceptions=True)


PUSHED = bytes(2**24)


async def pushing(scope, receive, send):
    await receive()
    await send(ACCEPT)
    sending = asyncio.create_task(send({"type": "websocket.send", "bytes": PUSHED}))
    await receive()
    await asyncio.gather(sending, return_exceptions=True)


async def frame_header(peer):
    first, size = await peer.reader.readexactly(2)
    return first, int.from_bytes(await peer.reader.readexactly(8)) if size == 127 else size


@pytest.mark.parametrize("app", [Pushing.as_asgi(), pushing], ids=["view", "application"])
def test_the_server_shuts_down_while_a_client_is_reading(run, serving_asgi, dial, app):
    """It gets all that was sent, and the close frame, however long that takes."""

    async def scenario():
        async with serving_asgi(app) as server, dial(server, receive_buffer=65536) as peer:
            await peer.head()
            first, size = await frame_header(peer)
            closing = asyncio.create_task(server.shut_down())
            received = 0
            while first & 15 != OpCode.CLOSE:
                for start in range(0, size, 65536):
                    received += len(await peer.reader.readexactly(min(65536, size - start)))
                    if received % 2**20 == 0:
                        await asyncio.sleep(0.1)
                first, size = await frame_header(peer)
            assert received == len(PUSHED)
            assert await peer.reader.readexactly(2) == CloseCode.SERVICE_RESTART.to_bytes(2)
            peer.close(CloseCode.SERVICE_RESTART)
            await closing

    run(scenario())


@pytest.mark.parametrize("app", [Pushing.as_asgi(), pushing], ids=["view", "application"])
def test_the_server_shuts_down_and_a_client_does_not_read(run, serving_asgi, dial, app):
    async def scenario():
        async with serving_asgi(app) as server, dial(server, receive_buffer=65536) as peer:
            await peer.head()
            await server.shut_down()

    run(scenario())


def test_the_server_shuts_down_before_a_request_is_answered(run, serving_asgi, dial, until):
    events = []

    async def app(scope, receive, send):
        events.extend([await receive(), await receive()])

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await until(lambda: server.state.tasks)
            ending = asyncio.create_task(server.shut_down())
            assert (await peer.head())[0] == 500
            peer.leave()
            await ending

    run(scenario())
    assert events[-1] == {"type": "websocket.disconnect", "code": 1006}


def test_the_task_of_an_application_is_cancelled(run, serving_asgi, dial):
    async def scenario():
        async with serving_asgi(App()) as server, dial(server) as peer:
            await peer.head()
            (task,) = server.state.tasks
            task.cancel()
            assert await peer.closing() == (1012, "")
            peer.close(1012)

    run(scenario())


# Limits


def test_a_message_that_is_too_large(run, serving_asgi, dial):
    app = App()

    async def scenario():
        async with serving_asgi(app, ws_max_size=1000) as server, dial(server) as peer:
            await peer.head()
            peer.send(bytes(1000))
            assert await peer.message() == bytes(1000)
            peer.send(bytes(1001))
            assert await peer.closing() == (1009, "message too big")

    run(scenario())
    assert app.events[-1] == {"type": "websocket.disconnect", "code": 1009, "reason": "message too big"}


@pytest.mark.parametrize(
    ("options", "size"),
    [({"ws_max_queue": 4}, 1), ({"ws_max_queue": 1000, "ws_max_size": 2000}, 1000)],
    ids=["messages", "bytes"],
)
def test_an_application_that_does_not_receive_is_not_fed_on(run, serving_asgi, dial, options, size, until):
    go_on = asyncio.Event()
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go_on.wait()
        while (event := await receive())["type"] == "websocket.receive":
            events.append(event["bytes"])

    async def scenario():
        async with serving_asgi(app, **options) as server, dial(server) as peer:
            await peer.head()
            (protocol,) = server.state.connections
            messages = [bytes([i]) * size for i in range(50)]
            for message in messages:
                peer.send(message)
                await asyncio.sleep(0)
            await until(lambda: not protocol.transport.is_reading())
            go_on.set()
            await peer.settled()
            assert events == messages
            assert protocol.transport.is_reading()
            peer.close()
            assert await peer.closing() == (1000, "")

    run(scenario())


def test_a_client_that_does_not_read_makes_send_wait(run, serving_asgi, dial):
    sent = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        for _ in range(400):
            await send({"type": "websocket.send", "bytes": bytes(65536)})
            sent.append(1)

    async def scenario():
        async with serving_asgi(app) as server, dial(server, receive_buffer=4096) as peer:
            await peer.head()
            await settled(sent)
            assert len(sent) < 400
            assert [len(await peer.message()) for _ in range(400)] == [65536] * 400

    run(scenario())


# The heartbeat


def test_a_ping_that_is_not_answered_ends_the_connection(run, serving_asgi, dial):
    app = App()

    async def scenario():
        async with serving_asgi(app, ws_ping_interval=0.05, ws_ping_timeout=0.05) as server, dial(server) as peer:
            await peer.head()
            assert (await peer.frame()).opcode == OpCode.PING
            assert await peer.closing() == (1011, "keepalive ping timeout")
            assert await peer.rest() == []

    run(scenario())
    assert app.events[-1] == {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}


@pytest.mark.parametrize("timeout", [10, None])
def test_pings(run, serving_asgi, dial, timeout):
    """With None for the timeout a ping need not be answered."""

    async def scenario():
        async with serving_asgi(App(), ws_ping_interval=0.05, ws_ping_timeout=timeout) as server, dial(server) as peer:
            await peer.head()
            for _ in range(3):
                ping = await peer.frame()
                assert ping.opcode == OpCode.PING
                if timeout is not None:
                    peer.send(Frame(OpCode.PONG, payload=ping.payload))

    run(scenario())


# The application's task


def test_the_application_runs_in_its_task_and_its_context(run, serving_asgi, dial):
    from contextvars import ContextVar

    variable = ContextVar("variable", default=None)
    seen = []

    async def app(scope, receive, send):
        variable.set("set")
        task = asyncio.current_task()
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            event = await receive()
            seen.append((variable.get(), asyncio.current_task() is task, event["text"]))
            await send({"type": "websocket.send", "text": "next"})
        await receive()

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            for i in range(3):
                peer.send(str(i))
                assert await peer.message() == "next"

    run(scenario())
    assert seen == [("set", True, str(i)) for i in range(3)]
    assert variable.get() is None


def test_receive_may_be_given_up_and_called_again(run, serving_asgi, dial):
    """As `asyncio.wait_for` and the groups of other libraries do; no message is lost."""
    received = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
        task = asyncio.create_task(receive())
        await asyncio.sleep(0)
        task.cancel("the words of who cancels")
        with pytest.raises(asyncio.CancelledError, match="the words of who cancels"):
            await task
        await send({"type": "websocket.send", "text": "ready"})
        both = [asyncio.create_task(receive()), asyncio.create_task(receive())]
        received.extend([(await task)["text"] for task in both])

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            assert await peer.message() == "ready"
            peer.send("one", "two")
            assert await peer.closing() == (1000, "")

    run(scenario())
    assert received == ["one", "two"]


def test_everybody_who_waits_learns_of_the_end(run, serving_asgi, dial):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        events.extend(await asyncio.gather(receive(), receive(), receive()))

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            await peer.head()
            peer.send("one")
            peer.close(4000)
            assert await peer.closing() == (4000, "")

    run(scenario())
    assert [event.get("text", event.get("code")) for event in events] == ["one", 4000, 4000]


def test_replies_to_the_messages_of_one_read_leave_together(run, serving_asgi, dial):
    """Messages that come in one piece are answered in one: the frames are not apart on the way."""

    async def scenario():
        async with serving_asgi(App()) as server, dial(server) as peer:
            await peer.head()
            peer.send(*map(str, range(100)))
            data = await peer.reader.read(100_000)
            assert len(data) == 10 * 3 + 90 * 4

    run(scenario())


def test_trace_logging(run, serving_asgi, dial, caplog):
    caplog.set_level(5, "uvicorn.error")
    logging.addLevelName(5, "TRACE")

    async def scenario():
        async with serving_asgi(App()) as server, dial(server) as peer:
            await peer.head()

    run(scenario())
    assert any(message.endswith(" - WebSocket connection made") for message in caplog.messages)
    assert any(message.endswith("WebSocket connection lost") for message in caplog.messages)


@pytest.mark.parametrize("allowed", [True, False])
def test_compression(run, serving_asgi, allowed):
    websockets = pytest.importorskip("websockets")
    messages = ["text " * 1000, b"binary" * 1000, "", b""]

    async def scenario():
        async with (
            serving_asgi(App(), ws_per_message_deflate=allowed) as server,
            websockets.connect(f"ws://127.0.0.1:{server.port}") as client,
        ):
            agreed = [extension.name for extension in client.protocol.extensions]
            assert agreed == (["permessage-deflate"] if allowed else [])
            for message in messages:
                await client.send(message)
                assert await client.recv() == message

    run(scenario())


class Panic(BaseException):
    """As extensions written in Rust raise it: no Exception."""


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, Panic, asyncio.CancelledError])
@pytest.mark.parametrize("accepts", [True, False])
def test_an_application_that_wants_to_end_the_process(run, serving_asgi, dial, caplog, error, accepts):
    async def failing(scope, receive, send):
        await receive()
        if accepts:
            await send(ACCEPT)
        raise error("as the test expects")

    async def scenario():
        async with serving_asgi(failing) as server:
            for _ in range(2):  # and the server lives
                async with dial(server) as peer:
                    if accepts:
                        assert (await peer.head())[0] == 101
                        assert await peer.closing() == (1011, "internal error")
                        peer.close(1011)
                    else:
                        assert (await peer.head())[0] == 500

    run(scenario())
    assert "Exception in ASGI application" in caplog.text
    assert "as the test expects" in caplog.text


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_that_has_no_body(run, serving_asgi, dial, status):
    headers = [(b"etag", b'"1"'), (b"content-length", b"9")]
    app = answering(
        {"type": "websocket.http.response.start", "status": status, "headers": headers},
        {"type": "websocket.http.response.body", "body": b"dropped", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"as well"},
    )

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            found, fields = await peer.head()
            assert (found, fields["etag"]) == (status, '"1"')
            # What a 304 has is the length of the response that it stands for (RFC 9110, section 8.6).
            assert fields.get("content-length") == (None if status == 204 else "9")
            assert await peer.reader.read() == b""

    run(scenario())


def test_a_response_that_has_no_body_is_given_no_length(run, serving_asgi, dial):
    app = answering(
        {"type": "websocket.http.response.start", "status": 304, "headers": []},
        {"type": "websocket.http.response.body", "body": b""},
    )

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            _, fields = await peer.head()
            assert "content-length" not in fields
            assert await peer.reader.read() == b""

    run(scenario())


def test_a_client_that_is_denied_while_it_sends_gets_to_read_why(run, serving_asgi, dial):
    app = answering(
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
        {"type": "websocket.http.response.body", "body": b"who are you?"},
    )

    async def scenario():
        async with serving_asgi(app) as server, dial(server) as peer:
            peer.send(*[bytes(65536)] * 8)
            status, fields = await peer.head()
            assert status == 401
            assert await peer.reader.readexactly(int(fields["content-length"])) == b"who are you?"
            assert await peer.reader.read() == b""

    run(scenario())


def test_a_loop_that_starts_tasks_at_once(run, serving_asgi, dial, until, eager_tasks):
    """uvicorn makes the protocol the transport's own only after it has handed the request over."""

    async def scenario():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(eager_tasks)
        try:
            for app in App(), answering({"type": "websocket.close"}):
                async with serving_asgi(app) as server, dial(server) as peer:
                    status, _ = await peer.head()
                    if isinstance(app, App):
                        assert status == 101
                        peer.send("hello")
                        assert await peer.message() == "hello"
                        peer.close()
                        await peer.closing()
                        await until(lambda app=app: app.events[-1]["type"] == "websocket.disconnect")
                    else:
                        assert status == 403
        finally:
            loop.set_task_factory(None)

    run(scenario())
