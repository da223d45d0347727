"""`async for ws in connect(...)`: pauses and final errors."""

import asyncio
import gc
import math
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import ConnectionClosed, HandshakeError, WebSocketView
from duck.contrib.websockets.client import (
    HandshakeRefused,
    InvalidHandshake,
    Reconnect,
    WebSocketClient,
    connect,
    is_final,
)
from duck.contrib.websockets.metrics import Metrics
from duck.server import serve

from ..support.processes import free_port
from ..support.waiting import begun

SOON = Reconnect(first=0.001, longest=0.01)


class Counting(WebSocketView):
    codes = iter(())

    async def on_open(self):
        code = next(self.codes)
        await self.send(str(code))
        if code == 1006:
            self.request.transport.abort()
        else:
            await self.send_close(code)


async def test_a_loop_goes_on_until_an_error_is_final(serving):
    Counting.codes = iter((1000, 1001, 1006, 1012, 4000, 1008))
    seen = []
    async with serving(Counting) as server:
        with pytest.raises(ConnectionClosed, match="1008"):
            async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=SOON):
                seen += [message async for message in ws]
    assert [message for message in seen if message != "1006"] == ["1000", "1001", "1012", "4000", "1008"]


class Leaving(WebSocketClient):
    async def on_receive(self, message, opcode):
        if message in (b"4000", b"left"):  # before the server closes
            await self.close(4000 if message == b"4000" else 1000)


class Told(WebSocketView):
    words = iter(())

    async def on_open(self):
        word = next(self.words)
        await self.send(word)
        if word.isdecimal() and word != "4000":
            await self.send_close(int(word))


@pytest.mark.parametrize(("last", "code"), [("left", None), ("1008", 1008)])
async def test_clients_with_hooks_connect_again_until_one_leaves_or_an_error_is_final(serving, last, code):
    metrics = Metrics()
    Told.words = iter(("1000", "1012", "4000", last))
    async with serving(Told) as server:
        running = SOON.run(lambda: Leaving(f"ws://127.0.0.1:{server.port}", metrics=metrics))
        if code is None:
            await running
        else:
            with pytest.raises(ConnectionClosed) as caught:
                await running
            assert caught.value.code == code
    assert metrics.stats().opened == 4


def test_clients_with_hooks_connect_again_after_failures_up_to_the_attempts(caplog):
    caplog.set_level("INFO")
    created, port = [], free_port()

    def create():
        created.append(Leaving(f"ws://a:secret@127.0.0.1:{port}"))
        return created[-1]

    with pytest.raises(OSError):
        asyncio.run(Reconnect(first=0, attempts=2).run(create))
    assert len(created) == 3
    again = [record.getMessage() for record in caplog.records if "connecting again in 0.0 seconds" in record.message]
    assert len(again) == 2 and "secret" not in again[0]


def test_the_reason_of_a_server_is_logged_in_one_line(serving, caplog):
    caplog.set_level("INFO", "duck")

    class Forging(WebSocketView):
        async def on_open(self):
            await self.send_close(1012, "bye\nforged\x1b[31m")

    async def scenario():
        async with serving(Forging) as server:
            url = f"ws://127.0.0.1:{server.port}/"
            with pytest.raises(ConnectionClosed):
                await Reconnect(first=0, attempts=1).run(lambda: WebSocketClient(url))
        return url

    url, words = asyncio.run(scenario()), r"1012 bye\x0aforged\x1b[31m"
    assert f"{url} [WebSocket] [CLOSE] {words}" in caplog.messages
    assert f"{url}: the connection is closed: {words}; connecting again in 0.0 seconds" in caplog.messages


def test_an_error_without_a_text_is_logged_by_the_name_of_its_type(caplog):
    """asyncio and uvloop raise such errors when a server ends the connection within the TLS handshake."""
    caplog.set_level("INFO", "duck")

    def create():
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(Reconnect(first=0, attempts=1).run(create))
    assert "no client: ConnectionResetError; connecting again in 0.0 seconds" in caplog.messages


