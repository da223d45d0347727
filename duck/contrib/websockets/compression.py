"""Settings of permessage-deflate, and their negotiation by a server and by a client (RFC 7692, section 7.1)."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

from .codec import deflate
from .codec.deflate import Backend
from .extensions import PerMessageDeflate
from .sansio.negotiation import ClientOffer, Negotiator, Parameters

__all__ = ["DEFAULT_NEGOTIATORS", "PERMESSAGE_DEFLATE", "Compression"]

PERMESSAGE_DEFLATE = "permessage-deflate"

_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}
_FLAGS = frozenset({"client_no_context_takeover", "server_no_context_takeover"})
_SIZES = frozenset({"client_max_window_bits", "server_max_window_bits"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """Settings of compression: an immutable value. An offer of the client may reduce them, never extend them.

    The defaults are measured. On successive JSON messages of 1 KB, windows of 12 bits save 77 % of the bytes, windows
    of 15 bits 79 %; a connection keeps 8 KiB instead of 64.

    Firefox and Mojolicious do not offer `client_max_window_bits` and have windows of 32 KiB. The used part of such a
    window is kept: 0.8 KiB before the first message of a connection, 4.8 KiB after messages of 4 KB, 33 KiB after 32
    KB. A request for `client_no_context_takeover` would save that memory. But Mojolicious ignores it, which makes its
    second message unreadable, and JSON of 150 bytes takes 103 bytes instead of 39. Compressed idle windows would have a
    third of the size; compressing takes 280 us by zlib or 80 us by isal, decompressing 120 us, which is not worth it.

    Args:
        level: 1, fast, to 9, small. None takes 3 for zlib and 1 for the other libraries.
        threshold: Smallest size of a compressed message in bytes. Smaller messages are sent uncompressed, except for
            clients that offer `client_no_context_takeover`.
        binary: Whether binary messages are compressed, with the same exception. Compression of 100 KB takes 0.8 ms by
            isal, and makes images, audio and archives no smaller.
        server_max_window_bits: Base-2 logarithm of the window of our messages in bytes, 8 to 15.
        client_max_window_bits: The same for the client's messages, if the client lets the server choose.
        server_context_takeover: Whether our messages refer to earlier ones.
        client_context_takeover: Whether the client's messages may refer to earlier ones.
        memory_level: 1 to 9. A working compressor takes 2 ** (memory_level + 9) bytes, and four times its window.
        memory_limit: Memory of a connection between messages in bytes: a window for each direction with context
            takeover. A client whose window exceeds it must not take its context over. The default has room for any.

    Raises:
        ValueError: A value is out of bounds, or our window exceeds the memory limit.
    """

    level: int | None = None
    threshold: int = 256
    binary: bool = True
    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_context_takeover: bool = True
    client_context_takeover: bool = True
    memory_level: int = 5
    memory_limit: int = 65536

    def __post_init__(self) -> None:
        bounds = {
            "level": (1, 9),
            "server_max_window_bits": (8, 15),
            "client_max_window_bits": (8, 15),
            "memory_level": (1, 9),
        }
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value is None and name == "level":
                continue
            if not _is_whole(value) or not least <= value <= most:
                raise ValueError(f"{name} is {least} to {most}, not {value!r}")
        for name in ("threshold", "memory_limit"):
            value = getattr(self, name)
            if not _is_whole(value) or not 0 <= value <= sys.maxsize:
                raise ValueError(f"{name} is a number of bytes from 0 to {sys.maxsize}, not {value!r}")
        for name in ("binary", "server_context_takeover", "client_context_takeover"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is True or False, not {getattr(self, name)!r}")
        if self.server_context_takeover and 1 << self.server_max_window_bits > self.memory_limit:
            raise ValueError(
                f"a window of {self.server_max_window_bits} bits does not fit into memory_limit={self.memory_limit}:"
                " raise that, lower server_max_window_bits, or set server_context_takeover=False"
            )

    def accept(self, parameters: Parameters) -> PerMessageDeflate | None:
        """Returns the extension for an offer of permessage-deflate with these parameters; None to decline it.

        Offers outside of section 7.1 are declined: unknown or repeated parameters, flags with a value, window bits
        other than 8 to 15.
        """
        if not _is_valid(parameters, may_lack_value="client_max_window_bits"):
            return None
        return _agreed(self, tuple(parameters), deflate.BACKEND).fresh()

    def offer(self) -> ClientOffer:
        """Returns the offer of a client with these settings.

        Windows of 15 bits and context takeover are the defaults of the protocol, so the offer omits them.
        """
        parameters: list[tuple[str, str | None]] = []
        if not self.server_context_takeover:
            parameters.append(("server_no_context_takeover", None))
        if not self.client_context_takeover:
            parameters.append(("client_no_context_takeover", None))
        if self.server_max_window_bits < 15:
            parameters.append(("server_max_window_bits", str(self.server_max_window_bits)))
        bits = self.client_max_window_bits
        parameters.append(("client_max_window_bits", str(bits) if bits < 15 else None))
        return ClientOffer(parameters, self.confirm)

    def confirm(self, parameters: Parameters) -> PerMessageDeflate | None:
        """Returns the client's extension for a server that answers `offer` with these parameters.

        None for an invalid answer: an unknown or repeated parameter; a flag with a value; window bits other than 8 to
        15; or a server that exceeds the offered limits. An answer with more window bits for the client than offered is
        valid: some servers answer with their own maximum.
        """
        if not _is_valid(parameters):
            return None
        confirmed = _confirmed(self, tuple(parameters), deflate.BACKEND)
        return None if confirmed is None else confirmed.fresh()


# The functions below depend on nothing but their arguments, and all clients of a kind send the same parameters.
# The cached extensions have no history; each connection gets a copy.


@lru_cache
def _agreed(
    settings: Compression, parameters: tuple[tuple[str, str | None], ...], backend: Backend
) -> PerMessageDeflate:
    """Returns the server's extension for a valid offer."""
    offered = dict(parameters)
    server_bits = min(settings.server_max_window_bits, _WINDOW_BITS[offered.get("server_max_window_bits") or "15"])
    client_bits = 15
    if "client_max_window_bits" in offered:
        client_bits = min(settings.client_max_window_bits, _WINDOW_BITS[offered["client_max_window_bits"] or "15"])
    server_alone = "server_no_context_takeover" in offered or not settings.server_context_takeover
    room = settings.memory_limit - (0 if server_alone else 1 << server_bits)
    client_alone = (
        "client_no_context_takeover" in offered or not settings.client_context_takeover or 1 << client_bits > room
    )
    compressed_only = _takes_compressed_only(offered)
    agreed: list[tuple[str, str | None]] = []
    if server_alone:
        agreed.append(("server_no_context_takeover", None))
    if client_alone:
        agreed.append(("client_no_context_takeover", None))
    if server_bits < 15 or "server_max_window_bits" in offered:
        agreed.append(("server_max_window_bits", str(server_bits)))
    if "client_max_window_bits" in offered:
        agreed.append(("client_max_window_bits", str(client_bits)))
    return PerMessageDeflate(
        PERMESSAGE_DEFLATE,
        client_no_context_takeover=client_alone,
        server_no_context_takeover=server_alone,
        client_max_window_bits=client_bits,
        server_max_window_bits=server_bits,
        level=settings.level,
        memory_level=settings.memory_level,
        threshold=0 if compressed_only else settings.threshold,
        binary=settings.binary or compressed_only,
        parameters=agreed,
        backend=backend,
    )


