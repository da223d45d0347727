"""Messages that are created piece by piece: each piece leaves as a fragment at once."""

import asyncio
import tempfile

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, WebSocketView

from ..support.servers import SLOW
from ..support.views import Quiet

pytestmark = pytest.mark.in_memory

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


async def asynchronous(parts):
    for part in parts:
        await asyncio.sleep(0)
        yield part


class Failed(Exception):
    pass


async def fragments(peer):
    """The frames of the next message."""
    frames = [await peer.frame()]
    while not frames[-1].fin:
        frames.append(await peer.frame())
    opcode, *others = [frame.opcode for frame in frames]
    assert opcode in (TEXT, BINARY)
    assert set(others) <= {CONTINUATION}
    return frames


KINDS = {
    "generator": lambda parts: (part for part in parts),
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "async generator": asynchronous,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_each_part_is_a_fragment(connect, kind, opcode):
    async with connect(Quiet) as session:
        await session.view.send(KINDS[kind]([b"one", b"two", b"three"]), opcode)
        frames = await fragments(session.peer)
        assert frames[0].opcode == opcode
        payloads = [frame.payload for frame in frames]
        assert payloads[:3] == [b"one", b"two", b"three"]
        assert b"".join(payloads) == b"onetwothree"
        await session.view.send("next")
        assert await session.peer.message() == "next"


@pytest.mark.parametrize("kind", KINDS)
async def test_parts_may_be_text_or_bytes_like(connect, kind):
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        await view.send_text(KINDS[kind](["grü", "ße", ""]))
        assert b"".join(frame.payload for frame in await fragments(peer)).decode() == "grüße"
        await view.send_binary(KINDS[kind]([b"a", bytearray(b"b"), memoryview(b"c-d-")[::2], "é"]))
        assert b"".join(frame.payload for frame in await fragments(peer)) == b"abcd\xc3\xa9"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [[], [b""], [b"", b""]], ids=["none", "one", "two"])
async def test_no_parts_are_an_empty_message(connect, kind, parts):
    async with connect(Quiet) as session:
        await session.view.send(KINDS[kind](parts), TEXT)
        frames = await fragments(session.peer)
        assert frames[0].opcode == TEXT
        assert not any(frame.payload for frame in frames)


