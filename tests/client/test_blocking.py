"""The client in synchronous code: `with connect(...)`, whose loop runs in a thread."""

import asyncio
import copy
import gc
import io
import threading
import tracemalloc
import weakref

import pytest

from duck.contrib.websockets import CloseCode, ConnectionClosed, Frame, OpCode, WebSocketView
from duck.contrib.websockets.client import HandshakeRefused, connect

from ..support.leftovers import open_files

SECONDS = 20  # of waits that a failure would prolong


def test_methods_block_until_their_result(served):
    def talk(url):
        with connect(f"{url}/", subprotocols=["chat"]) as ws:
            for message in ("\u00e4", b"\0", "x" * 200_000):
                ws.send(message, OpCode.TEXT if isinstance(message, str) else OpCode.BINARY)
                assert ws.recv(timeout=SECONDS) == message
            ws.send(["in ", "parts"])
            assert ws.recv() == "in parts"
            ws.send_json({"a": 1})
            assert ws.recv_json(timeout=SECONDS) == {"a": 1}
            assert ws.ping() == ws.latency
            assert (ws.url, ws.subprotocol, ws.close_code) == (f"{url}/", None, None)
            ws.PING_INTERVAL = 7  # a setting of the connection
            with pytest.raises(ValueError, match="PING_INTERVAL"):
                ws.PING_INTERVAL = -1
            assert ws.PING_INTERVAL == 7
            with pytest.raises(TimeoutError, match=r"no message from .* within 0 seconds"):
                ws.recv(timeout=0)
        return ws.close_code

    assert served(talk) == CloseCode.NORMAL_CLOSURE


def test_iteration_ends_with_the_connection(served):
    def talk(url):
        with connect(url) as ws:
            for message in ("a", "b"):
                ws.send(message)
            received = [next(ws), next(ws)]
            ws.close()
            assert list(ws) == []
        with connect(url) as ws:
            ws.send("close")
            with pytest.raises(ConnectionClosed, match="4001"):
                list(ws)
        return received

    assert served(talk) == ["a", "b"]


def test_messages_are_read_part_by_part(served):
    def talk(url):
        with connect(url, stream=True) as ws:
            for _ in range(2):
                ws.send_binary(bytes(200_000))
            message = ws.recv_stream(timeout=SECONDS)
            assert message.opcode is OpCode.BINARY
            assert sum(map(len, message)) == 200_000
            return ws.recv_stream().read()

    assert served(talk) == bytes(200_000)


def test_a_file_is_read_by_pieces(served):
    """By lines, a file of random bytes took 80 times as long: each line is two changes of the thread."""
    reads = []

    class File(io.BytesIO):
        def read1(self, size=-1, /):
            reads.append(size)
            return super().read1(size)

    def talk(url):
        with connect(url) as ws:
            ws.send_binary(File(b"\n" * 100_000))
            return ws.recv()

    assert served(talk) == b"\n" * 100_000
    assert reads == [65536] * 3


def test_the_calling_thread_produces_the_parts_of_a_message(served):
    def talk(url):
        threads = []

        def parts(ws):
            for part in ("in ", "parts"):
                threads.append(threading.current_thread())
                ws.ping()
                yield part

        with connect(url) as ws:
            ws.send(parts(ws))
            assert ws.recv() == "in parts"
            ws.send_binary(iter([b"\0", b"\xff"]))
            assert ws.recv() == b"\0\xff"
            ws.send_text(iter([]))
            assert ws.recv() == ""
        with pytest.raises(ConnectionClosed, match="1000"):
            ws.send(parts(ws))
        return set(threads) == {threading.current_thread()}

    assert served(talk)


def test_an_asynchronous_iterable_runs_in_the_loop_of_the_connection(served):
    def talk(url):
        async def parts():
            for part in ("in ", "parts"):
                await asyncio.sleep(0)
                yield part

        with connect(url) as ws:
            ws.send(parts())
            return ws.recv()

    assert served(talk) == "in parts"


def test_a_method_that_would_stop_a_running_loop_is_refused(served):
    def talk(url):
        with connect(url) as ws:

            async def misuse():
                ws.send("x")

            with pytest.raises(RuntimeError, match="this method blocks, and an event loop runs in this thread"):
                asyncio.run(misuse())
            ws.send("y")
            return ws.recv()

    assert served(talk) == "y"


@pytest.mark.parametrize(
    "send",
    [
        lambda ws: ws.send("other"),
        lambda ws: ws.send(iter(["other"])),
        lambda ws: ws.send_json("other"),
        lambda ws: ws.send_frame(Frame(OpCode.TEXT, payload=b"other")),
    ],
    ids=["whole", "in parts", "JSON", "frame"],
)
def test_the_parts_of_a_message_send_no_other_one(served, send):
    """It would leave behind this one, whose next part would wait for it."""

    def parts(ws):
        yield "in "
        assert ws.ping() > 0
        with pytest.raises(RuntimeError, match="the parts of a message send another one"):
            send(ws)
        yield "parts"

    def talk(url):
        with connect(url) as ws:
            ws.send(parts(ws))
            assert ws.recv(timeout=SECONDS) == "in parts"
            send(ws)
            assert "other" in ws.recv(timeout=SECONDS)

    served(talk)


