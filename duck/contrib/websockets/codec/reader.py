"""The codec in plain Python: the readable specification of `_speedups.pyx`, and its stand-in where no compiler was.

Both modules have the same names, arguments, results and errors. A frame's first byte is kept as it is on the wire:
`0b10000000` FIN, `0b01000000` RSV1, `0b00110000` RSV2 and RSV3, `0b00001111` opcode (RFC 6455, section 5.2).
What is wrong with a peer's bytes is told by one of the numbers below; `exceptions.py` says what each means.
"""

import codecs
import struct
from typing import Final

IMPLEMENTATION: Final = "python"
SIMD_TIERS: Final[tuple[str, ...]] = ()
SIMD_TIER: Final = "none"

RESERVED_BITS: Final = 1
RESERVED_OPCODE: Final = 2
FRAME_NOT_MASKED: Final = 3
FRAME_MASKED: Final = 4
FRAGMENTED_CONTROL: Final = 5
LONG_CONTROL: Final = 6
LENGTH_NOT_MINIMAL: Final = 7
LENGTH_TOP_BIT: Final = 8
TOO_BIG: Final = 9
UNEXPECTED_CONTINUATION: Final = 10
UNFINISHED_MESSAGE: Final = 11
INVALID_UTF8: Final = 12
TOO_MANY_EMPTY_FRAGMENTS: Final = 13

MAX_LENGTH: Final = 2**63 - 1
MAX_EMPTY_FRAGMENTS: Final = 1024

UTF8_REJECT: Final = 1

NOT_TEXT: Final = "bytes that are sent as text must be UTF-8, and these are not: use send_binary, or send a str"

_DIRECT = 65536  # bytes still missing from which a payload is worth receiving in place
_DIRECT_STEP = 262144  # and how many of them at a time, so that they are unmasked while in cache
_LARGE = 8192  # payloads from here on leave as they are, behind their header, and are not copied
_TRANSLATE = 1024  # bytes from which four translate() calls beat one int XOR

_XOR = [bytes(key ^ byte for byte in range(256)) for key in range(256)]

Buffer = bytes | bytearray | memoryview


def _view(data: Buffer) -> memoryview:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    try:
        return view.cast("B")
    except (TypeError, ValueError):  # a ctypes array, whose format memoryview does not know
        return memoryview(view.tobytes())


# Masking (section 5.3)


def _turn(mask: Buffer, offset: int) -> bytes:
    key = bytes(_view(mask))
    if len(key) != 4:
        raise ValueError(f"a mask has 4 bytes, not {len(key)}")
    turn = offset & 3
    return key[turn:] + key[:turn]


