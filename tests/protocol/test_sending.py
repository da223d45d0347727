"""`send` and its relatives: valid messages, their frames, and their order."""

import array
import asyncio
import enum
import random

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, broadcast

from ..support.servers import SLOW
from ..support.views import Quiet

pytestmark = pytest.mark.in_memory

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


class Text(str):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


class Color(enum.StrEnum):
    RED = "red"


# Types of messages

DATA = {
    "str": ("grüße 🦆", "grüße 🦆".encode()),
    "empty str": ("", b""),
    "non-ASCII str": ("ÿ", b"\xc3\xbf"),
    "subclass of str": (Text("x"), b"x"),
    "enum of str": (Color.RED, b"red"),
    "bytes": (b"\x00\x01", b"\x00\x01"),
    "empty bytes": (b"", b""),
    "subclass of bytes": (Octets(b"x"), b"x"),
    "bytearray": (bytearray(b"ab"), b"ab"),
    "empty bytearray": (bytearray(), b""),
    "memoryview": (memoryview(b"abcd")[1:3], b"bc"),
    "strided memoryview": (memoryview(b"a1b2c3")[::2], b"abc"),
    "reversed memoryview": (memoryview(b"abc")[::-1], b"cba"),
    "memoryview of shorts": (memoryview(b"abcd").cast("H"), b"abcd"),
    "two-dimensional memoryview": (memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
    "array of doubles": (array.array("d", [1.5, -2.0]), array.array("d", [1.5, -2.0]).tobytes()),
    "empty array": (array.array("i"), b""),
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_every_bytes_like_object_is_sent_as_its_bytes(connect, kind, opcode):
    data, expected = DATA[kind]
    if opcode == TEXT and kind == "array of doubles":
        pytest.skip("is no text")

    async with connect(Quiet) as session:
        await session.view.send(data, opcode)
        frame = await session.peer.frame()
        assert (frame.opcode, frame.fin, frame.payload) == (opcode, True, expected)


async def test_text_is_the_default(connect):
    async with connect(Quiet) as session:
        await session.view.send(b"x")
        assert await session.peer.message() == "x"


async def test_each_kind_of_message_has_a_method(connect):
    async with connect(Quiet) as session:
        view = session.view
        await view.send_text("text")
        await view.send_binary(b"binary")
        await view.send_json({"a": [1, None, "é"]})
        await view.send_json([])
        await view.send_ping(b"ping")
        await view.send_ping()
        await view.send_pong("pong")
        await view.send(b"?", PING)
        await view.send_frame(Frame(BINARY, payload=b"frame"))
        frames = [await session.peer.frame() for _ in range(9)]
        assert [(frame.opcode, frame.payload) for frame in frames] == [
            (TEXT, b"text"),
            (BINARY, b"binary"),
            (TEXT, b'{"a": [1, null, "\\u00e9"]}'),
            (TEXT, b"[]"),
            (PING, b"ping"),
            (PING, b""),
            (PONG, b"pong"),
            (PING, b"?"),
            (BINARY, b"frame"),
        ]


async def test_invalid_messages_are_refused(connect):
    """The error is that of the caller, and the connection continues."""
    async with connect(Quiet) as session:
        view = session.view
        for data in (5, 1.5, None, True, object(), print):
            with pytest.raises(TypeError, match=f"not {type(data).__name__}"):
                await view.send(data)
        with pytest.raises(TypeError, match="use send_json"):
            await view.send({"a": 1})
        with pytest.raises(UnicodeEncodeError):
            await view.send("\ud800")
        with pytest.raises(TypeError, match="not JSON serializable"):
            await view.send_json({"a": object()})
        for opcode in (3, 7, 11, 15, 16, 129, -1):
            with pytest.raises(ValueError, match="opcode"):
                await view.send("x", opcode)
        await view.send("still open")
        assert await session.peer.message() == "still open"


async def test_an_opcode_is_an_integer(connect):
    """No codec truncates a float: 1.5 is no text message."""

    class Index:
        def __index__(self):
            return 2

    async with connect(Quiet) as session:
        view, peer = session.view, session.peer

        async def to_many(data, opcode):
            broadcast([view], data, opcode)

        for send in (view.send, to_many):
            for data in ("text", b"bytes", bytearray(b"array")):
                for wrong in (1.0, 1.5, None, "1", 1j):
                    with pytest.raises(TypeError, match="an opcode is an OpCode or its number"):
                        await send(data, wrong)
                for wrong in (2**70, -(2**70)):
                    with pytest.raises(ValueError, match="opcode"):
                        await send(data, wrong)
            for opcode, received in (
                (True, "text"),
                (enum.IntEnum("Kind", "TEXT").TEXT, "text"),
                (Index(), b"text"),
            ):
                await send("text", opcode)
                assert await peer.message() == received


async def test_a_message_does_not_begin_with_a_continuation(connect):
    async with connect(Quiet) as session:
        with pytest.raises(RuntimeError, match="no message to continue"):
            await session.view.send("x", CONTINUATION)
        assert await session.peer.settled() == []


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_a_control_frame_has_at_most_125_bytes(connect, opcode):
    async with connect(Quiet) as session:
        view = session.view
        for send in (view.send, lambda data, opcode: view.send_frame(Frame(opcode, payload=data))):
            await send(bytes(125), opcode)
            with pytest.raises(ValueError, match="125 bytes"):
                await send(bytes(126), opcode)
            assert len((await session.peer.frame()).payload) == 125
        with pytest.raises(ValueError, match="125 bytes"):
            await view.send_ping("é" * 63)
        with pytest.raises(ValueError, match="final"):
            await view.send_frame(Frame(opcode, fin=False))
        assert await session.peer.settled() == []


async def test_sent_data_may_be_changed_afterwards(connect):
    async with connect(Quiet, **SLOW) as session:
        data = bytearray(b"a" * 900_000)
        sending = asyncio.ensure_future(session.view.send_binary(data))
        data[:] = b"b" * len(data)
        del data[10:]
        assert await session.peer.message() == b"a" * 900_000
        await sending


# Size


@pytest.mark.parametrize(("size", "sizes"), [(99, [99]), (100, [100]), (101, [100, 1]), (300, [100] * 3), (0, [0])])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_message_larger_than_a_frame_may_be_leaves_in_fragments(connect, size, sizes, opcode):
    class View(Quiet):
        MAX_FRAME_SIZE = 100

    async with connect(View) as session:
        payload = bytes(i % 128 for i in range(size))
        await session.view.send(payload, opcode)
        frames = [await session.peer.frame() for _ in sizes]
        assert [len(frame.payload) for frame in frames] == sizes
        assert b"".join(frame.payload for frame in frames) == payload
        assert [frame.fin for frame in frames] == [False] * (len(sizes) - 1) + [True]
        assert [frame.opcode for frame in frames] == [opcode] + [CONTINUATION] * (len(sizes) - 1)
        assert await session.peer.settled() == []


@pytest.mark.parametrize("size", [None, 2**20])
async def test_large_messages_leave_in_frames_of_the_allowed_size(connect, size):
    class View(Quiet):
        MAX_FRAME_SIZE = size

    async with connect(View) as session:
        payload = random.Random(1).randbytes(5_000_001)
        sending = asyncio.ensure_future(session.view.send_binary(payload))
        frames = []
        while not frames or not frames[-1].fin:
            frames.append(await session.peer.frame())
        await sending
        assert b"".join(frame.payload for frame in frames) == payload
        assert len(frames) == (1 if size is None else 5)


# Once it is closing


@pytest.mark.parametrize("end", ["ours", "theirs", "breach", "gone"])
async def test_sending_to_a_closed_connection_raises_its_code_and_reason(connect, end):
    class View(Quiet):
        async def on_close(self, frame=None):
            for send in (self.send, self.send_text, self.send_binary, self.send_json, self.send_ping, self.send_pong):
                with pytest.raises(ConnectionClosed) as caught:
                    await send("x")
                assert caught.value.code == self.close_code
                assert caught.value.reason == self.close_reason
            with pytest.raises(ConnectionClosed):
                await self.send_frame(Frame(TEXT))
            with pytest.raises(ConnectionClosed):
                await self.send(iter("x"))
            await self.send_close()  # is no message, and is done already
            self.tried = True

    async with connect(View) as session:
        view, peer = session.view, session.peer
        if end == "ours":
            await view.send_close(4000, "ours")
            with pytest.raises(ConnectionClosed, match="4000 ours"):
                await view.send("x")
            peer.close(4000, "ours")
        elif end == "theirs":
            peer.close(4001, "theirs")
        elif end == "breach":
            peer.write(b"\xff\xff")
            await peer.rest()
            with pytest.raises(ConnectionClosed, match="1002 reserved bits set"):
                await view.send("x")
        peer.shut()
        await session.ended()
        assert view.tried
        expected = {"ours": 4000, "theirs": 4001, "breach": 1002, "gone": 1006}
        assert view.close_code == expected[end]


async def test_each_wait_for_a_message_that_is_cut_off_has_the_error_of_the_network(connect):
    async def parts():
        yield "begun"
        await asyncio.Event().wait()

    async with connect(Quiet) as session:
        sending = session.view.send(parts())
        await session.peer.frame()
        session.peer.reset()
        await session.ended()
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as caught:
                await sending
            assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536, -1])