async def test_a_token_is_fetched_for_each_connection_and_a_failure_is_an_attempt(serving, caplog):
    caplog.set_level("INFO")
    tokens = iter(("a", OSError("the tokens are away"), "b", ValueError("no more tokens")))
    seen = []

    class Telling(WebSocketView):
        async def on_open(self):
            seen.append(self.request.headers["x-token"])
            await self.send_close(1012)

    async with serving(Telling) as server:

        async def create():
            await asyncio.sleep(0)
            if isinstance(token := next(tokens), Exception):
                raise token
            return WebSocketClient(f"ws://127.0.0.1:{server.port}", headers={"X-Token": token})

        with pytest.raises(ValueError, match="no more tokens"):
            await SOON.run(create)
    assert seen == ["a", "b"]
    assert any("no client: the tokens are away; connecting again" in line for line in caplog.messages)


async def test_every_connection_sends_the_header_fields(serving):
    class Telling(WebSocketView):
        async def on_open(self):
            await self.send(self.request.headers.get("x-name", "none"))
            await self.send_close(1012)

    seen = []
    headers = (pair for pair in [("X-Name", "a")])  # which can be gone through once
    async with serving(Telling) as server:
        with pytest.raises(ConnectionClosed, match="1012"):
            policy = Reconnect(first=0, attempts=1)
            async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=policy, headers=headers):
                seen += [message async for message in ws]
    assert seen == ["a", "a"]  # one attempt again, after the first


class Numbered(WebSocketView):
    async def on_handshake(self, handshake):
        token = handshake.request.headers["authorization"]
        if token == "token 2":  # the client must not use it again
            raise HandshakeError(503, token)
        self.answer = f"{handshake.request.target} {token}"

    async def on_open(self):
        await self.send(self.answer)
        await self.send_close(1012)


def returning(kind, makes):
    """A function, or a coroutine function, whose results are those of another."""
    if kind == "function":
        return makes

    async def make():
        await asyncio.sleep(0)
        return makes()

    return make


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
async def test_url_and_header_fields_of_functions_are_made_for_each_attempt(serving, kind):
    tokens, numbers = iter(range(1, 10)), iter(range(1, 10))
    seen = []
    async with serving(Numbered) as server:
        url = returning(kind, lambda: f"ws://127.0.0.1:{server.port}/?key={next(numbers)}")
        headers = returning(kind, lambda: [("Authorization", f"token {next(tokens)}")])
        connection = connect(url, headers=headers, reconnect=SOON)
        async for ws in connection:
            seen += [message async for message in ws]
            if len(seen) == 3:
                break
        async with connect(url, headers=headers) as ws:
            seen.append(await ws.recv())
        ws = await connect(url, headers=headers)
        seen.append(await ws.recv())
    assert seen == [f"/?key={number} token {number}" for number in (1, 3, 4, 5, 6)]


def test_an_error_of_such_a_function_is_that_of_an_attempt(caplog):
    caplog.set_level("INFO")

    async def scenario():
        errors = iter((OSError("no token"), KeyError("expired")))

        async def headers():
            raise next(errors)

        async for _ in connect("ws://127.0.0.1:1", headers=headers, reconnect=SOON):
            pytest.fail("there is no connection")

    with pytest.raises(KeyError, match="expired"):
        asyncio.run(scenario())
    (again,) = (record.getMessage() for record in caplog.records if "connecting again" in record.message)
    assert again.startswith("no URL or header fields: no token")


@pytest.mark.parametrize("arguments", [(lambda: None,), ("ws://127.0.0.1:1", lambda: None), ("ws://127.0.0.1:1", str)])
def test_a_wrong_result_of_such_a_function_is_refused(arguments):
    url, *headers = arguments

    async def scenario():
        await connect(url, **({"headers": headers[0]} if headers else {}))

    with pytest.raises((TypeError, ValueError), match=r"None|''"):
        asyncio.run(scenario())


@pytest.mark.parametrize("option", ["url", "headers"])
async def test_open_timeout_bounds_a_coroutine_function(option):
    async def hanging():
        await asyncio.Event().wait()

    options = {"url": "ws://127.0.0.1:1", option: hanging}
    with pytest.raises(TimeoutError, match=r"hanging.* 0\.01 seconds: see open_timeout"):
        await connect(**options, open_timeout=0.01)
    policy = Reconnect(first=0, attempts=1)
    with pytest.raises(TimeoutError, match="see open_timeout"):
        async for _ in connect(**options, open_timeout=0.01, reconnect=policy):
            pytest.fail("there is no connection")


