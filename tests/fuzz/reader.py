"""`MessageReader`: any stream gives the same on both codecs, however it is cut and whichever way it comes in."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from . import codecs
from .choices import Choices, cut, frame, large, raw

__all__ = ["check", "seeds"]

MAX_SIZES = (2**20, 0, 1, 125, 126, 1000, 65536, 2**63 - 1, 2**64)
MASK = b"\x37\xfa\x21\x3d"


def check(data: bytes) -> None:
    """Reads a stream in six ways on each codec."""
    choices = Choices(data)
    options = choices.number()
    masked, rsv1 = bool(options & 1), bool(options & 2)
    max_size = choices.pick(MAX_SIZES)
    seed = 2 + choices.number()
    stream = choices.stream()
    cuts = [list(cut(stream, way)) for way in (0, 1, seed)]
    expected = None
    for codec in codecs.CODECS:
        for read in (_by_receive, _by_buffer):
            for way, pieces in enumerate(cuts):
                reader = codec.MessageReader(max_size, masked, rsv1)
                messages = read(reader, pieces)
                outcome = messages, reader.error, reader.closed
                if expected is None:
                    expected = outcome
                    _check_messages(codec, messages, max_size, rsv1)
                assert outcome == expected, (codec.__name__, read.__name__, way)


def _check_messages(codec: ModuleType, messages: list[tuple[int, bytes]], max_size: int, rsv1: bool) -> None:
    for kind, payload in messages:
        assert kind in ((1, 2, 8, 9, 10, 0x41, 0x42) if rsv1 else (1, 2, 8, 9, 10)), kind
        slack = (max_size >> 4) + 64 if kind & 0x40 else 0  # for data that does not compress
        assert len(payload) <= (125 if kind & 8 else max_size + slack)
        if kind == 1:
            payload.decode()


def _by_receive(reader: Any, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    messages: list[tuple[int, bytes]] = []
    for piece in pieces:
        messages += reader.receive(piece)
    return messages


def _by_buffer(reader: Any, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    messages: list[tuple[int, bytes]] = []
    spare = bytearray(3000)
    for piece in pieces:
        while piece:
            buffer = memoryview(reader.get_buffer(spare))
            size = min(len(piece), len(buffer))
            buffer[:size] = piece[:size]
            buffer.release()
            messages += reader.buffer_updated(spare, size)
            piece = piece[size:]
    return messages


def seeds() -> Iterator[bytes]:
    """A stream of each kind."""
    text = "Grüße, 世界 😀".encode()
    for options, mask in ((0, None), (1, MASK), (2, None), (3, MASK)):
        start = bytes([options, 0, 1])
        yield start + frame(0x81, text, mask) + frame(0x82, bytes(200), mask) + frame(0x89, b"ping", mask)
        yield start + frame(0x01, text[:11], mask) + frame(0x89, b"", mask) + frame(0x80, text[11:], mask)
        yield start + frame(0xC1, text, mask) + frame(0x88, b"\x03\xe8bye", mask) + frame(0x81, b"late", mask)
        yield start + large(0x02, 70_000, mask=mask) + large(0x80, 300_000, mask=mask) + frame(0x82, b"", mask)
        yield start + large(0x01, 70_000, mask=mask) + frame(0x00, b"", mask) + frame(0x80, text, mask)
        for length in (0, 125, 126, 65535, 65536, 2**20 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
            head = bytes([0x82, 127 | (0x80 if mask else 0)]) + length.to_bytes(8) + (mask or b"")
            yield bytes([options, 7, 1]) + frame(0x02, b"a", mask) + raw(head + text)
            yield bytes([options, 7, 1]) + frame(0x02, b"a", mask) + raw(b"\x00" + head[1:] + text)
            yield start + raw(head + text)
