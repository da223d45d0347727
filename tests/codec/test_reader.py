"""`MessageReader`, on both codecs: streams in, messages out, and what is refused and when."""

import contextlib
import functools
import gc
import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duck.contrib.websockets.codec import pure

from ..support.frames import MASK, frame, header, xor

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MIB = 2**20
UNLIMITED = 2**63 - 1


def fragments(opcode, *payloads, mask=MASK, rsv=0):
    """The frames of one message."""
    last = len(payloads) - 1
    return [
        frame(0 if i else opcode, payload, fin=i == last, rsv=0 if i else rsv, mask=mask)
        for i, payload in enumerate(payloads)
    ]


def server(codec, max_size=MIB, rsv1=False):
    return codec.MessageReader(max_size, True, rsv1)


# Two ways in. Both take the sizes of the pieces that the stream comes in; the last one repeats.


def repeat_last(sizes):
    return itertools.chain(sizes, itertools.repeat(sizes[-1]))


def by_receive(reader, stream, sizes):
    messages, sizes = [], repeat_last(sizes)
    at = 0
    while at < len(stream):
        size = next(sizes)
        messages += reader.receive(stream[at : at + size])
        at += size
    return messages


def by_buffer(reader, stream, sizes):
    messages, sizes = [], repeat_last(sizes)
    spare = bytearray(4096)
    at = 0
    while at < len(stream):
        buffer = memoryview(reader.get_buffer(spare))
        some = stream[at : at + min(next(sizes), len(buffer))]
        buffer[: len(some)] = some
        messages += reader.buffer_updated(spare, len(some))
        at += len(some)
    return messages


WAYS = {
    "whole": functools.partial(by_receive, sizes=[2**30]),
    "by byte": functools.partial(by_receive, sizes=[1]),
    "by seven": functools.partial(by_receive, sizes=[7]),
    "buffer": functools.partial(by_buffer, sizes=[2**30]),
    "buffer, odd": functools.partial(by_buffer, sizes=[3, 5, 70001, 4095, 1]),
}


@pytest.fixture(params=WAYS)
def feed(request):
    """Each way of giving a stream to a reader; gives its messages."""
    return WAYS[request.param]


@pytest.fixture(params=[MASK, None], ids=["server", "client"])
def mask(request):
    """What the peer masks with: a reader at a server expects a mask, at a client none."""
    return request.param


# What is valid


def check(reader, feed, stream, expected, closed=False):
    assert feed(reader, stream) == expected
    assert reader.error == 0
    assert reader.closed is closed


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
def test_whole_messages(codec, feed, mask, messages):
    stream = b"".join(frame(*message, mask=mask) for message in messages)
    check(codec.MessageReader(MIB, mask is not None, False), feed, stream, messages)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [1, 125, 126, 127, 8191, 65535, 65536, 300_001])
