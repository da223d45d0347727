"""Turns the bytes of a fuzzer into a case: any bytes are valid, and few others give the same case."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import TypeVar

from duck.contrib.websockets.codec import pure

__all__ = ["Choices", "cut", "frame", "large", "raw"]

T = TypeVar("T")

# Sizes of generated payloads, around those at which the codec changes its method; and of a stream, about.
_SIZES = (126, 1000, 4096, 8192, 65_536, 70_000, 300_000)
_MOST = 800_000


class Choices:
    """Reads choices from bytes; where they are used up, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next bytes: at most `size`, fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def number(self, size: int = 1) -> int:
        """A number of `size` bytes."""
        return int.from_bytes(self.take(size))

    def pick(self, options: Sequence[T]) -> T:
        """One of a few."""
        return options[self.number() % len(options)]

    def rest(self) -> bytes:
        """The remaining bytes."""
        return self.take(len(self._data))

    def piece(self) -> bytes:
        """A piece of a WebSocket stream: raw bytes, a frame, a large frame, or a possible header."""
        kind = self.number() % 4
        if kind == 0:
            return self.take(self.number())
        if kind == 1:
            first, payload = self.number(), self.take(self.number())
            return pure.serialize(first, payload, self._mask())
        if kind == 2:
            first, size, fill = self.number(), self.pick(_SIZES) + self.number(), self.take(1) or b"\0"
            return pure.serialize(first, fill * size, self._mask())
        return self.take(14)

    def stream(self) -> bytes:
        """Pieces until the choices are used up."""
        stream = bytearray()
        while self and len(stream) < _MOST:
            stream += self.piece()
        return bytes(stream)

    def _mask(self) -> bytes | None:
        return self.take(4).ljust(4, b"\0") if self.number() % 2 else None


# The choices that give a piece.


def raw(data: bytes) -> bytes:
    """Bytes as they are."""
    return bytes([0, len(data)]) + data


def frame(first: int, payload: bytes = b"", mask: bytes | None = None) -> bytes:
    """A frame of up to 255 bytes."""
    return bytes([1, first, len(payload)]) + payload + (b"\0" if mask is None else b"\1" + mask)


def large(first: int, size: int, fill: bytes = b"a", mask: bytes | None = None) -> bytes:
    """A frame of one byte over and over, `size` times, which is one of a few."""
    return bytes([2, first, _SIZES.index(size), 0]) + fill + (b"\0" if mask is None else b"\1" + mask)


def cut(data: bytes, seed: int) -> Iterator[bytes]:
    """`data` in pieces: whole for seed 0; byte by byte for 1, unless it is large; else at random, by the seed."""
    if seed == 0:
        yield data
        return
    random = Random(seed)
    most = 1 if seed == 1 else random.choice((2, 7, 130, 5000, 300_000))
    most = max(most, len(data) // 300)  # or a large payload would take seconds
    at = 0
    while at < len(data):
        size = 1 + int(random.random() * most)
        yield data[at : at + size]
        at += size
