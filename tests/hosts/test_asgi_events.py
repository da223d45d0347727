"""Views on a server with ASGI's events alone, in whose place the test acts."""

import asyncio
from contextvars import ContextVar
from typing import ClassVar

import pytest

from duck.contrib.websockets import OpCode

from .applications import Echo


class Events:
    """An ASGI server whose events a test defines."""

    def __init__(self, *events):
        self.scope = {
            "type": "websocket",
            "path": "/é",
            "headers": [(b"host", b"test")],
        }
        self.events = asyncio.Queue()
        self.sent = []
        for event in ({"type": "websocket.connect"}, *events):
            self.events.put_nowait(event)

    async def send(self, event):
        self.sent.append(event)


async def test_the_required_keys_of_scope_and_events_suffice():
    """No raw path, no client, no code of closing; and `text` and `bytes` both in one event."""

    class View(Echo):
        pass

    server = Events(
        {"type": "websocket.receive", "text": "hello", "bytes": None},
        {"type": "websocket.receive", "text": None, "bytes": b"hello"},
        {"type": "websocket.disconnect"},
    )
    await View.as_asgi()(server.scope, server.events.get, server.send)
    assert server.sent == [
        {"type": "websocket.accept", "subprotocol": None, "headers": []},
        {"type": "websocket.send", "text": "hello"},
        {"type": "websocket.send", "bytes": b"hello"},
    ]
    (view,) = View.views
    assert (view.request.path, view.request.client_address) == ("/é", None)
    assert view.close_code == 1005


@pytest.mark.parametrize("version", [None, "2.0", "2.1"])
async def test_a_server_that_ignores_header_fields_of_the_acceptance_is_named_in_the_log(caplog, version):
    """Daphne: its scope names no version of the specification, which means 2.0."""

    class Cookie(Echo):
        async def on_handshake(self, handshake):
            handshake.add_header("Set-Cookie", "seen=yes")

    server = Events()
    server.scope["asgi"] = {"version": "3.0"} if version is None else {"version": "3.0", "spec_version": version}

    async def send(event):
        await server.send(event)
        server.events.put_nowait({"type": "websocket.disconnect"})

    await Cookie.as_asgi()(server.scope, server.events.get, send)
    assert server.sent[0]["headers"] == [(b"set-cookie", b"seen=yes")]
    warned = "the 101 response lacks the header fields Set-Cookie" in caplog.text
    assert warned is (version != "2.1")


async def test_a_server_that_cannot_send_responses_closes():
    server = Events()
    server.scope["headers"].append((b"origin", b"http://example.org"))
    await Echo.as_asgi()(server.scope, server.events.get, server.send)
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize("fails", ["receive", "send"])
async def test_an_error_of_the_server_is_the_loss_of_the_client(fails):
    """Some servers do so when the client is gone."""

    class View(Echo):
        closed: ClassVar[list] = []

        async def on_close(self, frame=None):
            self.closed.append(self.close_code)

    async def raising(*_):
        raise ConnectionError("gone")

    server = Events({"type": "websocket.receive", "text": "hello"})

    async def receive():
        if fails == "receive" and server.events.empty():
            await raising()
        return await server.events.get()

    async def send(event):
        if fails == "send" and event["type"] == "websocket.send":
            await raising()
        await server.send(event)

    await View.as_asgi()(server.scope, receive, send)
    assert View.closed == [1006]


RECEIVE, DISCONNECT = {"type": "websocket.receive"}, {"type": "websocket.disconnect"}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (RECEIVE, "{'type': 'websocket.receive'}"),
        ({**RECEIVE, "bytes": None}, "{'bytes': None, "),
        ({**RECEIVE, "text": b"bytes"}, "{'text': b'bytes', "),
        ({**RECEIVE, "bytes": "text" * 1000}, "{'bytes': 'texttext"),
        ({**RECEIVE, "text": "\ud800"}, r"{'text': '\ud800', "),
        ({**DISCONNECT, "code": "1000"}, "{'code': '1000', "),
        ({**DISCONNECT, "code": 1000, "reason": b"bye"}, "{'code': 1000, 'reason': b'bye', "),
        ({"text": "hello"}, "{'text': 'hello'}"),
        (None, "None"),
    ],
)
async def test_an_invalid_event_ends_the_application_with_an_error(event, words):
    """Of a server, or of middleware."""

    class View(Echo):
        pass

    server = Events(event)
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)) as caught:
        await View.as_asgi()(server.scope, server.events.get, server.send)
    (note,) = caught.value.__notes__
    assert note.startswith(f"The server's event breaks the specification of ASGI: {words}")
    assert len(note) < 300
    assert View.views[0].close_code == 1006


async def test_cancelling_the_application_closes_with_1001(until):
    class View(Echo):
        closed: ClassVar[list] = []

        async def on_close(self, frame=None):
            self.closed.append(self.close_code)

    server = Events()
    task = asyncio.create_task(View.as_asgi()(server.scope, server.events.get, server.send))
    await until(lambda: View.views)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert View.closed == [1001]


class Closed(Echo):
    """Notes how its connection has ended."""

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.closed = []

    async def on_close(self, frame=None):
        self.closed.append((frame, self.close_code))