def test_an_error_of_a_part_is_that_of_send(served):
    def talk(url):
        def parts(*before):
            yield from before
            raise ZeroDivisionError

        async def cancelled():
            waiting = asyncio.get_running_loop().create_future()
            waiting.cancel()
            yield await waiting

        with connect(url) as ws:
            with pytest.raises(asyncio.CancelledError):
                ws.send(cancelled())
            with pytest.raises(ZeroDivisionError):
                ws.send(parts())
            with pytest.raises(TypeError, match="not int"):
                ws.send(parts(1))
            ws.send("no message has begun")
            assert ws.recv() == "no message has begun"
            with pytest.raises(ZeroDivisionError):
                ws.send(parts("begun"))
            with pytest.raises(ConnectionClosed, match="1011 message not finished"):
                ws.send("more")

    served(talk)


def test_a_message_in_parts_ends_with_the_connection(served):
    def talk(url):
        def parts(ws):
            yield "the server does not get "
            ws.close()
            yield "the rest"

        with connect(url) as ws, pytest.raises(ConnectionClosed, match="1000"):
            ws.send(parts(ws))

    served(talk)


def test_a_console_completes_the_methods(served):
    def names(url):
        with connect(url) as ws:
            with pytest.raises(TypeError, match="cannot be copied"):
                copy.copy(ws)
            return {"recv", "send_json", "close_code"} <= {*dir(ws)}

    assert served(names)


def test_an_error_leaves_no_garbage(served):
    class Large:
        pass

    def poll(ws):
        large = Large()
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0)
        return weakref.ref(large)

    def talk(url):
        with connect(url) as ws:
            gc.disable()
            try:
                polled = poll(ws)
                ws.send("behind")  # the callback of the loop that has ended the poll has the error until it returns
                return polled()
            finally:
                gc.enable()

    assert served(talk) is None


def test_the_source_of_a_message_that_is_given_up_ends_at_once(served):
    """Without a garbage collection: it may have a file open."""
    ended = threading.Event()

    def parts(ws):
        try:
            yield "begun"
            ws.close()
            yield "the connection is closed"
        finally:
            ended.set()

    def send(ws):
        source = parts(ws)
        with pytest.raises(ConnectionClosed):
            ws.send(source)

    def talk(url):
        with connect(url) as ws:
            gc.disable()
            try:
                send(ws)
                return ended.is_set()
            finally:
                gc.enable()

    assert served(talk)


def test_pings_are_answered_between_the_calls(served):
    measured = threading.Event()

    class Pinging(WebSocketView):
        async def on_open(self):
            await self.ping()
            measured.set()

    def wait(url):
        with connect(url):
            return measured.wait(SECONDS)

    assert served(wait, Pinging)


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError, 1011), (KeyboardInterrupt, 1001)])
def test_an_error_in_the_block_is_in_the_close_code(served, error, code):
    def fail(url):
        with pytest.raises(error), connect(url) as ws:
            raise error
        return ws.close_code

    assert served(fail) == code


def test_nothing_is_left_of_a_connection_or_a_refusal(served):
    def attempt(url):
        with pytest.raises(HandshakeRefused, match="403"), connect(f"{url}/private"):
            pass
        with connect(url) as ws:
            ws.send("quack")

    def attempts(url):
        attempt(url)
        before = threading.active_count()
        files = open_files()
        for _ in range(3):
            attempt(url)
        assert open_files() <= files + 1  # the last connection on the server
        return threading.active_count() - before

    assert served(attempts) == 0


def test_a_connection_leaves_no_buffer_to_the_garbage_collection(served):
    def attempts(url):
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(8):
                with connect(url) as ws:
                    ws.send("quack")
                    ws.recv()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()

    assert served(attempts) < 4 * 262_144  # bytes; each loop has a buffer of 262 144


def test_one_object_opens_one_connection_after_the_other(served):
    def twice(url):
        connecting = connect(url)
        with connecting, pytest.raises(RuntimeError, match="in use already"), connecting:
            pass
        with connecting as ws:
            ws.send("again")
            return ws.recv()

    assert served(twice) == "again"


def test_another_thread_may_receive_until_the_end_of_the_block(served):
    def talk(url):
        received = []
        with connect(url) as ws:
            reader = threading.Thread(target=lambda: received.extend(ws))
            reader.start()
            for number in range(100):
                ws.send(str(number))
            ws.ping()  # its pong comes after the messages
        reader.join(SECONDS)
        return received

    assert served(talk) == [str(number) for number in range(100)]
