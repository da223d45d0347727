"""The codec's functions and `FrameWriter`: equal results and errors on both codecs; written frames are read back."""

from collections.abc import Callable, Iterator
from typing import Any

from . import codecs
from .choices import Choices, cut

__all__ = ["check", "seeds"]

LENGTHS = (0, 1, 125, 126, 127, 65535, 65536, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -1)


def check(data: bytes) -> None:
    """One of the functions, on each codec."""
    choices = Choices(data)
    case = choices.pick((_mask, _utf8, _parse, _build, _write))(choices)
    expected, *others = [_outcome(case, codec) for codec in codecs.CODECS]
    for outcome in others:
        assert outcome == expected, (case.__qualname__, expected, outcome)


def _outcome(case: Callable[[Any], Any], codec: Any) -> Any:
    try:
        return case(codec)
    except (BufferError, TypeError, ValueError) as error:
        return type(error), str(error)


def _mask(choices: Choices) -> Callable[[Any], Any]:
    key = choices.take(choices.pick((4, 4, 4, 3, 5, 0)))
    offset = choices.number(choices.pick((1, 7)))
    data = choices.rest() * choices.pick((1, 50))

    def case(codec: Any) -> Any:
        masked = codec.apply_mask(data, key, offset)
        assert codec.apply_mask(masked, key, offset) == data
        assert masked == bytes(byte ^ key[(at + offset) % 4] for at, byte in enumerate(data))
        return masked

    return case


def _utf8(choices: Choices) -> Callable[[Any], Any]:
    seed, stretch = 1 + choices.number(), choices.pick((0, 15, 64, 200))
    data = b"a" * stretch + choices.rest() + b"a" * choices.pick((0, stretch))
    try:
        data.decode()
        expected = 0
    except UnicodeDecodeError as error:
        expected = None if error.reason == "unexpected end of data" else 1

    def case(codec: Any) -> Any:
        states = []
        state = 0
        for piece in cut(data, seed):
            state = codec.utf8_state(piece, state)
            states.append(state)
        assert codec.utf8_state(data) == state
        assert state > 1 if expected is None else state == expected, (state, expected)
        return states

    return case


def _parse(choices: Choices) -> Callable[[Any], Any]:
    options = choices.number()
    max_size = choices.pick((2**63 - 1, 2**64, 0, 125, 65535))
    head = choices.take(16)

    def case(codec: Any) -> Any:
        found = codec.parse_header(head, bool(options & 1), bool(options & 2), max_size)
        if found is not None:
            size, first, length, mask = found
            assert codec.build_header(first, length, mask if options & 1 else None) == head[:size]
        return found

    return case


def _build(choices: Choices) -> Callable[[Any], Any]:
    first = choices.pick((choices.number(), 256, -1))
    length = choices.pick((choices.number(9), *LENGTHS))
    mask = choices.pick((None, choices.take(4)))
    return lambda codec: codec.build_header(first, length, mask)


def _write(choices: Choices) -> Callable[[Any], Any]:
    frames = []
    client = choices.pick((False, True))
    while choices:
        first = choices.number()
        payload = choices.take(choices.number()) * choices.pick((1, 40, 500))
        frames.append((first, choices.pick((bytes, bytearray, memoryview))(payload), choices.pick((False, True))))

    def case(codec: Any) -> Any:
        writer = codec.MaskingWriter(lambda size: bytes(range(size))) if client else codec.FrameWriter()
        written, taken, states = b"", b"", []
        for number, (first, payload, take) in enumerate(frames):
            mask = bytes(range(256))[4 * number % 256 :][:4] if client else None
            writer.write(first, payload)
            written += codec.serialize(first, payload, mask)
            states.append((writer.closed, writer.fragmenting, bool(writer.size)))
            if take:
                taken += b"".join(writer.take())
        assert taken + b"".join(writer.take()) == written
        assert writer.size == 0
        return written, states

    return case


def seeds() -> Iterator[bytes]:
    """Some for each of the functions."""
    text = "Grüße, 世界 😀".encode()
    for function in range(5):
        yield bytes([function])
        yield bytes([function]) + text
        yield bytes([function, 0, 1, 2, 3, 4, 0, 3]) + text
        yield bytes([function, 0, 0x81, 0x05]) + bytes(14) + text
        yield bytes([function, 1, 0x81, 0xFF]) + (2**63 - 1).to_bytes(8) + b"mask" + text
        yield bytes([function, 1, 0x82, 0xFE, 0, 126]) + b"mask" + text
    for bad in (b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xff", b"\xf0\x9f\x98"):
        for stretch in range(4):
            yield bytes([1, 1, stretch]) + text + bad + text