@pytest.mark.parametrize(("payload", "code", "reason"), [(b"\x0f\xa1as asked", 4001, "as asked"), (b"", 1000, "")])
async def test_on_close_has_no_frame_after_a_close_of_the_view(payload, code, reason):
    """An ASGI application is not notified of the client's answer, and cannot close without a code."""

    class View(Closed):
        async def on_receive(self, message, opcode):
            await self.send(payload, OpCode.CLOSE)

    server = Events({"type": "websocket.receive", "text": "hello"})
    await View.as_asgi()(server.scope, server.events.get, server.send)
    assert server.sent[1:] == [{"type": "websocket.close", "code": code, "reason": reason}]
    assert View.closed == [(None, code if payload else 1005)]


@pytest.mark.parametrize("code", [1001, 1005, 1006])
async def test_a_client_that_goes_during_on_handshake_ends_it(code):
    class View(Closed):
        HANDSHAKE_TIMEOUT = 600

        async def on_handshake(self, handshake):
            await asyncio.Event().wait()

    server = Events({"type": "websocket.disconnect", "code": code})
    await View.as_asgi()(server.scope, server.events.get, server.send)
    assert not server.sent
    assert not View.closed


@pytest.mark.parametrize("rejected", ["close", "message"])
async def test_an_event_that_the_server_rejects_ends_the_application_with_its_error(rejected):
    """Daphne refuses most close codes, and messages over its limit; it closes when the application fails."""

    class View(Closed):
        async def on_receive(self, message, opcode):
            if rejected == "close":
                await self.send_close(1008)
            else:
                await self.send_binary(bytes(10))

    server = Events({"type": "websocket.receive", "text": "hello"})

    async def send(event):
        if event.get("code") == 1008 or event.get("bytes"):
            raise Exception("the server does not take that")
        await server.send(event)

    with pytest.raises(Exception, match="the server does not take that"):
        await View.as_asgi()(server.scope, server.events.get, send)
    assert View.closed == [(None, 1008 if rejected == "close" else 1006)]


@pytest.mark.parametrize("is_reading", [True, False])
async def test_a_lost_client_reported_after_a_failed_send_is_no_error(until, is_reading):
    """The report is noticed although messages wait, and none is read."""

    class View(Closed):
        MAX_CONCURRENT_MESSAGES = MAX_WAITING_MESSAGES = 1

        async def on_receive(self, message, opcode):
            await until(lambda: self.request.transport.is_reading() is is_reading)
            await self.send(message)

    messages = [{"type": "websocket.receive", "text": "hello"}] * (1 if is_reading else 3)
    server = Events(*messages)

    async def send(event):
        if event["type"] == "websocket.send":
            server.events.put_nowait({"type": "websocket.disconnect", "code": 1006})
            raise RuntimeError("closed")
        await server.send(event)

    await View.as_asgi()(server.scope, server.events.get, send)
    assert View.closed == [(None, 1006)]


async def test_an_application_ends_at_the_deadline_though_its_client_reads_nothing():
    class View(Closed):
        CLOSE_TIMEOUT = 0.05

        async def on_receive(self, message, opcode):
            await self.send(b"never read")
            await self.send_close()

    server = Events({"type": "websocket.receive", "text": "hello"})

    async def send(event):
        if event["type"] == "websocket.send":
            await asyncio.Event().wait()
        await server.send(event)

    await View.as_asgi()(server.scope, server.events.get, send)
    assert [event["type"] for event in server.sent] == ["websocket.accept"]
    assert View.closed == [(None, 1000)]


async def test_a_reply_leaves_before_the_next_message_is_received():
    server = Events(*[{"type": "websocket.receive", "text": text} for text in "abc"], {"type": "websocket.disconnect"})
    sent = []

    async def receive():
        sent.append([event["text"] for event in server.sent[1:]])
        return await server.events.get()

    await Echo.as_asgi()(server.scope, receive, server.send)
    assert sent[-4:] == [[], ["a"], ["a", "b"], ["a", "b", "c"]]


async def test_a_handler_has_its_own_task_and_context():
    """Although it begins within the step of the task that has received its message."""
    variable = ContextVar("variable", default="of the server")
    handlers, receiving, seen = [], [], []

    class View(Echo):
        async def on_receive(self, message, opcode):
            handlers.append(asyncio.current_task())
            variable.set("of a handler")
            if message == b"cancelled":
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
            async with asyncio.timeout(60):
                await self.send(message, opcode)

    server = Events(
        {"type": "websocket.receive", "text": "cancelled"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect"},
    )

    async def receive():
        receiving.append(asyncio.current_task())
        seen.append(variable.get())
        return await server.events.get()

    await View.as_asgi()(server.scope, receive, server.send)
    assert [event.get("text") for event in server.sent] == [None, "hello"]
    assert handlers[0] is not handlers[1]
    assert not {*handlers} & {*receiving, asyncio.current_task(), None}
    assert {*seen} == {"of the server"}


async def test_a_flood_of_messages_lets_the_loop_go_on():
    """A server may return every message at once, without a wait."""
    asyncio.get_running_loop().call_later(0.02, (gone := asyncio.Event()).set)
    server = Events()

    async def receive():
        if not server.events.empty():
            return await server.events.get()
        return {"type": "websocket.disconnect"} if gone.is_set() else {"type": "websocket.receive", "text": "again"}

    class View(Closed):
        async def on_receive(self, message, opcode):
            pass

    await View.as_asgi()(server.scope, receive, server.send)
    assert [code for _, code in View.closed] == [1005]