def _mask(view: memoryview, key: bytes) -> bytes | bytearray:
    size = len(view)
    if size < _TRANSLATE:
        wide = (key * (size // 4 + 1))[:size]
        number = int.from_bytes(view, "little") ^ int.from_bytes(wide, "little")
        return number.to_bytes(size, "little")
    masked = bytearray(view)
    for i in range(4):
        masked[i::4] = masked[i::4].translate(_XOR[key[i]])
    return masked


def apply_mask(data: Buffer, mask: Buffer, offset: int = 0) -> bytes:
    """`data` masked or unmasked, as new bytes.

    Args:
        data: Contiguous bytes-like.
        mask: 4 bytes, as on the wire.
        offset: Where in the payload `data` begins.

    Raises:
        ValueError: The mask has not 4 bytes.
    """
    return bytes(_mask(_view(data), _turn(mask, offset)))


def apply_mask_inplace(data: bytearray | memoryview, mask: Buffer, offset: int = 0) -> None:
    """`apply_mask` that writes its result over `data`.

    Raises:
        BufferError: `data` is read-only.
        ValueError: The mask has not 4 bytes.
    """
    masked = _mask(_view(data), _turn(mask, offset))
    if memoryview(data).readonly:
        raise BufferError("Object is not writable.")
    struct.pack_into(f"{len(masked)}s", data, 0, masked)


# UTF-8 (section 8.1; RFC 3629)


def _utf8_step(state: int, byte: int) -> int:
    """One byte of the automaton.

    A state holds how many continuation bytes are missing (bits 0-7) and the range of the next one (bits 8-15 and
    16-23), so that an overlong form, a surrogate or a number above U+10FFFF is refused at its second byte.
    """
    if state == 0:
        if byte < 0x80:
            return 0
        if byte < 0xC2 or byte > 0xF4:
            return UTF8_REJECT
        missing = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        low = {0xE0: 0xA0, 0xF0: 0x90}.get(byte, 0x80)
        high = {0xED: 0x9F, 0xF4: 0x8F}.get(byte, 0xBF)
        return missing | low << 8 | high << 16
    if state == UTF8_REJECT or not (state >> 8 & 0xFF) <= byte <= state >> 16:
        return UTF8_REJECT
    missing = (state & 0xFF) - 1
    return missing | 0x80 << 8 | 0xBF << 16 if missing else 0


def utf8_state(data: Buffer, state: int = 0) -> int:
    """Validates UTF-8 that arrives in pieces.

    Args:
        data: The next piece, contiguous.
        state: What the piece before gave; 0 at the start.

    Returns:
        0 at the end of a character, `UTF8_REJECT` at the first byte that cannot be, else the state to go on with.
    """
    view = _view(data)
    at = 0
    while state > UTF8_REJECT and at < len(view):
        state = _utf8_step(state, view[at])
        at += 1
    if state:
        return state
    try:
        _, used = codecs.utf_8_decode(view[at:], "strict", False)
    except UnicodeDecodeError:
        return UTF8_REJECT
    for byte in view[at + used :]:
        state = _utf8_step(state, byte)
    return state


# Headers (section 5.2)


def _header(data: Buffer, masked: bool, rsv1: bool) -> tuple[int, int, int, bytes] | int:
    """(size, first byte, length, mask) of the header at the start of `data`; 0 if it is not whole; minus an error."""
    if len(data) < 2:
        return 0
    first, second = data[0], data[1]
    opcode = first & 0b1111
    length = second & 0b01111111
    if first & 0b00110000 or (first & 0b01000000 and not (rsv1 and opcode in (1, 2))):
        return -RESERVED_BITS
    if 2 < opcode < 8 or opcode > 10:
        return -RESERVED_OPCODE
    if second >> 7 != masked:
        return -FRAME_NOT_MASKED if masked else -FRAME_MASKED
    if opcode >= 8:
        if not first & 0b10000000:
            return -FRAGMENTED_CONTROL
        if length > 125:
            return -LONG_CONTROL
    size = 2
    if length == 126:
        size = 4
        if len(data) < size:
            return 0
        length = int.from_bytes(data[2:4])
        if length < 126:
            return -LENGTH_NOT_MINIMAL
    elif length == 127:
        size = 10
        if len(data) < size:
            return 0
        length = int.from_bytes(data[2:10])
        if length > MAX_LENGTH:
            return -LENGTH_TOP_BIT
        if length < 65536:
            return -LENGTH_NOT_MINIMAL
    if not masked:
        return size, first, length, bytes(4)
    if len(data) < size + 4:
        return 0
    return size + 4, first, length, bytes(data[size : size + 4])


def parse_header(data: Buffer, masked: bool, rsv1: bool, max_size: int) -> tuple[int, int, int, bytes] | None:
    """The header at the start of `data`.

    Args:
        data: What has been received from the start of a frame on.
        masked: Whether the peer must mask: true at a server, false at a client.
        rsv1: Whether an extension gives RSV1 a meaning on the first frame of a data message.
        max_size: Largest payload allowed, in bytes.

    Returns:
        (size of the header, its first byte, length of the payload, mask - four zeros where there is none), or None
        where more bytes are needed to tell.

    Raises:
        ValueError: With one of this module's error numbers.
    """
    header = _header(_view(data), masked, rsv1)
    if isinstance(header, int):
        if header:
            raise ValueError(-header)
        return None
    if header[2] > max_size:
        raise ValueError(TOO_BIG)
    return header


def build_header(first: int, length: int, mask: Buffer | None = None) -> bytes:
    """The header of a frame.

    Args:
        first: Its first byte: FIN, RSV bits and opcode.
        length: Bytes of payload.
        mask: 4 bytes for a client's frame, else None.

    Raises:
        ValueError: `first`, `length` or `mask` is out of its range.
    """
    if not 0 <= first <= 255:
        raise ValueError(f"a frame's first byte is 0 to 255, not {first}")
    if not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"a payload has 0 to 2**63 - 1 bytes, not {length}")
    bit = 0 if mask is None else 0b10000000
    if length < 126:
        header = bytes((first, bit | length))
    elif length < 65536:
        header = bytes((first, bit | 126)) + length.to_bytes(2)
    else:
        header = bytes((first, bit | 127)) + length.to_bytes(8)
    return header if mask is None else header + _turn(mask, 0)


def serialize(first: int, payload: Buffer, mask: Buffer | None = None) -> bytes:
    """A whole frame: header and (masked) payload in one bytes object; arguments and errors of `build_header`."""
    view = _view(payload)
    header = build_header(first, len(view), mask)
    return header + (view if mask is None else _mask(view, _turn(mask, 0)))


# Reading


class MessageReader:
    """Bytes in, messages and control frames out (sections 5.2 to 5.6, 8.1).

    Args:
        max_size: Largest message allowed, in bytes; holds for a frame and for the fragments of a message together. One
            with RSV1 may have a sixteenth and 64 bytes more, for whoever decodes it to judge.
        masked: Whether the peer must mask: true at a server, false at a client.
        rsv1: Whether an extension gives RSV1 a meaning. Such a message comes with `0b01000000` added to its opcode and
            is not validated as UTF-8.
        encoded: Whether extensions may have changed every message, with RSV1 or without: none is validated as UTF-8,
            and each may be as much larger.

    Attributes:
        error: What was wrong with the peer's bytes, 0 while nothing is. Final: what follows is not read.
        closed: Whether a close frame has come. Final as well.
        control: Whether the last call gave a control frame.

    A message is given when it is whole, its fragments joined in one buffer that grows; a text is refused at the first
    byte that cannot be UTF-8, whole or not. Every check on a header is done before a byte of its payload is kept.
    """

    __slots__ = (
        "_direct",
        "_empty",
        "_encoded",
        "_first",
        "_head",
        "_kind",
        "_left",
        "_mask",
        "_masked",
        "_max_size",
        "_message",
        "_payload",
        "_rsv1",
        "_size",
        "_utf8",
        "closed",
        "control",
        "error",
    )

    def __init__(self, max_size: int, masked: bool, rsv1: bool, encoded: bool = False) -> None:
        self._max_size = min(max_size, MAX_LENGTH)
        self._masked = masked
        self._rsv1 = rsv1
        self._encoded = encoded
        self.error = 0
        self.closed = False
        self.control = False
        # The frame being read.
        self._head = b""  # its header, as far as it has come
        self._first: int | None = None  # its first byte, None between frames
        self._left = 0  # bytes of payload still to come
        self._mask = bytes(4)  # turned to the next byte
        self._payload = bytearray()  # what has come, if it is a control frame
        # The message being read.
        self._kind = 0  # its RSV1 and opcode, 0 between messages
        self._message = bytearray()
        self._size = 0  # bytes of it that have come
        self._utf8 = 0
        self._empty = 0  # frames of it without payload
        self._direct = False

    def receive(self, data: Buffer) -> list[tuple[int, bytes]]:
        """What `data` completes: (opcode, payload) of each message and control frame, in order.

        Args:
            data: The next bytes of the stream, cut anywhere.
        """
        view = _view(data)
        try:
            return self._feed(view)
        except BaseException:
            self.closed = True  # memory ran out in the middle of a frame: what follows would be misread
            raise

    def _feed(self, view: memoryview) -> list[tuple[int, bytes]]:
        messages: list[tuple[int, bytes]] = []
        self._direct = self.control = False
        at = 0
        while not (self.error or self.closed):
            if self._first is None:
                if at == len(view):
                    break
                head = self._head + bytes(view[at : at + 14])
                header = _header(head, self._masked, self._rsv1)
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
            self._add_payload(_mask(piece, self._mask) if self._masked else piece)
            self._mask = _turn(self._mask, len(piece))
            if not (self._left or self.error):
                self._end_frame(messages)
        return messages

    def get_buffer(self, spare: bytearray) -> bytearray | memoryview:
        """Where the next bytes are to be received: the message itself, while much of a payload is missing, or `spare`.

        To be followed by `buffer_updated` with the same `spare`; what was given is not to be used afterwards.
        """
        self._direct = self._left >= _DIRECT and not (self.error or self.closed)
        if not self._direct:
            return spare
        step = min(self._left, _DIRECT_STEP)
        if len(self._message) < self._size + step:
            # In a new array, since the event loop may still hold the last view; growing by half, so seldom copied.
            room = min(self._left, max(step, self._size // 2))
            self._message = self._message[: self._size] + bytes(room)
        return memoryview(self._message)[self._size : self._size + step]

    def buffer_updated(self, spare: bytearray, size: int) -> list[tuple[int, bytes]]:
        """What the `size` bytes complete that were received into `get_buffer`; as `receive`."""
        size = max(size, 0)
        if not self._direct:
            return self.receive(memoryview(spare)[:size])
        size = min(size, _DIRECT_STEP)
        with memoryview(self._message)[self._size : self._size + size] as view:
            return self.receive(view)

    def _begin_frame(self, first: int, length: int, mask: bytes) -> None:
        opcode = first & 0b1111
        if opcode < 8:
            if opcode == 0 and not self._kind:
                self.error = UNEXPECTED_CONTINUATION
                return
            if opcode and self._kind:
                self.error = UNFINISHED_MESSAGE
                return
            limit = self._max_size
            if (self._kind | first) & 0b01000000 or self._encoded:
                limit += (limit >> 4) + 64  # what does not compress gets a little larger
            if length > limit - self._size:
                self.error = TOO_BIG
                return
            if opcode:
                self._kind = first & 0b01001111
            if not length and not first & 0b10000000:
                self._empty += 1
                if self._empty > MAX_EMPTY_FRAGMENTS:
                    self.error = TOO_MANY_EMPTY_FRAGMENTS
                    return
        self._first, self._left, self._mask = first, length, mask

    def _add_payload(self, piece: Buffer) -> None:
        assert self._first is not None
        self._left -= len(piece)
        if self._first & 0b1000:
            self._payload += piece
            return
        # Not an extension of the array: its end may be the buffer that the event loop holds.
        end = self._size + len(piece)
        if len(self._message) < end:
            self._message.extend(bytes(end - len(self._message)))
        self._message[self._size : end] = piece
        self._size = end
        if self._kind == 1 and not self._encoded:
            self._utf8 = utf8_state(piece, self._utf8)
            final = self._first & 0b10000000 and not self._left
            if self._utf8 == UTF8_REJECT or (final and self._utf8):
                self.error = INVALID_UTF8

    def _end_frame(self, messages: list[tuple[int, bytes]]) -> None:
        assert self._first is not None
        first, self._first = self._first, None
        if first & 0b1000:
            opcode = first & 0b1111
            self.control = True
            self.closed = opcode == 8
            messages.append((opcode, bytes(self._payload)))
            self._payload.clear()
        elif first & 0b10000000:
            with memoryview(self._message) as view:
                messages.append((self._kind, bytes(view[: self._size])))
            self._message = bytearray()
            self._kind = self._size = self._empty = 0


# Writing


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
        if mask is None and isinstance(payload, bytes) and len(payload) >= _LARGE:
            chunks: tuple[bytes, ...] = (build_header(first, len(payload)), payload)
        else:
            chunks = (serialize(first, payload, mask),)
        size = self.size + sum(map(len, chunks))
        self._chunks += chunks  # all or nothing, where memory runs out
        self.size = size
        if first & 0b1000:
            self.closed = self.closed or first & 0b1111 == 8
        else:
            self.fragmenting = not first & 0b10000000

    def take(self) -> list[bytes]:
        """What has been added, in order, as bytes objects to be sent one behind the other."""
        taken, self._chunks = self._chunks, []
        self.size = 0
        return taken