async def test_an_invalid_close_code_is_refused_and_the_connection_stays_open(connect, code):
    async with connect(Quiet) as session:
        with pytest.raises(ValueError, match=f"close code {code} cannot be sent"):
            await session.view.send_close(code)
        await session.view.send("still open")
        assert await session.peer.message() == "still open"


@pytest.mark.parametrize("way", ["send_close", "send", "send_frame"])
async def test_a_close_frame_may_be_sent_by_each_method(connect, way):
    async with connect(Quiet) as session:
        view = session.view
        if way == "send_close":
            await view.send_close(4000, "bye")
        elif way == "send":
            await view.send(b"\x0f\xa0bye", CLOSE)
        else:
            await view.send_frame(Frame(CLOSE, payload=b"\x0f\xa0bye"))
        assert await session.peer.closing() == (4000, "bye")
        await view.send_close(4001)
        session.peer.close(4000)
        assert await session.peer.rest() == []
        await session.ended()


@pytest.mark.parametrize("way", ["send", "send_frame"])
async def test_a_close_frame_may_lack_a_code(connect, way):
    async with connect(Quiet) as session:
        view = session.view
        if way == "send":
            await view.send(b"", CLOSE)
        else:
            await view.send_frame(Frame(CLOSE))
        assert await session.peer.closing() == (1005, "")


