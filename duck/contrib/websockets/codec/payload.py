"""Masking and UTF-8 validation of payloads, in plain Python: the specification of `payload.pxi`."""

import codecs
import operator

from .numbers import UTF8_REJECT

__all__ = ["Buffer", "apply_mask", "mask_bytes", "rotate_mask", "utf8_state", "view_of"]

_TRANSLATE = 1024  # bytes from which four translate() calls beat one int XOR

_XOR = [bytes(key ^ byte for byte in range(256)) for key in range(256)]

Buffer = bytes | bytearray | memoryview


def view_of(data: Buffer) -> memoryview:
    """Returns a view of contiguous data as single bytes."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    try:
        return view.cast("B")
    except (TypeError, ValueError):  # a ctypes array, whose format memoryview does not know
        return memoryview(view.tobytes())


# Masking (section 5.3)


def rotate_mask(mask: Buffer, offset: int) -> bytes:
    """Returns the mask for the payload from `offset` on."""
    key = bytes(view_of(mask))
    if len(key) != 4:
        raise ValueError(f"a mask has 4 bytes, not {len(key)}")
    shift = operator.index(offset) & 3
    return key[shift:] + key[:shift]


def mask_bytes(view: memoryview, key: bytes) -> bytes | bytearray:
    """Returns `view` XOR the repeated 4 bytes of `key`."""
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
    """Masks or unmasks `data`, and returns the result as new bytes.

    Args:
        data: Contiguous bytes-like.
        mask: 4 bytes, in the order of the frame.
        offset: Position of `data` in the payload.

    Raises:
        TypeError: An argument has another type; a float is no position.
        ValueError: The mask does not have 4 bytes.
    """
    return bytes(mask_bytes(view_of(data), rotate_mask(mask, offset)))


# UTF-8 (section 8.1; RFC 3629)


def _utf8_step(state: int, byte: int) -> int:
    """Returns the state after one more byte.

    A state holds the number of missing continuation bytes (bits 0-7) and the range of the next one (bits 8-15 and
    16-23). So an overlong form, a surrogate or a number above U+10FFFF is refused at its second byte.
    """
    if state == 0:  # a leading byte that Python's decoder has accepted
        missing = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        low = {0xE0: 0xA0, 0xF0: 0x90}.get(byte, 0x80)
        high = {0xED: 0x9F, 0xF4: 0x8F}.get(byte, 0xBF)
        return missing | low << 8 | high << 16
    if not (state >> 8 & 0xFF) <= byte <= state >> 16:
        return UTF8_REJECT
    missing = (state & 0xFF) - 1
    return missing | 0x80 << 8 | 0xBF << 16 if missing else 0


# Every state but 0 and UTF8_REJECT, in the notation of `_utf8_step`.
_WITHIN = frozenset({0xBF8001, 0xBF8002, 0xBF8003, 0xBFA002, 0x9F8002, 0xBF9003, 0x8F8003})


def utf8_state(data: Buffer, state: int = 0) -> int:
    """Validates UTF-8 that arrives in pieces.

    Args:
        data: The next piece, contiguous.
        state: The result for the piece before; 0 at the start.

    Returns:
        0 at the end of a character, `UTF8_REJECT` for data that no bytes can make valid, else the state within a
        character.

    Raises:
        ValueError: The state is no result of this function.
    """
    view = view_of(data)
    state = operator.index(state)
    if state not in (0, UTF8_REJECT) and state not in _WITHIN:
        raise ValueError(f"{state} is not a state of utf8_state")
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
