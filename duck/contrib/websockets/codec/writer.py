"""Frames in, bytes out, in plain Python: the specification of `writer.pxi`."""

from .header import build_header, serialize
from .numbers import CONTROL, FIN, UNCOPIED
from .payload import Buffer

__all__ = ["FrameWriter"]


class FrameWriter:
    """Frames in, bytes to send out, in order.

    Attributes:
        size: About how many bytes there are to take.
        closed: Whether a close frame has been written. Nothing may follow it; the caller sees to that.
        fragmenting: Whether a message has been begun and not finished.
    """

    __slots__ = ("_chunks", "closed", "fragmenting", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0
        self.closed = False
        self.fragmenting = False

    def write(self, first: int, payload: Buffer, mask: Buffer | None = None) -> None:
        """Adds a frame; arguments and errors of `serialize`. A large payload without mask is not copied."""
        if mask is None and isinstance(payload, bytes) and len(payload) >= UNCOPIED:
            chunks: tuple[bytes, ...] = (build_header(first, len(payload)), payload)
        else:
            chunks = (serialize(first, payload, mask),)
        size = self.size + sum(map(len, chunks))
        self._chunks += chunks  # all or nothing, where memory runs out
        self.size = size
        if first & CONTROL:
            self.closed = self.closed or first & 0b1111 == 8
        else:
            self.fragmenting = not first & FIN

    def take(self) -> list[bytes]:
        """What has been added, in order, as bytes objects to be sent one behind the other."""
        taken, self._chunks = self._chunks, []
        self.size = 0
        return taken
