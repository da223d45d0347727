"""The choice of the compression library: zlib, or one of two faster equivalents.

DUCK_DEFLATE=zlib    zlib, or an ImportError; `isal` and `zlib-ng` likewise
                     unset, the first installed of isal, zlib-ng, zlib

Each library reads the output of the others. The cost of a level differs, and so does the best level. Times and sizes of
consecutive JSON messages of 1 KB, with windows of 12 bits, for a kept compressor and for a new one:

                        kept               new               decompressed
    zlib      level 3   13.0 us to 25 %    18.5 us to 24 %   4.5 us
    isal      level 1    6.6 us to 26 %     9.7 us to 26 %   by zlib
    zlib-ng   level 1    3.0 us to 31 %    11.0 us to 30 %   2.5 us

(With 20 alternating connections, zlib-ng takes 5 us more: its hash tables of 128 KiB each do not stay in the cache.)

isal's own decompressor takes 87 KB of memory, and 1.5 us more than zlib's for such a message. It is faster only from
8 KB on, by a fifth at 256 KB. Such an allocation for each message would also fragment the heap.
"""

import os
import zlib
from typing import Any, NamedTuple, Protocol

__all__ = ["BACKEND", "BACKENDS", "Backend", "Deflater", "Inflater", "choose", "load"]


class Deflater(Protocol):
    """The interface of `zlib.compressobj()`."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int, /) -> bytes: ...


class Inflater(Protocol):
    """The interface of `zlib.decompressobj()`."""

    eof: bool
    unconsumed_tail: bytes
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Module(Protocol):
    error: type[Exception]

    def compressobj(self, level: int, method: int, wbits: int, memLevel: int, /) -> Deflater: ...
    def decompressobj(self, wbits: int, /) -> Inflater: ...


class Backend:
    """Makes compressors and decompressors of raw DEFLATE (RFC 1951).

    Args:
        name: The value of DUCK_DEFLATE.
        deflating: The module that compresses, with the interface of `zlib`.
        inflating: The module that decompresses, likewise.
        levels: The levels that correspond to zlib's levels 0 to 9.
        default_level: The level with the best ratio of size to time, in zlib's counting.
        size: Bytes that a compressor takes beside its window and hash table.

    Attributes:
        error: The exception for broken data.
    """

    __slots__ = ("_compressobj", "_decompressobj", "_default_level", "_levels", "_size", "error", "name")

    def __init__(
        self,
        name: str,
        deflating: "_Module",
        inflating: "_Module",
        levels: tuple[int, ...],
        default_level: int,
        size: int,
    ) -> None:
        self.name = name
        self.error = inflating.error
        self._default_level = default_level
        self._size = size
        self._compressobj = deflating.compressobj
        self._decompressobj = inflating.decompressobj
        self._levels = levels

    def deflater(self, level: int | None, window_bits: int, memory_level: int, history: bytes = b"") -> Deflater:
        """Makes a compressor for the data that follows `history`.

        Args:
            level: 0 to 9, None for the default.
            window_bits: Base-2 logarithm of the window, 8 to 15.
            memory_level: 1 to 9.
            history: At most one window of the data that was compressed before.
        """
        level = self._levels[self._default_level if level is None else level]
        make = self._compressobj
        if window_bits == 8:
            # zlib supports no raw stream with a window of 8 bits. A window of 9 bits is safe too, because zlib never
            # refers farther back than the window less 262 bytes, which is 250. The other libraries do not promise that.
            make, window_bits, level = zlib.compressobj, 9, max(level, 1)
        if history:
            return make(level, zlib.DEFLATED, -window_bits, memory_level, zlib.Z_DEFAULT_STRATEGY, history)  # type: ignore[call-arg]
        return make(level, zlib.DEFLATED, -window_bits, memory_level)

    def deflater_size(self, window_bits: int, memory_level: int) -> int:
        """Bytes that a compressor takes while it is kept."""
        return self._size + (4 << window_bits) + (1 << memory_level + 9)

    def inflater(self, window_bits: int, history: bytes = b"") -> Inflater:
        """Makes a decompressor for the data that follows `history`, of which it takes at most one window."""
        if history:
            return self._decompressobj(-window_bits, history)  # type: ignore[call-arg]
        return self._decompressobj(-window_bits)


class _Choice(NamedTuple):
    levels: tuple[int, ...]
    default_level: int
    size: int


BACKENDS = {
    "isal": _Choice((0, 1, 1, 1, 1, 1, 2, 2, 2, 3), 1, 204800),
    "zlib-ng": _Choice(tuple(range(10)), 1, 131072),
    "zlib": _Choice(tuple(range(10)), 3, 6144),
}
"""The supported libraries by name, the fastest first."""


def load(name: str) -> Backend:
    """Loads one of BACKENDS.

    Raises:
        ImportError: The library is not installed.
    """
    deflating: Any = zlib
    inflating: Any = zlib
    # Statements rather than names in BACKENDS: programs that freeze an application find them.
    if name == "isal":
        from isal import isal_zlib as deflating
    elif name == "zlib-ng":
        from zlib_ng import zlib_ng as deflating

        inflating = deflating
    return Backend(name, deflating, inflating, *BACKENDS[name])


def choose() -> Backend:
    """Returns the library that DUCK_DEFLATE names, else the fastest installed one."""
    required = os.environ.get("DUCK_DEFLATE", "")
    if required:
        if required not in BACKENDS:
            raise ImportError(f"DUCK_DEFLATE={required!r}: set it to {', '.join(BACKENDS)}, or unset it")
        try:
            return load(required)
        except ImportError as error:
            raise ImportError(f"DUCK_DEFLATE={required}, but it does not load: pip install {required}") from error
    for name in BACKENDS:
        try:
            return load(name)
        except ImportError:
            continue
    raise AssertionError("zlib is part of Python")


BACKEND = choose()