@pytest.mark.parametrize("content", [b"\n" * 100_000, bytes(100_000)], ids=["short lines", "one line"])
async def test_a_file_leaves_by_pieces_rather_than_lines(connect, tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    async with connect(Quiet) as session:
        with (tmp_path / "file").open("rb") as file:
            await session.view.send_binary(file)
        assert [len(frame.payload) for frame in await fragments(session.peer)] == [65536, 100_000 - 65536, 0]
        with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as file:
            file.write("\u00fc\n" * 40_000)
            file.seek(0)
            await session.view.send_text(file)
        payloads = [frame.payload for frame in await fragments(session.peer)]
        assert [len(payload.decode()) for payload in payloads] == [65536, 80_000 - 65536, 0]


@pytest.mark.parametrize("kind", KINDS)
async def test_parts_are_no_larger_than_a_frame_may_be(connect, kind):
    class View(Quiet):
        MAX_FRAME_SIZE = 100

    async with connect(View) as session:
        await session.view.send_binary(KINDS[kind]([bytes(250), bytes(3)]))
        frames = await fragments(session.peer)
        assert sum(len(frame.payload) for frame in frames) == 253
        assert max(len(frame.payload) for frame in frames) == 100


async def test_a_part_leaves_before_the_next_one_is_made(connect):
    async with connect(Quiet) as session:
        read = asyncio.Event()

        async def parts():
            yield "one"
            await read.wait()
            yield "two"

        sending = asyncio.create_task(session.view.send_text(parts()))
        frame = await session.peer.frame()
        assert (frame.opcode, frame.fin, frame.payload) == (TEXT, False, b"one")
        read.set()
        await sending
        assert (await session.peer.frame()).payload == b"two"


async def test_other_messages_wait_and_control_frames_do_not(connect):
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        go_on = asyncio.Event()

        async def parts():
            yield "a"
            await go_on.wait()
            yield "b"

        sends = [asyncio.create_task(view.send(parts()))]
        assert (await peer.frame()).payload == b"a"
        sends += [asyncio.create_task(view.send(data)) for data in ("second", ["third ", "message"], "fourth")]
        await view.send_ping(b"ping")
        assert (await peer.frame()).opcode == PING
        # The pong leaves inside the message, and nothing else has been sent.
        assert await peer.settled() == []
        go_on.set()
        await asyncio.gather(*sends)
        frames = [await peer.frame() for _ in range(2)]
        assert frames[0].payload == b"b"
        assert await peer.message() == "second"
        assert b"".join(frame.payload for frame in await fragments(peer)) == b"third message"
        assert await peer.message() == "fourth"


async def test_streams_of_two_handlers_do_not_mix(connect):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(asynchronous([message] * 10), opcode)

    async with connect(View) as session:
        session.peer.send(*"abcdefgh")
        for name in "abcdefgh":
            frames = await fragments(session.peer)
            assert b"".join(frame.payload for frame in frames).decode() == name * 10


# Errors


def failing(parts):
    yield from parts
    raise Failed


async def failing_asynchronously(parts):
    for part in parts:
        yield part
    raise Failed


@pytest.mark.parametrize("make", [failing, failing_asynchronously])
async def test_a_stream_that_fails_midway_closes_with_1011(connect, log, make):
    """A message that has begun cannot be finished, so the connection ends; the sender gets the error."""
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        sending = asyncio.create_task(view.send(make(["one", "two"])))
        with pytest.raises(Failed):
            await sending
        frames = [await peer.frame(), await peer.frame()]
        assert [(frame.payload, frame.fin) for frame in frames] == [(b"one", False), (b"two", False)]
        code, reason = await peer.closing()
        assert code == 1011
        assert "Failed" not in reason
        with pytest.raises(ConnectionClosed):
            await view.send("later")
        peer.close(1011)
        await session.ended()
    assert not log()


@pytest.mark.parametrize("make", [failing, failing_asynchronously])
async def test_a_stream_that_fails_before_its_first_part_leaves_the_connection_open(connect, log, make):
    """No frame has been sent, so the connection stays open."""
    async with connect(Quiet) as session:
        sending = asyncio.create_task(session.view.send(make([])))
        waiting = asyncio.create_task(session.view.send(["behind"]))
        with pytest.raises(Failed):
            await sending
        await waiting
        assert b"".join(frame.payload for frame in await fragments(session.peer)) == b"behind"
        await session.view.send("later")
        assert await session.peer.message() == "later"
    assert not log()


@pytest.mark.parametrize("data", ["whole", ["in ", "parts"]])
async def test_parts_that_wait_for_a_message_behind_their_own_are_an_error(connect, data):
    """They would wait for ever. The message leaves if they do not await it, or await it in a task of its own."""
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer

        async def parts(wait):
            yield "one"
            sending = view.send(data)
            yield " two"
            if wait:
                await sending
            tasks.append(asyncio.create_task(sending))

        tasks = []
        await view.send(parts(wait=False))
        await tasks.pop()
        assert b"".join(frame.payload for frame in await fragments(peer)) == b"one two"
        assert b"".join(frame.payload for frame in await fragments(peer)).decode() == "".join(data)
        with pytest.raises(RuntimeError, match="do not await the send there"):
            await view.send(parts(wait=True))
        assert [(await peer.frame()).payload for _ in range(2)] == [b"one", b" two"]
        assert (await peer.closing())[0] == 1011


@pytest.mark.parametrize("part", [1, None, ["nested"], {"a": 1}, b"not UTF-8: \xff"])
async def test_an_invalid_part_is_an_error(connect, part):
    error = ValueError if isinstance(part, bytes) else TypeError
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        with pytest.raises(error):
            await view.send([part])
        assert await peer.settled() == []
        with pytest.raises(error):
            await view.send(["one", part])
        assert (await peer.frame()).payload == b"one"
        assert (await peer.closing())[0] == 1011


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG, CONTINUATION, 3])
async def test_only_messages_have_parts(connect, opcode):
    async with connect(Quiet) as session:
        with pytest.raises((ValueError, RuntimeError)):
            await session.view.send(["one", "two"], opcode)
        await session.view.send("still open")
        assert await session.peer.message() == "still open"


