"""Frames packed without a codec, so that no codec is tested by itself (RFC 6455, section 5.2)."""

import struct

from duck.contrib.websockets.sansio.connection import Connection

__all__ = ["MASK", "RSV1", "RSV2", "RSV3", "close", "frame", "header", "taken", "xor"]

RSV1, RSV2, RSV3 = 4, 2, 1

MASK = b"\x37\xfa\x21\x3d"
"""The sample of RFC 6455, section 5.7."""


def xor(data: bytes, mask: bytes) -> bytes:
    """`data` masked or unmasked."""
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(len(data))


def header(first: int, length: int, mask: bytes | None = MASK) -> bytes:
    """A header with the shortest form of the length; `first` holds FIN, the reserved bits and the opcode."""
    bit = 0x80 if mask else 0
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (mask or b"")


def frame(opcode: int, payload: bytes = b"", fin: bool = True, *, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    """A frame; masked, as a client's are, unless `mask` is None."""
    head = header(fin << 7 | rsv << 4 | opcode, len(payload), mask)
    return head + (xor(payload, mask) if mask else payload)


def close(code: int = 1000, reason: str = "", *, mask: bytes | None = MASK) -> bytes:
    """A close frame."""
    return frame(8, code.to_bytes(2) + reason.encode(), mask=mask)


def taken(connection: Connection) -> bytes:
    """Removes and returns the outgoing bytes of a connection."""
    return b"".join(connection.take_outgoing())
