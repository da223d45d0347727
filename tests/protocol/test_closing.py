"""The end of a connection by either side: once, with a close frame that the peer can read, and one `on_close`."""

import asyncio
import itertools
import socket

import pytest

from duck.contrib.websockets import Frame, OpCode, State, broadcast

from ..support import views
from ..support.frames import RSV1, close, frame
from ..support.servers import SLOW

MIB = 2**20

pytestmark = pytest.mark.usefixtures("impatient")


class Recorder(views.Recorder):
    async def on_close(self, frame=None):
        assert self.state is State.CLOSED
        await super().on_close(frame)


BY = pytest.mark.parametrize("by_run", [False, True], ids=["started", "run"])


# Either end closes


@BY
async def test_a_close_frame_of_the_peer_is_echoed_and_the_stream_ended(connect, by_run):
    async with connect(Recorder, by_run=by_run) as session:
        session.peer.close(4000, "bye")
        assert await session.peer.closing() == (4000, "")
        # The server ends the stream first, as section 7.1.1 has it.
        assert await session.peer.rest() == []
        assert await session.ended() is None
        assert session.view.events == ["open", ("close", b"\x0f\xa0bye")]
        assert (session.view.close_code, session.view.close_reason) == (4000, "bye")


async def test_a_close_frame_without_a_code_is_echoed_without_one(connect):
    async with connect(Recorder) as session:
        session.peer.send(Frame(OpCode.CLOSE))
        assert await session.peer.closing() == (1005, "")
        await session.ended()
        assert session.view.events == ["open", ("close", b"")]
        assert session.view.close_code == 1005


@BY
async def test_after_our_close_frame_messages_are_neither_handled_nor_answered(connect, by_run):
    async with connect(Recorder, by_run=by_run) as session:
        view, peer = session.view, session.peer
        await view.send("last")
        await view.send_close(4001, "enough")
        assert await peer.message() == "last"
        assert await peer.closing() == (4001, "enough")
        # Messages that cross it are neither handled nor answered.
        peer.send("late", Frame(OpCode.PING, payload=b"?"))
        peer.close(4001)
        assert await peer.rest() == []
        await session.ended()
        assert view.events == ["open", ("close", b"\x0f\xa1")]
        assert view.close_code == 4001


@pytest.mark.parametrize("answer", ["nothing", "end of stream", "reset"])
async def test_a_peer_that_does_not_answer_our_close_frame_ends_the_connection(connect, answer):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.1 if answer == "nothing" else 30

    async with connect(View) as session:
        view, peer = session.view, session.peer
        await view.send_close(4001, "enough")
        assert await peer.closing() == (4001, "enough")
        if answer == "end of stream":
            peer.shut()
        elif answer == "reset":
            peer.reset()
        await session.ended()
        assert view.events == ["open", ("close", None)]
        assert (view.close_code, view.close_reason) == (4001, "enough")


async def test_the_answer_to_a_close_frame_of_a_handler_that_has_waited_for_its_turn_has_a_deadline(connect):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.1
        MAX_CONCURRENT_MESSAGES = 1

        async def on_receive(self, message, opcode):
            if message == b"second":
                self.send_close(4001)
            await asyncio.sleep(0)

    async with connect(View) as session:
        session.peer.send("first", "second")
        assert await session.peer.closing() == (4001, "")
        await session.ended()


async def test_close_frames_that_cross_end_the_connection_with_the_peers_code(connect):
    async with connect(Recorder) as session:
        session.peer.close(4002)
        await session.view.send_close(4001)
        assert await session.peer.closing() == (4001, "")
        assert await session.peer.rest() == []
        await session.ended()
        assert session.view.events == ["open", ("close", b"\x0f\xa2")]
        assert session.view.close_code == 4002


@pytest.mark.parametrize("leave", ["leave", "reset", "shut"])
@BY
async def test_a_peer_that_vanishes_is_1006(connect, leave, by_run, log):
    async with connect(Recorder, by_run=by_run) as session:
        getattr(session.peer, leave)()
        assert await session.ended() is None
        assert session.view.events == ["open", ("close", None)]
        assert (session.view.close_code, session.view.close_reason) == (1006, "")
    assert not log()


@pytest.mark.parametrize("broadcasts", [False, True])
async def test_messages_to_a_peer_that_is_gone_cause_no_log_line(connect, broadcasts, either_tls, log):
    """Nothing is written to the transport, because asyncio's would log a warning each time."""
    async with connect(Recorder, tls=either_tls) as session:
        session.peer.reset()
        await asyncio.sleep(0)
        for _ in range(20):
            if broadcasts:
                broadcast([session.view], "x")
            else:
                session.view.send(bytes(100_000))
        await session.ended()
    assert not log()