async def relayed(parts):
    """Parts of a message from a connection that ends within it."""
    for part in parts:
        yield part
    raise ConnectionClosed


@pytest.mark.parametrize(("source", "error"), [(failing, Failed), (relayed, ConnectionClosed)])
async def test_a_stream_that_fails_in_a_handler_is_logged_once(connect, log, source, error):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(source(["one"]))

    async with connect(View) as session:
        session.peer.send("x")
        assert (await session.peer.frame()).payload == b"one"
        assert (await session.peer.closing())[0] == 1011
    (entry,) = log()
    assert isinstance(entry.error, error)


def invalid_part(view):
    return view.send([1])


def before_the_first_part(view):
    return view.send(failing([]))


def midway(view):
    return view.send(failing(["one"]))


def later(view):
    return view.send(failing_asynchronously(["one", "two"]))


def in_its_turn(view):
    _ = view.send(asynchronous(["one", "two"]))
    return view.send(failing([]))


async def awaiting_what_is_cancelled():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    yield await future


def by_a_cancellation_of_something_else(view):
    return view.send(awaiting_what_is_cancelled())


def by_the_end_of_another_connection(view):
    return view.send(relayed([]))


def by_the_end_of_another_connection_midway(view):
    return view.send(relayed(["one"]))


ERRORS = {
    invalid_part: TypeError,
    before_the_first_part: Failed,
    midway: Failed,
    later: Failed,
    in_its_turn: Failed,
    by_a_cancellation_of_something_else: asyncio.CancelledError,
    by_the_end_of_another_connection: ConnectionClosed,
    by_the_end_of_another_connection_midway: ConnectionClosed,
}


@pytest.mark.parametrize("by_frame", [True, False], ids=["by frame", "directly"])
@pytest.mark.parametrize("send", ERRORS)
async def test_the_error_of_a_stream_whose_result_is_ignored_is_that_of_a_hook(connect, log, send, by_frame):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            _ = send(self)

        if by_frame:

            async def send_frame(self, frame):
                await super().send_frame(frame)

    async with connect(View) as session:
        session.peer.send("x")
        while (frame := await session.peer.frame()).opcode != CLOSE:
            pass
        assert frame.payload[:2] == (1011).to_bytes(2)
        assert b"Failed" not in frame.payload
    (entry,) = log()
    assert isinstance(entry.error, ERRORS[send])


@pytest.mark.parametrize("send", [invalid_part, before_the_first_part])
async def test_the_error_of_a_stream_is_raised_in_a_task_that_awaits_its_result(connect, log, send):
    async with connect(Quiet) as session:
        (error,) = await asyncio.gather(send(session.view), return_exceptions=True)
        assert isinstance(error, ERRORS[send])
        await session.view.send("still open")
        assert await session.peer.message() == "still open"
    assert not log()


async def test_the_error_of_a_stream_that_fails_at_the_end_of_its_connection_is_logged(connect, log):
    async with connect(Quiet) as session:

        async def parts():
            yield "one"
            session.view.terminate()
            raise Failed

        _ = session.view.send(parts())
        assert (await session.peer.frame()).payload == b"one"
        assert (await session.peer.closing())[0] == 1001
    (entry,) = log()
    assert isinstance(entry.error, Failed)


