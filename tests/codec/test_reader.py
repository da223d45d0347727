"""`MessageReader`, on both codecs: streams in, messages out."""

import functools
import itertools

import pytest

from ..support.frames import MASK, frame, header
from .streams import BINARY, CLOSE, CONTINUATION, MIB, PING, PONG, TEXT, by_buffer, by_receive, check, fragments, server

# Valid streams


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [(TEXT, b"")],
        [(BINARY, b"")],
        [(PING, b""), (PONG, b"")],
        [(TEXT, "h\u00e9llo \U0001f986".encode()), (BINARY, bytes(range(256)))],
        [(PING, b"p" * 125), (TEXT, b"t"), (PONG, b"\xff" * 125)],
        [(BINARY, bytes([i]) * i) for i in range(140)],
    ],
    ids=["none", "empty text", "empty binary", "empty control", "data", "control", "many"],
)
def test_whole_messages_are_returned_in_order(codec, feed, mask, messages):
    stream = b"".join(frame(*message, mask=mask) for message in messages)
    check(codec.MessageReader(MIB, mask is not None, False), feed, stream, messages)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [1, 125, 126, 127, 8191, 65535, 65536, 300_001])
def test_payloads_of_every_form_of_length_are_read(codec, mask, opcode, size):
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    stream = frame(opcode, payload, mask=mask) + frame(PING, b"after", mask=mask)
    for sizes in ([2**30], [size // 2 + 1], [997], [4, size - 1, max(3, size // 100)]):
        for feed in (by_receive, by_buffer):
            reader = codec.MessageReader(MIB, mask is not None, False)
            assert feed(reader, stream, sizes=sizes) == [(opcode, payload), (PING, b"after")]


def test_fragments_are_joined(codec, feed, mask):
    stream = b"".join(
        [
            *fragments(TEXT, b"one, ", b"two", mask=mask),
            *fragments(BINARY, b"", b"three", b"", b"", b"four", b"", mask=mask),
            *fragments(BINARY, b"", b"", b"", mask=mask),
            *fragments(TEXT, b"x" * 70000, b"y" * 700, b"z", mask=mask),
            frame(TEXT, b"end", mask=mask),
        ]
    )
    expected = [
        (TEXT, b"one, two"),
        (BINARY, b"threefour"),
        (BINARY, b""),
        (TEXT, b"x" * 70000 + b"y" * 700 + b"z"),
        (TEXT, b"end"),
    ]
    check(codec.MessageReader(MIB, mask is not None, False), feed, stream, expected)


def test_control_frames_between_fragments_are_returned_first(codec, feed, mask):
    one, two, three = fragments(TEXT, "\u00e9".encode()[:1], "\u00e9".encode()[1:], b"!", mask=mask)
    ping, empty = frame(PING, b"between", mask=mask), frame(PONG, mask=mask)
    stream = one + ping + empty + two + ping + three + ping
    expected = [
        (PING, b"between"),
        (PONG, b""),
        (PING, b"between"),
        (TEXT, "\u00e9!".encode()),
        (PING, b"between"),
    ]
    check(codec.MessageReader(MIB, mask is not None, False), feed, stream, expected)


def test_rsv1_is_added_to_the_opcode_and_its_text_not_validated(codec, feed):
    stream = b"".join(
        [
            frame(TEXT, b"\xff\xfe", rsv=4),
            *fragments(TEXT, b"\xff", b"\xfe", rsv=4),
            *fragments(BINARY, b"\xff", b"", rsv=4),
            frame(TEXT, b"plain"),
        ]
    )
    rsv1 = 0b01000000
    expected = [
        (rsv1 | TEXT, b"\xff\xfe"),
        (rsv1 | TEXT, b"\xff\xfe"),
        (rsv1 | BINARY, b"\xff"),
        (TEXT, b"plain"),
    ]
    check(server(codec, rsv1=True), feed, stream, expected)


def test_results_are_bytes_of_their_own(codec):
    reader = server(codec)
    received = bytearray(frame(BINARY, b"data") + frame(PING, b"ping"))
    messages = reader.receive(memoryview(received))
    received[:] = bytes(len(received))
    received.append(0)  # it is not exported any more
    assert messages == [(BINARY, b"data"), (PING, b"ping")]
    assert all(type(payload) is bytes for _, payload in messages)


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_receive_takes_bytes_likes(codec, convert):
    assert server(codec).receive(convert(frame(TEXT, b"data"))) == [(TEXT, b"data")]


@pytest.mark.parametrize("data", ["text", None, 5, [1]])
def test_receive_refuses_other_arguments(codec, data):
    with pytest.raises(TypeError):
        server(codec).receive(data)


def test_receive_refuses_strided_views(codec):
    with pytest.raises(BufferError):
        server(codec).receive(memoryview(bytes(8))[::2])


def test_control_tells_of_the_last_call_only(codec):
    reader = server(codec)
    assert reader.control is False
    for data, control in [
        (frame(TEXT, b"a"), False),
        (frame(PING) + frame(TEXT, b"a"), True),
        (frame(TEXT, b"a"), False),
        (frame(PING, b"half")[:-1], False),
        (frame(PING, b"half")[-1:], True),
        (b"", False),
        (frame(TEXT, b"a", fin=False), False),
        (frame(PONG), True),
        (frame(CONTINUATION, b"b"), False),
        (frame(CLOSE), True),
        (frame(PING), False),
    ]:
        reader.receive(data)
        assert reader.control is control


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8bye"])
def test_bytes_behind_a_close_frame_are_not_read(codec, feed, payload):
    """This holds for valid and invalid bytes, and within a fragmented message."""
    for before, behind in itertools.product(
        (b"", frame(TEXT, b"a", fin=False), frame(TEXT, fin=False)),
        (b"", frame(TEXT, b"late"), frame(CLOSE), b"\xff" * 20),
    ):
        reader = server(codec)
        check(reader, feed, before + frame(CLOSE, payload) + behind, [(CLOSE, payload)], closed=True)
        assert reader.receive(frame(TEXT, b"later")) == []
        assert reader.closed is True


# Receiving in place


def test_the_message_itself_is_given_while_much_is_missing(codec, mask):
    reader = codec.MessageReader(4 * MIB, mask is not None, False)
    spare = bytearray(1000)
    assert reader.get_buffer(spare) is spare
    reader.receive(header(0x82, MIB, mask))
    assert len(reader.get_buffer(spare)) == (MIB if mask is None else 262144)
    reader.receive(bytes(MIB - 65537))
    assert len(reader.get_buffer(spare)) == 65537
    reader.receive(bytes(2))
    assert reader.get_buffer(spare) is spare
    reader.receive(bytes(65535))
    reader.receive(header(0x81, MIB, mask))
    assert len(reader.get_buffer(spare)) == 262144  # text is checked while it is in the cache


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("sizes", [[2**30], [65537], [1, 99_999, 2, 70_003, 4094, 4095]], ids=str)
def test_large_payloads_are_received_in_place(codec, mask, opcode, sizes):
    text = "0123456789 \u00e9\u20ac\U0001f986".encode()
    small, large, larger = text, text * 20_000, text * 150_000
    stream = b"".join(
        [
            frame(opcode, large, mask=mask),
            frame(PING, b"between", mask=mask).join(
                fragments(opcode, large[:3], large[3:], larger[:-1], larger[-1:], small, mask=mask)
            ),
            frame(opcode, small, mask=mask),
        ]
    )
    expected = [
        (opcode, large),
        *[(PING, b"between")] * 4,
        (opcode, large + larger + small),
        (opcode, small),
    ]
    for feed in (by_receive, by_buffer):
        check(
            codec.MessageReader(8 * MIB, mask is not None, False),
            functools.partial(feed, sizes=sizes),
            stream,
            expected,
        )


def test_the_last_view_may_be_held_while_the_next_is_asked_for(codec):
    """asyncio does so when it copies to a BufferedProtocol in a loop."""
    payload = bytes(range(256)) * 8192
    stream = frame(BINARY, payload)
    reader, spare, held, messages = server(codec, 4 * MIB), bytearray(1000), [], []
    while stream:
        held.append(memoryview(reader.get_buffer(spare)))
        some = stream[: len(held[-1])]
        held[-1][: len(some)] = some
        stream = stream[len(some) :]
        messages += reader.buffer_updated(spare, len(some))
    assert messages == [(BINARY, payload)]


def test_a_size_is_held_to_the_buffer(codec):
    """A wrong size from the caller leads to no read beyond the memory."""
    spare = bytearray(frame(TEXT, b"a"))
    assert server(codec).buffer_updated(spare, -1) == []
    assert server(codec).buffer_updated(spare, 0) == []
    assert server(codec).buffer_updated(spare, 10**9) == [(TEXT, b"a")]
    reader = server(codec, max_size=4 * MIB)
    assert by_buffer(reader, header(0x82, 4 * MIB, MASK) + bytes(2 * MIB), sizes=[2**30]) == []
    for size in (-1, 0, 10**9):
        given = len(reader.get_buffer(spare))
        assert reader.buffer_updated(spare, size) == []
    assert reader.receive(bytes(2 * MIB - given - 1)) == []
    [(_, payload)] = reader.receive(bytes(1))
    assert len(payload) == 4 * MIB


def test_a_buffer_is_used_for_one_read(codec):
    """A second time, or after receive(), the bytes are those of `spare`."""
    spare = bytearray(frame(PING, b"spare"))
    for come in (by_receive, by_buffer):
        reader = server(codec)
        reader.receive(header(0x82, 65536, MASK))
        reader.get_buffer(spare)
        come(reader, bytes(65536), sizes=[65536])
        assert reader.buffer_updated(spare, len(spare)) == [(PING, b"spare")]


@pytest.mark.parametrize("spare", [None, b"bytes", "text"])
def test_spare_is_a_bytearray(spare):
    speedups = pytest.importorskip("duck.contrib.websockets._speedups", exc_type=ImportError)
    with pytest.raises(TypeError):
        server(speedups).get_buffer(spare)
    with pytest.raises(TypeError):
        server(speedups).buffer_updated(spare, 0)