BREACHES = {
    "reserved opcode": (b"\x83\x80", 1002),
    "no mask": (b"\x81\x01x", 1002),
    "text that is not UTF-8": (frame(OpCode.TEXT, b"\xff"), 1007),
    "close code 1006": (close(1006), 1002),
    "close reason that is not UTF-8": (frame(OpCode.CLOSE, b"\x03\xe8\xff"), 1007),
    "too big": (frame(OpCode.BINARY, bytes(MIB + 1)), 1009),
    "reserved bits": (frame(OpCode.TEXT, rsv=RSV1), 1002),
}


@pytest.mark.parametrize("behind", [0, 4 * MIB], ids=["", "with bytes behind"])
async def test_a_breach_is_answered_after_earlier_messages_without_a_reset(connect, behind):
    """The peer can read the reason. A close with unread bytes would reset the connection."""

    async def breach(data, code):
        async with connect(Recorder) as session:
            view, peer = session.view, session.peer
            peer.send("before")
            peer.write(data + bytes(behind))
            assert await peer.message() == "before"
            told, reason = await peer.closing()
            assert told == code
            assert reason
            # Nothing else comes, and late bytes are read, without a reset.
            assert await peer.reader.read() == b""
            await peer.writer.drain()
            peer.shut()
            await session.ended()
            assert view.events == ["open", b"before", ("close", None)]
            assert (view.close_code, view.close_reason) == (code, reason)

    async with asyncio.TaskGroup() as group:
        for case, (data, code) in BREACHES.items():
            group.create_task(breach(data, code), name=case)


async def test_a_peer_that_stays_after_its_breach_is_cut(connect):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.1

    async with connect(View) as session:
        session.peer.write(b"\x83\x80")
        assert await session.peer.closing() == (1002, "reserved opcode")
        await session.ended()
        assert session.view.events == ["open", ("close", None)]


async def test_a_breach_in_place_of_an_answer_to_our_close_frame_ends_the_stream(connect):
    """It waits for our end of the stream, which must not wait for the deadline."""
    async with connect(Recorder) as session:
        await session.view.send_close(4001)
        assert await session.peer.closing() == (4001, "")
        session.peer.write(b"\x83\x80")
        assert await session.peer.rest() == []
        session.peer.shut()
        await session.ended()
        assert session.view.events == ["open", ("close", None)]
        assert session.view.close_code == 4001


async def test_bytes_behind_a_close_frame_are_ignored(connect):
    async with connect(Recorder) as session:
        session.peer.send("one", Frame(OpCode.CLOSE, payload=b"\x03\xe8"), "two", Frame(OpCode.CLOSE), "three")
        assert await session.peer.message() == "one"
        assert await session.peer.closing() == (1000, "")
        assert await session.peer.rest() == []
        await session.ended()
        assert session.view.events == ["open", b"one", ("close", b"\x03\xe8")]


# A peer that takes its time


def far_behind(session):
    """Sends more than the sockets hold, and closes."""
    sent = asyncio.ensure_future(session.view.send_binary(bytes(8 * MIB)))
    return asyncio.gather(sent, session.view.send_close(4001), return_exceptions=True)


async def test_a_peer_that_reads_is_not_cut(connect, either_tls):
    """The transfer takes many times CLOSE_TIMEOUT."""

    class View(Recorder):
        MAX_FRAME_SIZE = MIB // 4
        CLOSE_TIMEOUT = 500

    async with connect(View, receive_buffer=65536, read_limit=65536, tls=either_tls) as session:
        session.view.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**19)  # so that bytes wait at each check
        sending = far_behind(session)
        await asyncio.sleep(0)
        closing = session.view._protocol._closing
        for number in range(32):
            assert len((await session.peer.frame()).payload) == MIB // 4
            if number in range(4, 28, 4):  # between two of them more is read than buffers hold
                closing._progress -= 1000
                closing.wake()
        assert await session.peer.closing() == (4001, "")
        session.peer.close(4001)
        await session.ended()
        await sending
        assert session.view.events == ["open", ("close", b"\x0f\xa1")]


async def test_a_peer_that_does_not_read_is_cut(connect, either_tls):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.2

    async with connect(View, **SLOW, tls=either_tls) as session:
        session.peer.writer.transport.pause_reading()
        sending = far_behind(session)
        await session.ended()
        await sending
        assert session.view.events == ["open", ("close", None)]


async def test_a_peer_that_stays_behind_its_close_frame_is_not_waited_for(connect, either_tls):
    """TLS would wait for the peer's end, but the closing handshake is complete."""

    async def closed_first_by(first):
        async with connect(Recorder, tls=either_tls) as session:
            peer = session.peer
            if first == "view":
                await session.view.send_close(4001)
                assert await peer.closing() == (4001, "")
            peer.writer.transport.pause_reading()
            peer.close(4001)
            await session.ended()
            assert session.view.events == ["open", ("close", b"\x0f\xa1")]

    await asyncio.gather(closed_first_by("view"), closed_first_by("peer"))