async def test_the_error_of_a_frame_whose_result_is_ignored_is_that_of_a_hook(connect, log):
    class View(Quiet):
        async def send_frame(self, frame):
            if frame.payload == b"fail":
                raise Failed
            await super().send_frame(frame)

    async with connect(View) as session:
        _ = session.view.send("fail")
        assert (await session.peer.closing())[0] == 1011
    (entry,) = log()
    assert isinstance(entry.error, Failed)


async def test_a_stream_that_is_cancelled_midway_closes_with_1011(connect):
    async with connect(Quiet) as session:

        async def parts():
            yield "one"
            await asyncio.Event().wait()

        sending = asyncio.create_task(session.view.send(parts()))
        assert (await session.peer.frame()).payload == b"one"
        waiting = asyncio.create_task(session.view.send("behind"))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert (await session.peer.closing())[0] == 1011
        session.peer.close(1011)
        with pytest.raises(ConnectionClosed):
            await waiting


async def test_a_stream_that_is_cancelled_during_its_first_part_closes_with_1011(connect):
    async with connect(Quiet, **SLOW) as session:
        sending = asyncio.create_task(session.view.send([bytes(2**24), b"more"]))
        await asyncio.sleep(0)
        assert not sending.done()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        frame = await session.peer.frame()
        while frame.opcode != CLOSE:
            assert not frame.fin
            frame = await session.peer.frame()
        assert frame.payload[:2] == (1011).to_bytes(2)


async def test_a_stream_that_has_left_is_not_cut_by_a_cancellation(connect):
    async with connect(Quiet) as session:

        async def send():
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
            await session.view.send(["one ", "two"])
            await asyncio.Event().wait()

        sending = asyncio.create_task(send())
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert [frame.payload for frame in await fragments(session.peer)] == [b"one ", b"two", b""]
        await session.view.send("behind")
        assert await session.peer.message() == "behind"


@pytest.mark.parametrize("end", ["their close", "our close", "gone"])
async def test_a_stream_is_cancelled_at_the_end_of_the_connection(connect, end):
    """It is cancelled. Later sends raise at once, and wait for no turn."""

    class View(Quiet):
        async def on_close(self, frame=None):
            with pytest.raises(ConnectionClosed):
                await self.send("in on_close")
            with pytest.raises(ConnectionClosed):
                await self.send(["in", "on_close"])
            self.tried = True

    async with connect(View) as session:
        view, peer = session.view, session.peer
        cancelled = []

        async def parts():
            yield "one"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        sending = asyncio.create_task(view.send(parts()))
        assert (await peer.frame()).payload == b"one"
        waiting = asyncio.create_task(view.send("behind"))
        await asyncio.sleep(0)
        if end == "their close":
            peer.close()
            assert (await peer.closing())[0] == 1000
        elif end == "our close":
            await view.send_close()
            assert (await peer.closing())[0] == 1000
            peer.close()
        else:
            peer.leave()
        await session.ended()
        assert view.tried
        for send in (sending, waiting):
            with pytest.raises(ConnectionClosed):
                await send
        assert cancelled == [True]
        with pytest.raises(ConnectionClosed):
            await view.send("later")


async def test_a_stream_that_goes_on_after_the_close_frame_is_an_error_of_its_sender(connect):
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        closed = asyncio.Event()

        async def parts():
            yield "one"
            await closed.wait()
            yield "two"

        sending = asyncio.create_task(view.send(parts()))
        assert (await peer.frame()).payload == b"one"
        await view.send_close(4000)
        closed.set()
        with pytest.raises(ConnectionClosed, match="4000"):
            await sending


async def test_an_unfinished_fragmented_message_does_not_delay_the_end(connect):
    class View(Quiet):
        async def on_close(self, frame=None):
            with pytest.raises(ConnectionClosed):
                await self.send("in on_close")
            self.tried = True

    async with connect(View) as session:
        await session.view.send_frame(Frame(TEXT, False, b"never finished"))
        session.peer.leave()
        await session.ended()
        assert session.view.tried
