"""`on_handshake`: a view decides on the opening handshake, on each kind of host."""

import asyncio
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import pytest

from duck.contrib.websockets import HandshakeError
from duck.contrib.websockets.hosts.asgi import Application
from duck.contrib.websockets.logging import logger
from duck.server import Limits, serve

from ..support import servers
from ..support.views import Noting

USER = ContextVar("user", default="nobody")

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(params=["embedded", "uvicorn", "bridged"])
def hosting(request, serving, monkeypatch):
    """Serves a view class on one of the hosts: `async with hosting(View) as server`."""
    if request.param == "embedded":
        return serving
    pytest.importorskip("uvicorn")
    ws = servers.OURS if request.param == "uvicorn" else "websockets-sansio"

    @asynccontextmanager
    async def hosted(view_class):
        async with servers.serving_asgi(view_class.as_asgi(), ws=ws) as server:
            yield server

    return hosted


taking_the_transport = pytest.mark.parametrize("hosting", ["embedded", "uvicorn"], indirect=True)


class Told(Noting):
    """Notes its hooks."""

    COMPRESSION = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        Told.made = self

    async def on_open(self):
        self.events.append("open")
        await self.send(f"{self.user} {self.subprotocol}")

    async def on_receive(self, message, opcode):
        await self.send(message, opcode)


class Undecided(Told):
    """Decides when it is cancelled."""

    async def on_handshake(self, handshake):
        self.events.append("asked")
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("ended")