async def test_a_timeout_of_such_a_function_is_its_own_error():
    async def url():
        raise TimeoutError("the token service")

    with pytest.raises(TimeoutError, match="the token service"):
        await connect(url)


async def test_an_object_that_waits_for_such_a_function_opens_one_connection(serving):
    ready = asyncio.Event()

    async def url():
        await ready.wait()
        return f"ws://127.0.0.1:{server.port}"

    async def use():
        async with connection as ws:
            await ws.ping()

    async with serving(WebSocketView) as server:
        connection = connect(url)
        uses = [asyncio.create_task(use()), asyncio.create_task(use())]
        await asyncio.sleep(0)
        ready.set()
        _, error = sorted(await asyncio.gather(*uses, return_exceptions=True), key=bool)
    assert isinstance(error, RuntimeError)
    assert "in use already" in str(error)


async def test_a_loop_connects_once_the_server_is_there(caplog):
    caplog.set_level("INFO", "duck")
    port, attempts = free_port(), 0
    with pytest.raises(ConnectionRefusedError):
        policy = Reconnect(first=0, longest=0, attempts=3)
        async for _ in connect(f"ws://me:secret@127.0.0.1:{port}", reconnect=policy):
            attempts += 1
    assert attempts == 0
    assert caplog.text.count(f"ws://127.0.0.1:{port}/: ") == 3
    assert "secret" not in caplog.text
    Counting.codes = iter((4000,))
    loop = connect(f"ws://127.0.0.1:{port}", reconnect=SOON).__aiter__()
    waiting = asyncio.create_task(loop.__anext__())
    await asyncio.sleep(0.02)
    async with serve(Counting, port=port):
        ws = await waiting
        assert await ws.recv() == "4000"
        await ws.close()


async def test_a_server_that_accepts_only_to_close_uses_up_the_attempts(serving):
    Counting.codes = iter((1012,) * 10)
    seen = []
    async with serving(Counting) as server:
        with pytest.raises(ConnectionClosed, match="1012"):
            policy = Reconnect(first=0, longest=0, attempts=3)
            async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=policy):
                seen += [message async for message in ws]
    assert seen == ["1012"] * 4


@pytest.mark.parametrize("hooks", [False, True])
async def test_connections_that_last_do_not_use_up_the_attempts(serving, monkeypatch, hooks):
    monkeypatch.setattr("duck.contrib.websockets.client.reconnecting._STABLE", 0)
    Counting.codes = iter((1012, 1012, 1012, 1008))
    async with serving(Counting) as server:
        url, policy = f"ws://127.0.0.1:{server.port}", Reconnect(first=0, longest=0, attempts=1)
        with pytest.raises(ConnectionClosed, match="1008"):
            if hooks:
                await policy.run(lambda: Leaving(url))
            async for ws in connect(url, reconnect=policy):
                assert [message async for message in ws]


def test_a_connection_restarts_the_count_if_it_lasts():
    assert [Reconnect().is_stable(seconds) for seconds in (59, 60)] == [False, True]
    assert [Reconnect(longest=3).is_stable(seconds) for seconds in (9, 10)] == [False, True]


async def test_the_next_iteration_or_the_end_of_the_loop_closes_an_open_connection(serving):
    class Open(WebSocketView):
        pass

    async with serving(Open) as server:
        seen = []
        async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=SOON):
            seen.append(ws)
            if len(seen) == 3:
                break
        assert [ws.close_code for ws in seen] == [1000, 1000, None]
        assert await ws.wait_closed() == 1000, "left open by the break"
        with pytest.raises(KeyError):
            async for ws in connect(f"ws://127.0.0.1:{server.port}", reconnect=SOON):
                raise KeyError(ws)
        assert await ws.wait_closed() == 1000, "left open by the exception"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the program does not wait for the answers of the server
