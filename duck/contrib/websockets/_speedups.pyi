# The same as codec/*.py, where everything is explained; SIMD_TIERS and SIMD_TIER name what the processor runs.

from typing import Final

Buffer = bytes | bytearray | memoryview

IMPLEMENTATION: Final[str]
SIMD_TIERS: Final[tuple[str, ...]]
SIMD_TIER: Final[str]

RESERVED_BITS: Final[int]
RESERVED_OPCODE: Final[int]
FRAME_NOT_MASKED: Final[int]
FRAME_MASKED: Final[int]
FRAGMENTED_CONTROL: Final[int]
LONG_CONTROL: Final[int]
LENGTH_NOT_MINIMAL: Final[int]
LENGTH_TOP_BIT: Final[int]
TOO_BIG: Final[int]
UNEXPECTED_CONTINUATION: Final[int]
UNFINISHED_MESSAGE: Final[int]
INVALID_UTF8: Final[int]
TOO_MANY_EMPTY_FRAGMENTS: Final[int]
MAX_LENGTH: Final[int]
MAX_EMPTY_FRAGMENTS: Final[int]
UTF8_REJECT: Final[int]
NOT_TEXT: Final[str]

def apply_mask(data: Buffer, mask: Buffer, offset: int = 0) -> bytes: ...
def apply_mask_inplace(data: bytearray | memoryview, mask: Buffer, offset: int = 0) -> None: ...
def utf8_state(data: Buffer, state: int = 0) -> int: ...
def parse_header(data: Buffer, masked: bool, rsv1: bool, max_size: int) -> tuple[int, int, int, bytes] | None: ...
def build_header(first: int, length: int, mask: Buffer | None = None) -> bytes: ...
def serialize(first: int, payload: Buffer, mask: Buffer | None = None) -> bytes: ...

class MessageReader:
    error: int
    closed: bool
    control: bool
    def __init__(self, max_size: int, masked: bool, rsv1: bool, encoded: bool = False) -> None: ...
    def receive(self, data: Buffer) -> list[tuple[int, bytes]]: ...
    def get_buffer(self, spare: bytearray) -> bytearray | memoryview: ...
    def buffer_updated(self, spare: bytearray, size: int) -> list[tuple[int, bytes]]: ...