@pytest.mark.parametrize("chosen", ["v3", None])
async def test_a_view_accepts_and_keeps_its_findings(hosting, dial, chosen):
    class View(Told):
        SUBPROTOCOLS = ("v1", "v2")

        async def on_handshake(self, handshake):
            await asyncio.sleep(0)
            assert handshake.subprotocols == ("v1", "v2", "v3")
            assert handshake.subprotocol == "v1"
            assert handshake.request.path == "/room"
            handshake.subprotocol = chosen
            handshake.add_header("Set-Cookie", "seen=1; HttpOnly")
            handshake.add_header("Set-Cookie", "theme=dark")
            self.user = handshake.request.cookies["user"]
            USER.set(self.user)

        async def on_open(self):
            assert USER.get() == "alice"
            await super().on_open()

    headers = {"Cookie": "user=alice", "Sec-WebSocket-Protocol": "v1, v2, v3"}
    async with hosting(View) as server, dial(server, target="/room", headers=headers) as peer:
        head = (await peer.reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 101 ")
        assert b"\r\nset-cookie: seen=1; httponly\r\nset-cookie: theme=dark\r\n" in head
        assert head.partition(b"\r\nsec-websocket-protocol: ")[2][:2] == (b"v3" if chosen else b"")
        assert await peer.message() == f"alice {chosen}"
        peer.send("hello")
        assert await peer.message() == "hello"


JSON = [("Retry-After", "3"), ("Content-Type", "application/json")]
REFUSALS = {
    "text": (401, "sign in first", {"WWW-Authenticate": "Bearer"}, None),
    "redirect": (302, "", {"Location": "/login"}, None),
    "json": (429, "slowly", JSON, "{}"),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
async def test_a_view_refuses_with_any_response(hosting, dial, log, case, waits):
    expected, message, fields, body = REFUSALS[case]

    class View(Told):
        async def on_handshake(self, handshake):
            if waits:
                await asyncio.sleep(0.01)
            raise HandshakeError(expected, message, fields, body=body)

    async with hosting(View) as server, dial(server) as peer:
        status, headers = await peer.head()
        assert status == expected
        for name, value in dict(fields).items():
            assert headers[name.lower()] == value
        assert case != "text" or headers["content-type"] == "text/plain; charset=utf-8"
        assert (await peer.reader.read()).decode() == (body or (message and f"{message}\n"))
    assert not View.made.events
    assert not log()


def wrong_subprotocol(handshake):
    handshake.subprotocol = "v9"


def header(name, value):
    return lambda handshake: handshake.add_header(name, value)


def wrong_refusal(handshake):
    raise HandshakeError(403, headers={"X": "a\nb"})


def unreadable_refusal(handshake):
    raise HandshakeError(403, "a lone \ud800")


class Unspeakable(HandshakeError):
    def __str__(self):
        raise LookupError("a secret")


def unspeakable_refusal(handshake):
    raise Unspeakable(403)


FAULTS = {
    "a secret": unspeakable_refusal,
    "surrogates not allowed": unreadable_refusal,
    "the client offers no subprotocol, not 'v9'": wrong_subprotocol,
    "control character in Set-Cookie: 'a\\r\\nX-Smuggled: 1'": header("Set-Cookie", "a\r\nX-Smuggled: 1"),
    "the server sets Sec-WebSocket-Accept: leave it out": header("Sec-WebSocket-Accept", "mine"),
    "character beyond Latin-1 in X-Name: '\u0142'": header("X-Name", "\u0142"),
    "control character in X: 'a\\nb'": wrong_refusal,
    "exit": lambda handshake: exec("raise SystemExit('exit')"),
}


@pytest.mark.parametrize("message", FAULTS)
async def test_an_exception_is_logged_and_answered_with_500(hosting, dial, log, message):
    class View(Told):
        async def on_handshake(self, handshake):
            FAULTS[message](handshake)

    async with hosting(View) as server, dial(server) as peer:
        status, _ = await peer.head()
        assert status == 500
        assert await peer.reader.read() == b"internal error\n"
    ((level, text, error),) = log()
    assert (level, text.partition(" /': ")[2]) == ("ERROR", f"error in {View.on_handshake.__qualname__}")
    assert message in str(error) or message in str(error.__context__)


async def test_an_error_behind_the_decision_leaves_no_client_without_an_end(serving, dial, log):
    class SpeaksOnce(HandshakeError):
        said = False

        def __str__(self):
            if self.said:
                raise LookupError("a secret")
            self.said = True
            return "once"

    class View(Told):
        async def on_handshake(self, handshake):
            raise SpeaksOnce(403)

    async with serving(View) as server, dial(server) as peer:
        assert (await peer.reader.read()).startswith(b"HTTP/1.1 500 ")
    ((_, _, error),) = log()
    assert isinstance(error, LookupError)


async def test_a_hook_that_fails_accepts_nobody_though_a_filter_of_the_log_raises(hosting, dial, monkeypatch):
    class View(Told):
        async def on_handshake(self, handshake):
            raise ArithmeticError("no such user")

    def raising(record):
        if record.exc_info is not None and record.exc_info[0] is ArithmeticError:
            raise LookupError("no record")
        return True

    monkeypatch.setattr(logger, "filters", [raising])
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # it is told of the LookupError
    async with hosting(View) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500
    assert View.made.events == []


async def returns_false(self, handshake):
    """False is a refusal in other libraries."""
    return False


def is_no_coroutine_function(self, handshake):
    pass


WRONG_HOOKS = {
    returns_false: "returned False: return None to accept, or raise HandshakeError",
    is_no_coroutine_function: "a hook must be a coroutine function (async def); one returned None",
}


@pytest.mark.parametrize("hook", WRONG_HOOKS)
async def test_a_wrong_hook_accepts_no_client(serving, dial, log, hook):
    class View(Told):
        on_handshake = hook

    async with serving(View) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500
    ((_, _, error),) = log()
    assert WRONG_HOOKS[hook] in str(error)


async def test_a_hook_that_terminates_its_connection_is_answered_503(serving, dial):
    class View(Told):
        async def on_handshake(self, handshake):
            self.terminate()

    async with serving(View) as server, dial(server) as peer:
        assert (await peer.head())[0] == 503
    assert View.made.events == []


async def test_a_hook_that_takes_too_long_is_cancelled(hosting, dial):
    class View(Undecided):
        HANDSHAKE_TIMEOUT = 0.02

    async with hosting(View) as server, dial(server) as peer:
        status, _ = await peer.head()
        assert status == 503
        assert await peer.reader.read() == b"the handshake took too long\n"
    assert View.made.events == ["asked", "ended"]


@taking_the_transport
async def test_an_endless_hook_delays_no_other_client(hosting, dial, log, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.hosts.decision.Decision.CANCEL_TIMEOUT", 0.02)

    class View(Told):
        HANDSHAKE_TIMEOUT = 0.02

        async def on_handshake(self, handshake):
            while not released.is_set():
                with suppress(asyncio.CancelledError):
                    await released.wait()

    released = asyncio.Event()
    async with hosting(View) as server, dial(server) as peer:
        status, _ = await peer.head()
        assert status == 503
        released.set()
    assert "has not ended after its cancellation" in log()[0].message


@pytest.mark.parametrize("leaves", ["shut", "reset"])
async def test_a_hook_is_cancelled_when_the_peer_leaves(hosting, dial, until, log, leaves):
    Told.made = None
    async with hosting(Undecided) as server, dial(server) as peer:
        await until(lambda: Told.made and Told.made.events)
        getattr(peer, leaves)()
        await until(lambda: Told.made.events == ["asked", "ended"])
        assert not Told.made.initiated_upgrade
    assert not log()


@pytest.mark.parametrize("end", ["refusal", "error", "timeout", "left", "left later", "open"])
async def test_run_forever_releases_what_the_hook_has_acquired(hosting, dial, until, log, end):
    class View(Told):
        HANDSHAKE_TIMEOUT = 0.05 if end == "timeout" else 10
        user = "alice"

        async def on_handshake(self, handshake):
            held.append(self)
            await asyncio.sleep(0)
            if end == "refusal":
                raise HandshakeError(409, "taken")
            if end == "error":
                raise ArithmeticError
            if end in ("timeout", "left"):
                await asyncio.Event().wait()
            if end == "left later":
                await until(lambda: has_left)

        async def on_close(self, frame=None):
            self.events.append("close")
            assert held == [self]

        async def run_forever(self):
            try:
                await super().run_forever()
            finally:
                held.remove(self)
                released.append(self)

    held, released, has_left = [], [], False
    async with hosting(View) as server, dial(server) as peer:
        await until(lambda: held or released)
        if end.startswith("left"):
            peer.reset()
            has_left = True
        elif end == "open":
            assert (await peer.head())[0] == 101
            await peer.message()
            assert held == [View.made]
            peer.close()
        else:
            assert (await peer.head())[0] == {"refusal": 409, "error": 500, "timeout": 503}[end]
        await until(lambda: released)
    assert released == [View.made]
    if end != "left later":  # which a host may notice after the 101 response
        assert View.made.events == (["open", "close"] if end == "open" else [])
    assert len(log()) == (end == "error")


@taking_the_transport
async def test_messages_sent_before_the_answer_are_handled_after_it(hosting, dial, until):
    class View(Told):
        user = "early"

        async def on_handshake(self, handshake):
            asked.set()
            await until(lambda: handshake.request.content)

    asked = asyncio.Event()
    async with hosting(View) as server, dial(server) as peer:
        await asked.wait()
        peer.send("there")
        assert (await peer.head())[0] == 101
        assert [await peer.message() for _ in range(2)] == ["early None", "there"]


@taking_the_transport
async def test_data_before_the_answer_is_bounded(hosting, dial, until):
    class View(Told):
        async def on_handshake(self, handshake):
            self.asked = handshake.request
            await released.wait()
            raise HandshakeError(403)

    released = asyncio.Event()
    Told.made = None
    async with hosting(View) as server, dial(server) as peer:
        await until(lambda: View.made and hasattr(View.made, "asked"))
        await peer.flood(bytes(65536))
        assert 65536 <= len(View.made.asked.content) < 65536 + 2 * 262144
        released.set()
        peer.leave()


async def test_a_foreign_origin_is_refused_before_the_view_is_asked(hosting, dial):
    class View(Told):
        async def on_handshake(self, handshake):
            self.events.append("asked")

    async with hosting(View) as server, dial(server, headers={"Origin": "http://evil.example"}) as peer:
        assert (await peer.head())[0] == 403
    assert not View.made.events


@pytest.mark.parametrize("close", ["send_close", "safe_close"])
async def test_on_handshake_cannot_close_the_connection(dial, log, close):
    class View(Told):
        async def on_handshake(self, handshake):
            await getattr(self, close)()

    async with serve(View, port=0) as server, dial(server) as peer:
        assert (await peer.head())[0] == 500
    assert "refuse the handshake by a HandshakeError" in str(log()[0][2])


async def test_a_refused_client_keeps_its_place_until_it_has_had_time_to_read(dial):
    class View(Told):
        async def on_handshake(self, handshake):
            await asyncio.sleep(0)
            raise HandshakeError(403, "no")

    limits = Limits(connections=1, linger_timeout=0.1)
    async with serve(View, port=0, limits=limits) as server:
        async with dial(server) as one, dial(server) as another:
            assert {(await one.head())[0], (await another.head())[0]} == {403, 503}
        statuses = []
        while 403 not in statuses:
            async with dial(server) as peer:
                statuses.append((await peer.head())[0])
    assert not server.connections


async def test_a_server_without_the_denial_extension_answers_403():
    class View(Told):
        async def on_handshake(self, handshake):
            raise HandshakeError(429, "slowly", {"Retry-After": "3"})

    sent = []
    events = asyncio.Queue()
    events.put_nowait({"type": "websocket.connect"})

    async def send(event):
        sent.append(event)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"test")]}
    await Application(View, {})(scope, events.get, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