async def test_a_frame_that_cannot_be_sent_as_it_is_is_refused(connect):
    """Reserved bits belong to extensions, which set them when they encode a message (RFC 6455, section 5.2)."""
    async with connect(Quiet) as session:
        view = session.view
        for opcode in (TEXT, PING, CLOSE):
            for bit in ("rsv1", "rsv2", "rsv3"):
                with pytest.raises(ValueError, match="the extensions of the connection"):
                    await view.send_frame(Frame(opcode, **{bit: True}))
        with pytest.raises(ValueError, match="a close frame is final"):
            await view.send_frame(Frame(CLOSE, fin=False))
        with pytest.raises(TypeError, match="a Frame, not str"):
            await view.send_frame("text")
        assert await session.peer.settled() == []


async def test_a_frame_is_sent_as_it_was_at_the_call(connect):
    async with connect(Quiet) as session:
        view = session.view
        await view.send_frame(Frame(BINARY, fin=False))
        frame = Frame(BINARY)
        frame.payload = bytearray(b"queued")
        sending = asyncio.ensure_future(view.send_frame(frame))
        frame.payload[:] = b"altered"
        await view.send_frame(Frame(CONTINUATION, fin=True))
        await sending
        assert [(await session.peer.frame()).payload for _ in range(3)] == [b"", b"", b"queued"]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        *((payload, "cannot be sent") for payload in (b"\x03", b"\x03\xed", b"\x03\xee", b"\x00\x00why")),
        (b"\x03\xe8\xff", "can't decode byte 0xff"),
        (b"\x03\xe8" + b"x" * 124, "at most 125 bytes, not 126"),
    ],
)
async def test_an_invalid_close_frame_is_refused(connect, payload, words):
    async with connect(Quiet) as session:
        for send in (session.view.send, lambda data, opcode: session.view.send_frame(Frame(opcode, payload=data))):
            with pytest.raises(ValueError, match=words):
                await send(payload, CLOSE)
        assert await session.peer.settled() == []


