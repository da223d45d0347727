"""`FrameWriter` and `MaskingWriter`: frames in, bytes out, in plain Python; the specification of `writer.pxi`."""

from collections.abc import Callable

from .counters import Counters
from .header import build_header, check_first, payload_size, serialize
from .numbers import CONTROL, FIN, MASK_BATCH, UNCOPIED
from .payload import Buffer, view_of

__all__ = ["FrameWriter", "MaskingWriter"]


class FrameWriter:
    """Gathers frames to be sent, in order. A server does not mask them (RFC 6455, section 5.1).

    Attributes:
        size: The approximate number of gathered bytes.
        closed: Whether a close frame has been written. The caller must not write after it.
        fragmenting: Whether a message is incomplete.
        counters: Counts the sent messages; None for no counting.
    """

    __slots__ = ("_chunks", "_kind", "closed", "counters", "fragmenting", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0
        self.closed = False
        self.fragmenting = False
        self.counters: Counters | None = None
        self._kind = 0  # the opcode of the message that continuation frames belong to

    def write(self, first: int, payload: Buffer) -> None:
        """Adds a frame; arguments and errors of `serialize`. A large payload is not copied."""
        first = check_first(first)
        if isinstance(payload, bytes) and len(payload) >= UNCOPIED:
            self._append(first, len(payload), build_header(first, len(payload)), payload)
        else:
            self._append(first, len(view_of(payload)), serialize(first, payload))

    def write_serialized(self, frame: bytes) -> None:
        """Adds the frame of a whole message, as serialized by `serialize`; it is not copied."""
        self._append(frame[0], payload_size(frame), frame)

    def take(self) -> list[bytes]:
        """The frames that have been added, in order, as bytes objects to be sent one after the other."""
        taken, self._chunks = self._chunks, []
        self.size = 0
        return taken

    def _append(self, first: int, payload_size: int, *chunks: bytes) -> None:
        size = self.size + sum(map(len, chunks))
        self._chunks += chunks  # all or nothing if memory runs out
        self.size = size
        opcode = first & 0b1111
        if first & CONTROL:
            self.closed = self.closed or opcode == 8
        else:
            self.fragmenting = not first & FIN
            self._kind = opcode or self._kind
        if self.counters is not None:
            self.counters.add_sent(opcode or self._kind, payload_size, opcode != 0)


class MaskingWriter(FrameWriter):
    """The writer of a client, which masks each frame with a new mask (RFC 6455, section 5.3).

    Masks must be unpredictable to the author of the payloads, and none is used twice. A writer draws them in batches
    for itself alone. So neither threads nor forked processes share masks unless they share a connection.

    Args:
        source: Returns the requested number of random bytes: `os.urandom`.
    """

    __slots__ = ("_masks", "_source", "_spent")

    def __init__(self, source: Callable[[int], bytes]) -> None:
        super().__init__()
        self._source = source
        self._masks = b""
        self._spent = MASK_BATCH

    def write(self, first: int, payload: Buffer) -> None:
        """Adds a frame; arguments and errors of `serialize`. The payload is copied and masked in one pass."""
        first = check_first(first)
        view = view_of(payload)
        self._append(first, len(view), serialize(first, view, self._next_mask()))

    def _next_mask(self) -> bytes:
        if self._spent == MASK_BATCH:
            self._draw_masks()
        self._spent += 1
        return self._masks[4 * self._spent - 4 : 4 * self._spent]

    def _draw_masks(self) -> None:
        batch = self._source(4 * MASK_BATCH)
        if not isinstance(batch, bytes):
            raise TypeError(f"a source of masks must return bytes, not {type(batch).__name__}")
        if len(batch) != 4 * MASK_BATCH:
            raise ValueError(f"a source of masks must return the {4 * MASK_BATCH} requested bytes, not {len(batch)}")
        self._masks = batch
        self._spent = 0
