"""`PerMessageDeflate`: it inflates any payload as zlib does, or refuses it; zlib inflates its output."""

import zlib
from collections.abc import Iterator

from duck.contrib.websockets.codec import deflate
from duck.contrib.websockets.exceptions import ExtensionError, PayloadTooBig
from duck.contrib.websockets.extensions import PerMessageDeflate

from .choices import Choices

__all__ = ["check", "seeds"]

TAIL = b"\x00\x00\xff\xff"
MAX_SIZES = (2**16, 0, 1, 100, None)


def _backends() -> Iterator[deflate.Backend]:
    for name in deflate.BACKENDS:
        try:
            yield deflate.load(name)
        except ImportError:
            continue


BACKENDS = list(_backends())


def check(data: bytes) -> None:
    """Inflates some messages, of which each may refer to those before it, and sends them back."""
    choices = Choices(data)
    options, bits, max_size = choices.number(), 9 + choices.number() % 7, choices.pick(MAX_SIZES)
    takeover = not options & 1
    peer = zlib.compressobj(wbits=-bits)
    reference = zlib.decompressobj(wbits=-bits)
    extensions = [
        PerMessageDeflate(
            "permessage-deflate", not takeover, not takeover, bits, server_max_window_bits=bits, backend=backend
        )
        for backend in BACKENDS
    ]
    returned = [zlib.decompressobj(wbits=-bits) for _ in BACKENDS]
    while choices:
        if not takeover:
            peer, reference = zlib.compressobj(wbits=-bits), zlib.decompressobj(wbits=-bits)
            returned = [zlib.decompressobj(wbits=-bits) for _ in BACKENDS]
        is_good, payload = choices.pick((True, False)), choices.take(choices.number()) * choices.pick((1, 1, 30))
        message = payload
        if is_good:
            payload = (peer.compress(message) + peer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
        goes_on = is_good
        for number, extension in enumerate(extensions):
            try:
                inflated = extension.decompress(payload, max_size)
            except PayloadTooBig:
                assert max_size is not None and (not is_good or len(message) > max_size)
                goes_on = False
                continue
            except ExtensionError:
                assert not is_good
                continue
            assert max_size is None or len(inflated) <= max_size
            if number == 0:
                message = inflated if not is_good else message
                _compare(reference, payload, inflated)
            assert inflated == message, extension
            back = extension.compress(inflated)
            assert returned[number].decompress(back + TAIL) == inflated
        if not goes_on:
            return  # a message that is refused ends the connection


def _compare(reference: "zlib._Decompress", payload: bytes, inflated: bytes) -> None:
    """The result of the codec is that of zlib."""
    expected = reference.decompress(payload + TAIL) if payload else b""
    assert inflated == expected


def seeds() -> Iterator[bytes]:
    """Valid and invalid messages."""
    for options in (0, 1):
        for bits in (0, 3, 6):
            start = bytes([options, bits, 0])
            hello = bytes([0, 5]) + b"hello" + bytes([0])
            long = bytes([0, 26]) + bytes(range(97, 123)) + bytes([2])
            yield start + hello * 3
            yield start + hello + long * 3 + bytes([0, 0, 0])
            for broken in (
                b"\xff\xff\xff",
                b"\x00",
                b"\x01\x00\x00\xff\xff",
                b"\x03\x00",
                b"\xf3\x48\xcd\xc9\xc9\x07\x00",
                b"\x02\x00\x00\x00\xff\xff",
            ):
                yield start + hello + bytes([1, len(broken)]) + broken + bytes([0])
            yield bytes([options, bits, 3]) + long