# Text


BROKEN = b"\x89PNG\r\n"


@pytest.mark.parametrize("by_frame", [False, True])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, Octets])
async def test_bytes_that_are_no_text_do_not_leave_as_text(connect, kind, by_frame):
    class ByFrame(Quiet):
        async def send_frame(self, frame):
            await super().send_frame(frame)

    async with connect(ByFrame if by_frame else Quiet) as session:
        view = session.view
        for send in (view.send, view.send_text):
            for broken in (BROKEN, "é".encode()[:1], b"x" * 5000 + b"\xff", b"\xed\xa0\x80"):
                with pytest.raises(ValueError, match="send_binary"):
                    await send(kind(broken))
        if not by_frame:
            with pytest.raises(ValueError, match="send_binary"):
                await view.send_frame(Frame(TEXT, payload=BROKEN))
        await view.send_binary(kind(BROKEN))
        await view.send(kind("é".encode()))
        assert await session.peer.message() == BROKEN
        assert await session.peer.message() == "é"


async def test_a_text_in_parts_may_be_cut_inside_a_character(connect):
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        await view.send([b"gr\xc3", b"\xbc\xc3", b"", b"\x9fe"])
        assert b"".join([(await peer.frame()).payload for _ in range(5)]).decode() == "grüße"
        await view.send_frame(Frame(TEXT, False, b"\xc3"))
        await view.send_frame(Frame(CONTINUATION, True, b"\xbc"))
        assert b"".join([(await peer.frame()).payload for _ in range(2)]).decode() == "ü"


@pytest.mark.parametrize("parts", [[b"ok", BROKEN], [b"ok\xc3"], [b"ok\xc3", "\xbc"]])
async def test_parts_that_are_no_text_end_the_connection(connect, parts):
    """A message that has begun cannot be finished; its invalid part does not leave."""
    async with connect(Quiet) as session:
        with pytest.raises(ValueError, match="send_binary"):
            await session.view.send(iter(parts))
        frames = [await session.peer.frame()]
        while frames[-1].opcode != CLOSE:
            frames.append(await session.peer.frame())
        assert frames[-1].payload[:2] == (1011).to_bytes(2)
        assert not any(frame.fin for frame in frames[:-1])


async def test_a_fragment_that_is_no_text_is_refused(connect):
    async with connect(Quiet) as session:
        view = session.view
        await view.send_frame(Frame(TEXT, False, b"\xc3"))
        with pytest.raises(ValueError, match="send_binary"):
            await view.send_frame(Frame(CONTINUATION, True, b"x"))
        await view.send_frame(Frame(CONTINUATION, True, b"\xbc"))
        await view.send_frame(Frame(BINARY, False, BROKEN))
        await view.send_frame(Frame(CONTINUATION, True, BROKEN))
        frames = [await session.peer.frame() for _ in range(4)]
        assert b"".join(frame.payload for frame in frames) == "ü".encode() + BROKEN * 2