@pytest.mark.parametrize("end", ["return", "cancel"])
async def test_a_program_that_ends_within_its_loops_closes_the_connections_without_a_complaint(serving, caplog, end):
    """A task that begins while `asyncio.run` ends is destroyed: "Task was destroyed but it is pending!"."""
    closed = []

    class Greeting(WebSocketView):
        async def on_open(self):
            await self.send("hello")

        async def on_close(self, frame):
            closed.append(self.close_code)

    async def listen(url, greeted):
        async for ws in connect(url):
            async for _ in ws:
                greeted.set_result(None)

    async def program(url):
        greeted = [asyncio.get_running_loop().create_future() for _ in range(3)]
        tasks = [asyncio.create_task(listen(url, future)) for future in greeted]
        await asyncio.gather(*greeted)
        if end == "cancel":
            for task in tasks:
                task.cancel()

    async with serving(Greeting) as server:
        await asyncio.to_thread(asyncio.run, program(f"ws://127.0.0.1:{server.port}"))
        gc.collect()
    assert closed == [1000] * 3
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_a_loop_of_another_task_is_refused_and_harms_nothing(serving):
    class Greeting(WebSocketView):
        async def on_open(self):
            await self.send("hello")

    async with serving(Greeting) as server:
        series = connect(f"ws://127.0.0.1:{server.port}")
        (opening,) = await begun(anext(series))
        with pytest.raises(RuntimeError, match="another task waits for the next connection: write another connect"):
            await anext(series)
        ws = await opening
        assert await ws.recv() == "hello"
        await ws.close()


@given(st.integers(0, 10**6), st.floats(0, 10), st.floats(1, 5), st.floats(0, 100))
def test_pauses_grow_within_bounds(attempt, first, factor, more):
    policy = Reconnect(first=first, factor=factor, longest=first + more)
    pause = policy.pause(attempt)
    assert min(first, policy.longest) / 2 <= pause + 1e-9 and pause <= policy.longest


def test_clients_that_begin_to_wait_together_do_not_return_together():
    assert len({Reconnect().pause(0) for _ in range(10)}) > 1


@pytest.mark.parametrize("factor", [1e300, 10**300])
def test_the_longest_pause_takes_the_place_of_one_that_overflows(factor):
    assert 30 <= Reconnect(factor=factor).pause(3) <= 60
    assert Reconnect(first=0, factor=factor).pause(3) == 0


def test_a_server_may_ask_for_a_longer_pause():
    refusal = HandshakeRefused("", 503, {"retry-after": "7"})
    assert Reconnect().pause(0, refusal) == 7
    assert Reconnect(longest=3).pause(0, refusal) == 3
    assert Reconnect().pause(0, HandshakeRefused("", 503, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"})) < 1
    for after, expected in (("Fri, 31 Dec 2149 23:59:59 GMT", 60), ("Fri, 31 Dec 99999 00:00:00 GMT", 0), ("soon", 0)):
        assert Reconnect(first=0).pause(0, HandshakeRefused("", 503, {"retry-after": after})) == expected


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (ConnectionRefusedError(), False),
        (TimeoutError(), False),
        (ssl.SSLEOFError(), False),
        (ssl.SSLCertVerificationError(), True),
        (HandshakeRefused("", 503), False),
        (HandshakeRefused("", 429), False),
        (HandshakeRefused("", 401), True),
        (InvalidHandshake(""), False),
        (InvalidHandshake("", 101), True),
        (ConnectionClosed(1006), False),
        (ConnectionClosed(1009), True),
        (ValueError(), True),
    ],
)
def test_only_errors_that_would_recur_are_final(error, final):
    assert is_final(error) is final


async def in_a_task(error):
    """An `is_final` that could not be awaited."""


def test_invalid_options_are_refused():
    with pytest.raises(ValueError, match="first is 2, longest 1"):
        Reconnect(first=2, longest=1)
    wrongs = (
        {"attempts": -1},
        {"attempts": True},
        {"first": "1"},
        {"factor": True},
        {"is_final": True},
        {"factor": math.inf},
    )
    for wrong in (*wrongs, {"is_final": in_a_task}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            Reconnect(**wrong)
    with pytest.raises(TypeError, match="reconnect is a Reconnect"):
        connect("ws://localhost", reconnect=True)
    with pytest.raises(TypeError, match="run takes a function that returns a client"):
        asyncio.run(SOON.run(WebSocketClient("ws://localhost")))
    for create in (lambda: WebSocketClient, lambda: connect("ws://localhost"), lambda: asyncio.sleep(0)):
        with pytest.raises(TypeError, match=r"the function of run returned .*: return a WebSocketClient"):
            asyncio.run(SOON.run(create))
    with pytest.raises(ValueError, match="serves one connection"):
        connect("ws://localhost", sock=object()).__aiter__()