def test_payloads_of_every_form_of_length(codec, mask, opcode, size):
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    stream = frame(opcode, payload, mask=mask) + frame(PING, b"after", mask=mask)
    for sizes in ([2**30], [size // 2 + 1], [997], [4, size - 1, 3]):
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


def test_control_frames_between_fragments(codec, feed, mask):
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
def test_nothing_is_read_behind_a_close_frame(codec, feed, payload):
    """Valid or not; not even in the middle of a message."""
    for before, behind in itertools.product(
        (b"", frame(TEXT, b"a", fin=False), frame(TEXT, fin=False)),
        (b"", frame(TEXT, b"late"), frame(CLOSE), b"\xff" * 20),
    ):
        reader = server(codec)
        check(reader, feed, before + frame(CLOSE, payload) + behind, [(CLOSE, payload)], closed=True)
        assert reader.receive(frame(TEXT, b"later")) == []
        assert reader.closed is True


# What is refused


# case: (frames that are fine and what they give, the frame that is not, the error)
REFUSED = {
    "rsv1": (b"", [], b"\xc1\x80", "RESERVED_BITS"),
    "rsv2": (b"", [], b"\xa1\x80", "RESERVED_BITS"),
    "rsv3": (b"", [], b"\x92\x80", "RESERVED_BITS"),
    "opcode 3": (b"", [], b"\x83\x80", "RESERVED_OPCODE"),
    "opcode 7, huge": (b"", [], b"\x87\xff", "RESERVED_OPCODE"),
    "opcode 11": (b"", [], b"\x8b\x80", "RESERVED_OPCODE"),
    "opcode 15": (b"", [], b"\x8f\x80", "RESERVED_OPCODE"),
    "no mask": (b"", [], b"\x81\x00", "FRAME_NOT_MASKED"),
    "fragmented ping": (b"", [], b"\x09\x80", "FRAGMENTED_CONTROL"),
    "long ping": (b"", [], b"\x89\xfe", "LONG_CONTROL"),
    "125 in 2 bytes": (b"", [], b"\x82\xfe\x00\x7d", "LENGTH_NOT_MINIMAL"),
    "65535 in 8 bytes": (b"", [], b"\x82\xff" + (65535).to_bytes(8), "LENGTH_NOT_MINIMAL"),
    "2**63": (b"", [], b"\x82\xff" + (2**63).to_bytes(8), "LENGTH_TOP_BIT"),
    "2**64 - 1": (b"", [], b"\x82\xff" + (2**64 - 1).to_bytes(8), "LENGTH_TOP_BIT"),
    "too big": (b"", [], header(0x82, 1001, MASK), "TOO_BIG"),
    "too big text": (b"", [], header(0x01, 1001, MASK), "TOO_BIG"),
    "far too big": (b"", [], header(0x82, 2**63 - 1, MASK), "TOO_BIG"),
    "too big together": (
        frame(BINARY, b"a" * 600, fin=False) + frame(PING),
        [(PING, b"")],
        header(0x00, 401, MASK),
        "TOO_BIG",
    ),
    "too big together, no sum": (
        frame(BINARY, b"a", fin=False),
        [],
        header(0x80, 2**63 - 1, MASK),
        "TOO_BIG",
    ),
    "continuation of nothing": (b"", [], frame(CONTINUATION), "UNEXPECTED_CONTINUATION"),
    "continuation of a whole message": (
        frame(TEXT, b"a"),
        [(TEXT, b"a")],
        header(0x80, 5, MASK),
        "UNEXPECTED_CONTINUATION",
    ),
    "continuation of a fragmented message": (
        b"".join(fragments(TEXT, b"a", b"b")),
        [(TEXT, b"ab")],
        header(0x00, 5, MASK),
        "UNEXPECTED_CONTINUATION",
    ),
    "text in a message": (frame(TEXT, b"a", fin=False), [], header(0x81, 1, MASK), "UNFINISHED_MESSAGE"),
    "binary in a message": (frame(TEXT, fin=False), [], header(0x02, 1, MASK), "UNFINISHED_MESSAGE"),
    "unfinished before too big": (
        frame(TEXT, fin=False),
        [],
        header(0x82, 1001, MASK),
        "UNFINISHED_MESSAGE",
    ),
    "half a character": (b"", [], frame(TEXT, b"a\xc3"), "INVALID_UTF8"),
    "half a character in the last fragment": (
        frame(TEXT, b"a", fin=False),
        [],
        frame(CONTINUATION, b"\xf0\x9f\xa6"),
        "INVALID_UTF8",
    ),
    "half a character, then an empty end": (
        frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"", fin=False),
        [],
        frame(CONTINUATION, b""),
        "INVALID_UTF8",
    ),
    "surrogates": (b"", [], frame(TEXT, b"\xed\xa0\x80")[:-1], "INVALID_UTF8"),
    "1025 empty fragments": (
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 1023,
        [],
        frame(CONTINUATION, fin=False),
        "TOO_MANY_EMPTY_FRAGMENTS",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(codec, feed, case):
    """At the last byte of the wrong frame, be the payload there or not, and for good."""
    before, messages, wrong, name = REFUSED[case]
    reader = server(codec, max_size=1000)
    check(reader, feed, before + wrong[:-1], messages)
    reader.receive(wrong[-1:])
    error = getattr(codec, name)
    assert reader.error == error
    assert reader.receive(frame(TEXT, b"later")) == []
    assert reader.get_buffer(spare := bytearray(100)) is spare
    assert reader.buffer_updated(spare, 100) == []
    assert (reader.error, reader.closed, reader.control) == (error, False, False)

    reader = server(codec, max_size=1000)
    assert feed(reader, before + wrong + frame(TEXT, b"later")) == messages
    assert reader.error == error


def test_a_mask_is_refused_by_a_client(codec, feed):
    reader = codec.MessageReader(MIB, False, False)
    assert feed(reader, frame(TEXT, b"a", mask=None) + frame(TEXT, b"b")) == [(TEXT, b"a")]
    assert reader.error == codec.FRAME_MASKED


def test_rsv1_is_refused_on_other_frames_than_the_first(codec, feed):
    for wrong in (frame(CONTINUATION, b"b", rsv=4), frame(PING, rsv=4), frame(TEXT, rsv=6)):
        reader = server(codec, rsv1=True)
        assert feed(reader, frame(TEXT, b"a", rsv=4, fin=False) + wrong) == []
        assert reader.error == codec.RESERVED_BITS


@pytest.mark.parametrize("max_size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_the_limit_is_what_may_come(codec, mask, max_size):
    payload = b"a" * max_size
    half = max_size // 2
    for frames in (
        [frame(BINARY, payload, mask=mask)],
        fragments(BINARY, payload[:half], payload[half:], mask=mask),
        fragments(TEXT, b"", payload, b"", mask=mask),
    ):
        reader = codec.MessageReader(max_size, mask is not None, False)
        [(_, received)] = reader.receive(b"".join(frames))
        assert received == payload
        reader.receive(header(0x82, max_size + 1, mask))
        assert reader.error == codec.TOO_BIG


def test_control_frames_do_not_count_against_the_limit(codec):
    reader = server(codec, max_size=4)
    stream = [frame(BINARY, b"abc", fin=False), frame(PING, b"p" * 125), frame(CONTINUATION, b"d")]
    assert reader.receive(b"".join(stream)) == [(PING, b"p" * 125), (BINARY, b"abcd")]


@pytest.mark.parametrize("length", [2**31, 2**32, 2**40, 2**63 - 1])
@pytest.mark.parametrize("first", [0x81, 0x02])
def test_a_promised_length_is_not_allocated(codec, first, length):
    """The compiled codec makes room for 16 MiB ahead, which cost nothing until they are written to."""
    tracemalloc.start()
    try:
        reader = server(codec, max_size=UNLIMITED)
        assert by_receive(reader, header(first, length, MASK), sizes=[1]) == []
        assert by_receive(reader, xor(b"start", MASK), sizes=[5]) == []
        assert by_buffer(reader, bytes(100), sizes=[7]) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.error in (0, codec.INVALID_UTF8)
    assert peak < 2**25


def test_lengths_do_not_overflow_when_they_are_added(codec):
    reader = server(codec, max_size=UNLIMITED)
    reader.receive(frame(BINARY, b"ab", fin=False) + header(0x00, 2**63 - 3, MASK) + b"cd")
    assert reader.error == 0
    reader = server(codec, max_size=UNLIMITED)
    reader.receive(frame(BINARY, b"ab", fin=False) + header(0x00, 2**63 - 2, MASK))
    assert reader.error == codec.TOO_BIG
    reader = server(codec, max_size=2**70)
    reader.receive(header(0x82, 2**63 - 1, MASK))
    assert reader.error == 0


def test_empty_fragments_are_counted_for_each_message(codec):
    reader = server(codec)
    empty = frame(CONTINUATION, fin=False)
    for _ in range(3):
        assert reader.receive(frame(TEXT, fin=False) + empty * 1023) == []
        assert reader.receive(frame(CONTINUATION, b"end")) == [(TEXT, b"end")]
        assert reader.receive(frame(TEXT, fin=False) + empty * 1023 + frame(CONTINUATION, b"a", fin=False)) == []
        assert reader.receive(frame(CONTINUATION)) == [(TEXT, b"a")]
    assert reader.error == 0


def test_many_fragments_of_one_byte(codec):
    payload = bytes(range(256)) * 256
    stream = b"".join(fragments(BINARY, *(payload[i : i + 1] for i in range(65536))))
    assert server(codec).receive(stream) == [(BINARY, payload)]


def test_many_messages(codec):
    reader = server(codec)
    for stream in (frame(TEXT, b"a"), b"".join(fragments(TEXT, b"", b"a", b""))):
        assert reader.receive(stream * 20_000) == [(TEXT, b"a")] * 20_000
    assert (reader.error, reader.closed) == (0, False)


# UTF-8


BAD_TEXTS = {
    "lone continuation": (b"", b"\x80"),
    "overlong 2": (b"", b"\xc0\xaf"),
    "broken 2": (b"\xc3", b"("),
    "overlong 3": (b"\xe0", b"\x9f"),
    "surrogate": (b"\xed", b"\xa0"),
    "broken 3": (b"\xe2\x82", b"\x2f"),
    "overlong 4": (b"\xf0", b"\x8f"),
    "beyond": (b"\xf4", b"\x90"),
    "broken 4": (b"\xf0\x9f\xa6", b"\xc0"),
    "no lead": (b"", b"\xff"),
}


@pytest.mark.parametrize("before", [b"", b"\xc3\xa9" * 20, b"a" * 8190, b"a" * 100_000], ids=len)
@pytest.mark.parametrize("case", BAD_TEXTS)
def test_text_is_refused_at_the_first_byte_that_cannot_be(codec, case, before):
    """Long before the frame is whole, through whichever of the two ways it comes."""
    good, bad = BAD_TEXTS[case]
    payload = before + good + bad
    for feed in (by_receive, by_buffer):
        for first in (0x81, 0x01):
            stream = header(first, 500_000, MASK) + xor(payload, MASK)
            reader = server(codec)
            feed(reader, stream[: -len(bad)], sizes=[2**30])
            assert reader.error == 0
            feed(reader, stream[-len(bad) :][:1], sizes=[1])
            assert reader.error == codec.INVALID_UTF8


def test_characters_split_over_fragments(codec, mask):
    text = "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff".encode()
    for i in range(len(text) + 1):
        for j in range(i, len(text) + 1):
            reader = codec.MessageReader(MIB, mask is not None, False)
            frames = fragments(TEXT, text[:i], text[i:j], text[j:], mask=mask)
            stream = frame(PING, mask=mask).join(frames)
            assert reader.receive(stream)[-1] == (TEXT, text)


def test_characters_over_the_edges_of_what_is_validated_at_once(codec):
    for character in map(str.encode, "\u00e9\u20ac\U0001f986"):
        for shift in range(len(character)):
            text = b"a" * (8192 - shift) + character * 9000
            for feed in (by_receive, by_buffer):
                messages = feed(server(codec), frame(TEXT, text), sizes=[5000, 2**30])
                assert messages == [(TEXT, text)]
            broken = text[:8192] + b"\xff" + text[8193:]
            reader = server(codec)
            assert reader.receive(frame(TEXT, broken)) == []
            assert reader.error == codec.INVALID_UTF8


# Receiving in place


def test_the_message_itself_is_given_while_much_is_missing(codec, mask):
    reader = codec.MessageReader(4 * MIB, mask is not None, False)
    spare = bytearray(1000)
    assert reader.get_buffer(spare) is spare
    reader.receive(header(0x82, MIB, mask))
    assert len(reader.get_buffer(spare)) == 262144
    reader.receive(bytes(MIB - 65537))
    assert len(reader.get_buffer(spare)) == 65537
    reader.receive(bytes(2))
    assert reader.get_buffer(spare) is spare


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("sizes", [[2**30], [65537], [1, 99_999, 2, 70_003, 4094, 4095]], ids=str)
def test_large_payloads_in_place(codec, mask, opcode, sizes):
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
    """As asyncio does where it copies to a BufferedProtocol in a loop."""
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
    """Whatever a caller says, no memory beyond it is read."""
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


def test_buffer_updated_once_for_each_buffer(codec):
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


# The two codecs against each other, and against what was sent


masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([0, 1, 124, 125, 126, 127, 1000]).map("\u00e9".encode().__mul__),
    st.sampled_from([65535, 65536, 65537, 140_000, 300_000])
    .map(b"0123456789abc".__mul__)
    .map(lambda payload: payload[: len(payload) // 13]),
)
sizes = st.lists(st.sampled_from([1, 2, 3, 14, 100, 1000, 4096, 65536, 70_001, 2**30]), min_size=1, max_size=8).map(
    lambda sizes: [*sizes, 50_021]
)


@st.composite
def valid_streams(draw):
    """(stream, its messages) as an honest client sends it."""
    stream, messages = [], []
    for _ in range(draw(st.integers(0, 5))):
        opcode = draw(st.sampled_from([TEXT, BINARY, PING, PONG]))
        payload = draw(st.text(max_size=20).map(str.encode) if opcode == TEXT else payloads)
        if opcode >= CLOSE:
            payload = payload[:125]
            cuts = []
        else:
            cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        pieces = [payload[i:j] for i, j in itertools.pairwise([0, *cuts, len(payload)])]
        for i, piece in enumerate(fragments(opcode, *pieces, mask=draw(masks))):
            if i and draw(st.booleans()):
                stream.append(frame(PING, b"between"))
                messages.append((PING, b"between"))
            stream.append(piece)
        messages.append((opcode, payload))
    return b"".join(stream), messages


@st.composite
def any_frames(draw):
    """A frame that need not be right."""
    return frame(
        draw(st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, BINARY, CLOSE, PING, PONG, 3, 11])),
        draw(payloads),
        fin=draw(st.booleans()),
        rsv=draw(st.sampled_from([0, 0, 0, 4, 2])),
        mask=draw(st.one_of(masks, masks, masks, st.none())),
    )


@st.composite
def broken_streams(draw):
    """Frames, valid ones first, some of whose bytes are flipped, lost or put in."""
    stream = bytearray(draw(valid_streams())[0] + b"".join(draw(st.lists(any_frames(), max_size=3))))
    for kind in draw(st.lists(st.sampled_from(["flip", "lose", "put", "cut"]), max_size=3)):
        at = draw(st.integers(0, min(len(stream), 200)))
        if kind == "flip" and at < len(stream):
            stream[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "lose":
            del stream[at : at + draw(st.integers(1, 10))]
        elif kind == "put":
            stream[at:at] = draw(st.binary(min_size=1, max_size=10))
        elif kind == "cut":
            del stream[at * len(stream) // 200 :]
    return bytes(stream)


@given(valid=valid_streams(), sizes=sizes)
def test_any_valid_stream(codec, valid, sizes):
    stream, expected = valid
    for feed in (by_receive, by_buffer):
        check(server(codec), functools.partial(feed, sizes=sizes), stream, expected)


@given(
    stream=broken_streams(),
    max_size=st.sampled_from([10, 1000, MIB, UNLIMITED]),
    masked=st.sampled_from([True, True, True, False]),
    rsv1=st.booleans(),
    sizes=sizes,
    buffer_sizes=sizes,
)
@settings(max_examples=150)
def test_any_stream_gives_the_same_however_it_comes(codec, stream, max_size, masked, rsv1, sizes, buffer_sizes):
    def outcome(module, feed, sizes):
        reader = module.MessageReader(max_size, masked, rsv1)
        messages = feed(reader, stream, sizes)
        return messages, reader.error, reader.closed

    specified = outcome(pure, by_receive, [2**30])
    assert outcome(codec, by_receive, [2**30]) == specified
    assert outcome(codec, by_receive, sizes) == specified
    assert outcome(codec, by_buffer, buffer_sizes) == specified


# Memory


def test_a_dribbled_message_costs_its_bytes(codec):
    payload = bytes(20_000)
    stream = frame(BINARY, payload)
    tracemalloc.start()
    try:
        reader = server(codec)
        assert by_receive(reader, stream[:-1], sizes=[1]) == []
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(payload) < current < 1.3 * len(payload)
    assert peak < 3 * len(payload)


def test_a_fragment_costs_its_bytes(codec):
    stream = frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"a", fin=False) * 10_000
    tracemalloc.start()
    try:
        reader = server(codec)
        assert reader.receive(stream) == []
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 10_000 < current < 20_000


def test_nothing_is_read_once_memory_has_run_out():
    """In the compiled codec, whose state would not be sound; or else nothing had been read yet."""
    speedups = pytest.importorskip("duck.contrib.websockets._speedups", exc_type=ImportError)
    testcapi = pytest.importorskip("_testcapi")
    messages = [(TEXT, b"t" * 1000), (PING, b"p" * 100), (BINARY, b"b" * 5000)]
    stream = frame(*messages[0]) + frame(PING, b"p" * 100).join(fragments(BINARY, b"b" * 2000, b"b" * 3000))
    failures = 0
    for size in (900, 3500, len(stream)):
        for allocation in range(20):
            reader = server(speedups)
            testcapi.set_nomemory(allocation, allocation + 1)
            try:
                reader.receive(stream[:size])
            except MemoryError:
                failures += 1
                testcapi.remove_mem_hooks()
                expected = [] if reader.closed else messages
                assert reader.receive(stream) == expected
            finally:
                testcapi.remove_mem_hooks()
    assert failures > 10


def read_a_mix(codec):
    """Twenty messages: whole, fragmented, in pieces, in place, refused and abandoned ones."""
    reader, spare = server(codec), bytearray(64)
    text, ping = frame(TEXT, b"a text of thirty-odd characters."), frame(PING, b"ping")
    parts = fragments(BINARY, b"one" * 20, b"", b"three" * 30)
    assert len(reader.receive(text + ping + text)) == 3
    assert len(reader.receive(ping.join(parts))) == 3
    assert len(by_receive(reader, text + ping, [5])) == 2
    large = header(0x82, 70_000, MASK)
    reader.receive(large)
    reader.get_buffer(spare)
    assert len(reader.receive(bytes(70_000))) == 1
    abandoned = [large, text[:9], ping[:9], parts[0] + ping[:-1], parts[0] + large + b"a"]
    refused = [frame(TEXT, b"\xff"), frame(TEXT, b"ab" * 50 + b"\xff")[:-1], b"\xff\xff"]
    for stream in [*abandoned, *refused, b"", text, parts[0]]:
        other = server(codec)
        by_receive(other, stream, [50])
        other.get_buffer(spare)
    for call in (codec.apply_mask, codec.apply_mask_inplace, codec.serialize):
        with contextlib.suppress(TypeError, ValueError, BufferError):
            call(b"data", b"short")
    with contextlib.suppress(ValueError):
        codec.parse_header(b"\xff\xff", True, False, 0)


def test_no_memory_leaks(codec):
    rounds = 400 if codec is pure else 2_000
    for _ in range(50):
        read_a_mix(codec)
    # What grows each time is a leak; what grows once is something else in the process, which others have left behind.
    assert any(growth(codec, rounds) < rounds for _ in range(3))  # the smallest leak is 16 bytes a round


def growth(codec, rounds):
    """Bytes that are allocated after so many rounds and were not before."""
    tracemalloc.start()
    try:
        read_a_mix(codec)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(rounds):
            read_a_mix(codec)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before