# A peer that is told why while it sends


async def test_a_peer_that_is_still_sending_is_read_on(connect, until, either_tls, monkeypatch):
    """Our side of the stream stays open meanwhile, as a proxy may end both when one ends."""
    monkeypatch.setattr("duck.contrib.websockets.protocol.closing.Drain.QUIET", 30)
    async with connect(Recorder, tls=either_tls) as session:
        peer = session.peer
        peer.write(BREACHES["too big"][0])
        assert await peer.closing() == (1009, "message too big")
        drain = session.view.request.transport.get_protocol()
        for _ in range(12):
            read = drain._size
            peer.write(bytes(MIB // 4))
            await until(lambda read=read: drain._size > read)
            drain._check()  # as after QUIET seconds
            assert not peer.reader.at_eof()
        # Then it is quiet, and that is the end.
        while not peer.reader.at_eof():
            drain._check()
            await asyncio.sleep(0)
        assert await peer.rest() == []


async def test_the_answer_to_the_close_frame_of_a_breach_ends_the_connection(connect, either_tls, monkeypatch):
    """The end is immediate; it does not wait for the quiet of the peer."""
    monkeypatch.setattr("duck.contrib.websockets.protocol.closing.Drain.QUIET", 30)
    async with connect(Recorder, tls=either_tls) as session:
        session.peer.write(b"\x83\x80")
        assert await session.peer.closing() == (1002, "reserved opcode")
        session.peer.close(1002)
        assert await session.peer.rest() == []
        await session.ended()
        assert session.view.events == ["open", ("close", None)]


async def test_a_peer_that_never_stops_sending_is_read_for_so_long(connect, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.protocol.closing.Drain.LIMIT", MIB)
    async with connect(Recorder) as session:
        peer = session.peer
        peer.write(BREACHES["too big"][0])
        assert await peer.closing() == (1009, "message too big")
        while not peer.reader.at_eof():
            peer.write(bytes(65536))
            await peer.writer.drain()
            await asyncio.sleep(0)
        peer.shut()
        await session.ended()


# At every step


SCRIPT = [
    frame(OpCode.TEXT, b"one"),
    frame(OpCode.PING, b"?"),
    frame(OpCode.BINARY, b"t", fin=False),
    frame(OpCode.PING),
    frame(OpCode.CONTINUATION, b"wo"),
    frame(OpCode.BINARY, bytes(200)),
    close(),
    frame(OpCode.TEXT, b"behind"),
]
ENDS = list(itertools.accumulate(map(len, SCRIPT)))
STEPS = [*range(0, ENDS[4] + 10, 3), *range(ENDS[5] - 5, ENDS[-1] + 1, 3)]


@pytest.mark.parametrize("end", ["leave", "reset", "shut"])
async def test_a_peer_may_go_at_any_step_of_a_conversation(serving, dial, end, log):
    """`on_close` runs once, behind every handler, and nothing is logged as an error."""

    class View(Recorder):
        async def on_receive(self, message, opcode):
            self.events.append(message)
            await asyncio.sleep(0)
            await self.send(message, opcode)

    script = b"".join(SCRIPT)
    expected = {ENDS[0]: b"one", ENDS[4]: b"two", ENDS[5]: bytes(200)}
    async with serving(View) as server:
        for step in STEPS:
            async with dial(server) as peer:
                view, ended = await server.views.get()
                await peer.head()
                peer.write(script[:step])
                if step % 2:
                    await asyncio.sleep(0)
                getattr(peer, end)()
                async with asyncio.timeout(9):
                    await ended
            *messages, last = view.events[1:]
            assert view.events[0] == "open"
            assert messages == list(expected.values())[: len(messages)]
            assert last[0] == "close"
            assert view.state is State.CLOSED
            assert view.close_code in (1000, 1006)
            assert (view.close_code == 1000) is (last[1] == b"\x03\xe8")
            if end == "shut":
                # No sent byte is lost, so the number of received ones is known.
                assert messages == [message for size, message in expected.items() if step >= size]
                assert (view.close_code == 1000) is (step >= ENDS[6])
    assert not log()


@pytest.mark.parametrize("end", ["leave", "reset", "shut"])
async def test_a_peer_may_go_during_the_handshake(serving, dial, end, log):
    async with serving(Recorder) as server:
        for size in (0, 1, 20, 100, -1):
            async with dial(server, cut=size) as peer:
                getattr(peer, end)()
        assert server.views.empty()
        async with dial(server) as peer:
            peer.send("next")
            assert (await peer.head())[0] == 101
            assert await peer.message() == "next"
    assert not log()