def _takes_compressed_only(offered: Mapping[str, str | None]) -> bool:
    """Whether all messages to the client of an offer are compressed.

    libwebsockets 4.1 to 4.3 delivers an uncompressed message endlessly once compression has been agreed on. Its clients
    offer `client_no_context_takeover`, and browsers do not. All messages to such clients are compressed. For other
    clients that costs too much: compressing 50 bytes takes 7 us by isal and 4 us by zlib, as much as the rest of an
    echo. A stored block takes 1.4 us, but then the next larger message needs a new compressor, whose history contains
    the stored bytes.
    """
    return "client_no_context_takeover" in offered


@lru_cache
def _confirmed(
    settings: Compression, parameters: tuple[tuple[str, str | None], ...], backend: Backend
) -> PerMessageDeflate | None:
    """Returns the client's extension for a valid answer; None if the server exceeds the offered limits."""
    answer = dict(parameters)
    server_bits = _WINDOW_BITS[answer.get("server_max_window_bits") or "15"]
    client_bits = _WINDOW_BITS[answer.get("client_max_window_bits") or str(settings.client_max_window_bits)]
    if server_bits > settings.server_max_window_bits:
        return None
    server_alone = "server_no_context_takeover" in answer
    if not (server_alone or settings.server_context_takeover):
        return None
    return PerMessageDeflate(
        PERMESSAGE_DEFLATE,
        client_no_context_takeover="client_no_context_takeover" in answer or not settings.client_context_takeover,
        server_no_context_takeover=server_alone,
        client_max_window_bits=min(client_bits, settings.client_max_window_bits),
        server_max_window_bits=server_bits,
        client=True,
        level=settings.level,
        memory_level=settings.memory_level,
        threshold=settings.threshold,
        binary=settings.binary,
        parameters=parameters,
        backend=backend,
    )


def _is_valid(parameters: Parameters, may_lack_value: str | None = None) -> bool:
    """Whether the parameters conform to section 7.1: known names, each once, with the values that they may have."""
    names = set()
    for name, value in parameters:
        if name in names:
            return False
        if name in _FLAGS:
            if value is not None:
                return False
        elif name not in _SIZES or (value not in _WINDOW_BITS if value is not None else name != may_lack_value):
            return False
        names.add(name)
    return True


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


DEFAULT_NEGOTIATORS: Mapping[str, Negotiator] = {PERMESSAGE_DEFLATE: Compression().accept}
"""The extensions of a server that compresses, without other settings."""
