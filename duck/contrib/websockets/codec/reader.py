"""`MessageReader`: bytes in, messages and control frames out, in plain Python; the specification of `reader.pxi`."""

import operator

from .counters import Counters
from .header import read_header
from .numbers import (
    CONTROL,
    FIN,
    IN_PLACE,
    IN_PLACE_STEP,
    INVALID_UTF8,
    MAX_EMPTY_FRAGMENTS,
    MAX_HEADER,
    MAX_LENGTH,
    RSV1,
    TOO_BIG,
    TOO_MANY_EMPTY_FRAGMENTS,
    UNEXPECTED_CONTINUATION,
    UNFINISHED_MESSAGE,
    UNTOUCHED_STEP,
    UTF8_REJECT,
)
from .payload import Buffer, mask_bytes, rotate_mask, utf8_state, view_of

__all__ = ["MessageReader"]


class MessageReader:
    """Parses the frames of a stream, and joins the fragments of messages (sections 5.2 to 5.6, 8.1).

    Args:
        max_size: Bytes of the largest message. The limit applies to a frame, and to all fragments of a message
            together. A message with RSV1 may exceed it by a sixteenth and 64 bytes; the decoder checks its size again.
        masked: Whether the peer must mask its frames: true at a server, false at a client.
        rsv1: Whether an extension gives RSV1 a meaning. The opcode of such a message has `RSV1` added, and its payload
            is not validated as UTF-8.
        encoded: Whether extensions may have changed any message, with RSV1 or without. Then no payload is validated as
            UTF-8, and each may exceed the limit as one with RSV1.
        parts: Whether messages are returned part by part. A part contains the bytes of a message that one call of the
            reader has received. Its opcode is that of a fragment: 0 after the first part, with `FIN` added in the last
            one. Only the last part may be empty. It cannot be combined with `encoded`.

    Attributes:
        error: The number of the peer's error, 0 for none. After an error nothing is read.
        closed: Whether a close frame has been received. After it nothing is read.
        control: Whether the last call returned a control frame.
        counters: Counts the received messages; None for no counting.

    Without `parts` only whole messages are returned. Fragments are joined in one growing buffer. A text is refused at
    the first byte that cannot be UTF-8. All checks of a header precede the allocation for its payload.
    """

    __slots__ = (
        "_direct",
        "_empty",
        "_encoded",
        "_first",
        "_given",
        "_head",
        "_kind",
        "_left",
        "_mask",
        "_masked",
        "_max_size",
        "_message",
        "_parts",
        "_payload",
        "_rsv1",
        "_size",
        "_utf8",
        "closed",
        "control",
        "counters",
        "error",
    )

    def __init__(self, max_size: int, masked: bool, rsv1: bool, encoded: bool = False, parts: bool = False) -> None:
        self._masked = bool(masked)
        self._rsv1 = bool(rsv1)
        self._encoded = bool(encoded)
        self._parts = bool(parts)
        self._max_size = min(operator.index(max_size), MAX_LENGTH)
        if self._max_size < 0:
            raise ValueError(f"max_size is 0 bytes or more, not {max_size}")
        self.error = 0
        self.closed = False
        self.control = False
        self.counters: Counters | None = None
        # The frame being read.
        self._head = b""  # its incomplete header
        self._first: int | None = None  # its first byte, None between frames
        self._left = 0  # missing bytes of payload
        self._mask = bytes(4)  # rotated for the next byte
        self._payload = bytearray()  # the received payload of a control frame
        # The message being read.
        self._kind = 0  # its RSV1 and opcode, 0 between messages
        self._message = bytearray()
        self._size = 0  # its received bytes, without those of returned parts
        self._given = 0  # the bytes of returned parts
        self._utf8 = 0
        self._empty = 0  # its frames without payload
        self._direct = False

    def receive(self, data: Buffer) -> list[tuple[int, bytes]]:
        """Parses the next bytes of the stream.

        Args:
            data: The bytes, which may begin and end anywhere in a frame.

        Returns:
            (opcode, payload) of each message and control frame that `data` completes, in order.
        """
        view = view_of(data)
        try:
            return self._feed(view)
        except BaseException:
            self.closed = True  # memory ran out within a frame, so the next bytes would be misread
            raise

    def _feed(self, view: memoryview) -> list[tuple[int, bytes]]:
        messages: list[tuple[int, bytes]] = []
        self._direct = self.control = False
        at = 0
        while not (self.error or self.closed):
            if self._first is None:
                if at == len(view):
                    break
                head = self._head + bytes(view[at : at + MAX_HEADER])
                header = read_header(head, self._masked, self._rsv1)
                if isinstance(header, int):
                    self.error = -header
                    self._head = head
                    break
                at += header[0] - len(self._head)
                self._head = b""
                self._begin_frame(*header[1:])
                continue
            piece = view[at : at + self._left]
            if not piece and self._left:
                break
            at += len(piece)
            self._add_payload(mask_bytes(piece, self._mask) if self._masked else piece)
            self._mask = rotate_mask(self._mask, len(piece))
            if not (self._left or self.error):
                self._end_frame(messages)
        if self._parts and self._size and not self.error:
            messages.append(self._taken(0))
        return messages

    def get_buffer(self, spare: bytearray) -> bytearray | memoryview:
        """Returns the buffer for the next bytes: that of the message while IN_PLACE bytes are missing, else `spare`.

        Parts are unmasked into objects of their own size, so they are always received into `spare`.

        The caller must call `buffer_updated` with the same `spare` next, and must not use the buffer afterwards.
        """
        self._direct = self._left >= IN_PLACE and not (self._parts or self.error or self.closed)
        if not self._direct:
            return spare
        step = min(self._left, self._step)
        if len(self._message) < self._size + step:
            # In a new array, because the event loop may still hold the last view. It grows by half to be copied rarely.
            room = min(self._left, max(step, self._size // 2))
            self._message = self._message[: self._size] + bytes(room)
        return memoryview(self._message)[self._size : self._size + step]

    def buffer_updated(self, spare: bytearray, size: int) -> list[tuple[int, bytes]]:
        """Parses `size` bytes that were received into the buffer of `get_buffer`; returns as `receive`."""
        size = max(size, 0)
        if not self._direct:
            return self.receive(memoryview(spare)[:size])
        size = min(size, self._step)
        with memoryview(self._message)[self._size : self._size + size] as view:
            return self.receive(view)

    @property
    def _step(self) -> int:
        """The most bytes that are received at a time into the buffer of a message."""
        is_checked = self._kind == 1 and not self._encoded
        return IN_PLACE_STEP if self._masked or is_checked else UNTOUCHED_STEP

    def _begin_frame(self, first: int, length: int, mask: bytes) -> None:
        opcode = first & 0b1111
        if not opcode & CONTROL:
            if opcode == 0 and not self._kind:
                self.error = UNEXPECTED_CONTINUATION
                return
            if opcode and self._kind:
                self.error = UNFINISHED_MESSAGE
                return
            limit = self._max_size
            if (self._kind | first) & RSV1 or self._encoded:
                limit += (limit >> 4) + 64  # incompressible data grows a little
            if length > limit - self._size - self._given:
                self.error = TOO_BIG
                return
            if opcode:
                self._kind = first & (RSV1 | 0b1111)
            if not length and not first & FIN:
                self._empty += 1
                if self._empty > MAX_EMPTY_FRAGMENTS:
                    self.error = TOO_MANY_EMPTY_FRAGMENTS
                    return
        self._first, self._left, self._mask = first, length, mask

    def _add_payload(self, piece: Buffer) -> None:
        assert self._first is not None
        self._left -= len(piece)
        if self._first & CONTROL:
            self._payload += piece
            return
        # Not `+=`: the array may already have room behind `_size`, into which the event loop has received.
        end = self._size + len(piece)
        if len(self._message) < end:
            self._message.extend(bytes(end - len(self._message)))
        self._message[self._size : end] = piece
        self._size = end
        if self._kind == 1 and not self._encoded:
            self._utf8 = utf8_state(piece, self._utf8)
            final = self._first & FIN and not self._left
            if self._utf8 == UTF8_REJECT or (final and self._utf8):
                self.error = INVALID_UTF8

    def _end_frame(self, messages: list[tuple[int, bytes]]) -> None:
        assert self._first is not None
        first, self._first = self._first, None
        if first & CONTROL:
            opcode = first & 0b1111
            self.control = True
            self.closed = opcode == 8
            self._count(opcode, len(self._payload), True)
            messages.append((opcode, bytes(self._payload)))
            self._payload.clear()
        elif first & FIN:
            messages.append(self._taken(FIN))
            self._kind = self._given = self._empty = 0

    def _taken(self, fin: int) -> tuple[int, bytes]:
        """Removes and returns the received payload: a message, or a part of it."""
        opcode = self._kind
        self._count(opcode & 0b1111, self._size, fin != 0)
        if self._parts:
            opcode = fin if self._given else opcode | fin
        with memoryview(self._message) as view:
            payload = bytes(view[: self._size])
        self._message = bytearray()
        self._given += self._size
        self._size = 0
        return opcode, payload

    def _count(self, opcode: int, size: int, ends: bool) -> None:
        if self.counters is not None:
            self.counters.add_received(opcode, size, ends)
