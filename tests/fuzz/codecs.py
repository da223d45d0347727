"""The codecs to compare: the pure-Python one and, where it is built, the compiled one."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from duck.contrib.websockets import _codec, _fallback

try:
    from duck.contrib.websockets import _speedups
except ImportError:
    CODECS: tuple[ModuleType, ...] = (_fallback,)
else:
    CODECS = (_fallback, _speedups)

__all__ = ["CODECS", "using"]

_NAMES = ("FrameWriter", "MessageReader", "apply_mask", "build_header", "parse_header", "serialize", "utf8_state")


@contextmanager
def using(codec: ModuleType) -> Iterator[None]:
    """Has connections made that run on this codec, and mask with four bytes that are always the same."""
    before = {name: getattr(_codec, name) for name in (*_NAMES, "new_mask")}
    for name in _NAMES:
        setattr(_codec, name, getattr(codec, name))
    _codec.new_mask = lambda: b"\x37\xfa\x21\x3d"
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(_codec, name, value)
