"""Arguments at the edges of their types: both codecs give the same result, or raise the same kind of error."""

import array
import ctypes
import decimal
import enum
import mmap

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from duck.contrib.websockets.codec import pure

try:
    from duck.contrib.websockets import _speedups
except ImportError:
    pytest.skip("the compiled codec does not load", allow_module_level=True)

MASK = b"\x02\x81\x21\x3d"


class Whole(int):
    pass


class Kind(enum.IntEnum):
    TEXT = 1


class Octets(bytes):
    pass


class Array(bytearray):
    pass


class Index:
    def __index__(self):
        return 2


class Failing:
    def __index__(self):
        raise ZeroDivisionError

    def __bool__(self):
        raise ZeroDivisionError


def released():
    view = memoryview(b"abcd")
    view.release()
    return view


def mapped():
    memory = mmap.mmap(-1, 4)
    memory[:] = b"\x81\x02ab"
    return memory


numbers = st.one_of(
    st.integers(-2, 0x200),
    st.sampled_from([2**n + d for n in (15, 16, 31, 32, 62, 63, 64, 70) for d in (-1, 0, 1)]),
    st.sampled_from([-(2**n) for n in (31, 63, 70)]),
    st.sampled_from([0.0, 1.0, 1.5, float("nan"), True, Whole(129), Kind.TEXT, Index(), Failing(), None, "1", 1j]),
    st.sampled_from([decimal.Decimal(1), [], 0xBF8001, 0xBF8002, 0xBF8003, 0xBFA002, 0x9F8002, 0xBF9003, 0x8F8003]),
)

octets = st.one_of(
    st.sampled_from([b"\x81\x02ab", b"\x81\x82\x01\x02\x03\x04ab", "é€😀".encode()]), st.binary(max_size=20)
)

# Each makes a new object, because calls may change it.
KINDS = [
    bytes,
    bytearray,
    Octets,
    Array,
    memoryview,
    lambda data: memoryview(bytearray(data)),
    lambda data: memoryview(data)[::2],
    lambda data: memoryview(data)[::-1],
    lambda data: memoryview(data).cast("c"),
    lambda data: memoryview(data).cast("?"),
    lambda data: memoryview(data * 2).cast("H"),
    lambda data: memoryview(data * 2).cast("B", (2, len(data))) if data else memoryview(b""),
    lambda data: array.array("H", data * 2),
    lambda data: array.array("d", data * 8),
    lambda data: (ctypes.c_uint16 * len(data)).from_buffer_copy(data * 2),
    lambda data: mapped(),
    lambda data: released(),
    lambda data: data.decode("latin-1"),
    list,
    len,
    lambda data: None,
]
buffers = st.builds(lambda kind, data: lambda: kind(data), st.sampled_from(KINDS), octets)
masks = st.one_of(st.just(lambda: MASK), st.just(lambda: None), buffers)
flags = st.one_of(st.booleans(), st.sampled_from([0, 2, None, [], "x", 1.5, Failing()]))


def outcome(call, *args):
    """Returns the type and the value of a result, and the content of the first argument; or the type of the error."""
    try:
        result = call(*args)
    except Exception as error:
        return type(error)
    return type(result), result, bytes(args[0]) if args and isinstance(args[0], bytearray) else None


def written(writer, first, payload):
    writer.write(first, payload)
    return writer.take(), writer.size, writer.closed, writer.fragmenting


def read(codec, *args):
    reader = codec.MessageReader(*args)
    return reader.receive(b"\x81\x02ab\x01\x01a\x80\x00"), reader.error, reader.closed, reader.control


def received(codec, data):
    reader = codec.MessageReader(100, False, False)
    return reader.receive(data), reader.error, reader.closed, reader.control


@given(numbers, numbers, buffers, masks, flags, flags)
@example(1.5, 1.5, lambda: b"abc", lambda: MASK, "x", None)
def test_both_codecs_take_and_refuse_the_same_arguments(number, other, buffer, mask, flag, another):
    def compare(call):
        assert call(_speedups) == call(pure)

    compare(lambda codec: outcome(codec.apply_mask, buffer(), mask(), 1))
    compare(lambda codec: outcome(codec.apply_mask, b"abc", MASK, number))
    compare(lambda codec: outcome(codec.utf8_state, buffer(), 0))
    compare(lambda codec: outcome(codec.utf8_state, b"\x80", number))
    compare(lambda codec: outcome(codec.parse_header, buffer(), flag, another, 100))
    compare(lambda codec: outcome(codec.parse_header, b"\x81\x02", False, another, number))
    compare(lambda codec: outcome(codec.build_header, number, other, mask()))
    compare(lambda codec: outcome(codec.serialize, number, b"abc", mask()))
    compare(lambda codec: outcome(codec.serialize, 0x81, buffer(), mask()))
    compare(lambda codec: outcome(written, codec.FrameWriter(), number, b"abc"))
    compare(lambda codec: outcome(written, codec.FrameWriter(), 0x81, buffer()))
    compare(lambda codec: outcome(written, codec.MaskingWriter(bytes), number, b"abc"))
    compare(lambda codec: outcome(written, codec.MaskingWriter(bytes), 0x81, buffer()))
    compare(lambda codec: outcome(read, codec, number, flag, another))
    compare(lambda codec: outcome(read, codec, 100, False, False, flag, another))
    compare(lambda codec: outcome(received, codec, buffer()))
