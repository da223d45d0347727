"""Headers of frames (RFC 6455, section 5.2), in plain Python: the specification of `header.pxi`."""

import operator

from .numbers import (
    CONTROL,
    FIN,
    FRAGMENTED_CONTROL,
    FRAME_MASKED,
    FRAME_NOT_MASKED,
    LENGTH_NOT_MINIMAL,
    LENGTH_TOP_BIT,
    LONG_CONTROL,
    MAX_LENGTH,
    RESERVED_BITS,
    RESERVED_OPCODE,
    RSV1,
    TOO_BIG,
)
from .payload import Buffer, mask_bytes, rotate_mask, view_of

__all__ = ["build_header", "check_first", "parse_header", "payload_size", "read_header", "serialize"]


def read_header(data: Buffer, masked: bool, rsv1: bool) -> tuple[int, int, int, bytes] | int:
    """Reads the header at the start of `data`.

    Returns:
        (size of the header, its first byte, length of the payload, mask); 0 if the header is incomplete; a negated
        error number if it breaks a rule.
    """
    if len(data) < 2:
        return 0
    first, second = data[0], data[1]
    opcode = first & 0b1111
    length = second & 0b01111111
    if first & 0b00110000 or (first & RSV1 and not (rsv1 and opcode in (1, 2))):
        return -RESERVED_BITS
    if 2 < opcode < 8 or opcode > 10:
        return -RESERVED_OPCODE
    if second >> 7 != masked:
        return -FRAME_NOT_MASKED if masked else -FRAME_MASKED
    if opcode & CONTROL:
        if not first & FIN:
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


def payload_size(frame: bytes) -> int:
    """Returns the size of the payload of a serialized frame without mask."""
    return len(frame) - (2 if frame[1] < 126 else 4 if frame[1] == 126 else 10)


def check_first(first: int) -> int:
    """Returns the first byte of a frame; raises ValueError if a number cannot be one, and TypeError for a float."""
    first = operator.index(first)
    if not 0 <= first <= 255:
        raise ValueError(f"a frame's first byte is 0 to 255, not {first}")
    return first


def parse_header(data: Buffer, masked: bool, rsv1: bool, max_size: int) -> tuple[int, int, int, bytes] | None:
    """Parses the header at the start of `data`.

    Args:
        data: Received bytes, from the start of a frame on.
        masked: Whether the peer must mask its frames: true at a server, false at a client.
        rsv1: Whether an extension gives RSV1 a meaning on the first frame of a data message.
        max_size: Largest payload allowed, in bytes.

    Returns:
        (size of the header, its first byte, length of the payload, mask), or None if the header is not complete. A
        frame without mask has the mask 0.

    Raises:
        ValueError: The header breaks a rule. The argument is the number of the error.
    """
    masked, rsv1 = bool(masked), bool(rsv1)
    header = read_header(view_of(data), masked, rsv1)
    if isinstance(header, int):
        if header:
            raise ValueError(-header)
        return None
    if header[2] > max_size:
        raise ValueError(TOO_BIG)
    return header


def build_header(first: int, length: int, mask: Buffer | None = None) -> bytes:
    """Returns the header of a frame.

    Args:
        first: The first byte: FIN, RSV bits and opcode.
        length: Bytes of payload.
        mask: 4 bytes for a client's frame, else None.

    Raises:
        ValueError: `first`, `length` or `mask` is out of its range.
    """
    first, length = check_first(first), operator.index(length)
    if not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"a payload has 0 to 2**63 - 1 bytes, not {length}")
    bit = 0 if mask is None else 0b10000000
    if length < 126:
        header = bytes((first, bit | length))
    elif length < 65536:
        header = bytes((first, bit | 126)) + length.to_bytes(2)
    else:
        header = bytes((first, bit | 127)) + length.to_bytes(8)
    return header if mask is None else header + rotate_mask(mask, 0)


def serialize(first: int, payload: Buffer, mask: Buffer | None = None) -> bytes:
    """Returns a whole frame, header and (masked) payload in one object; arguments and errors as for `build_header`."""
    view = view_of(payload)
    header = build_header(first, len(view), mask)
    return header + (view if mask is None else mask_bytes(view, rotate_mask(mask, 0)))
