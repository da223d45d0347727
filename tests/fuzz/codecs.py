"""The codecs to compare: the pure-Python one and, where it is built, the compiled one."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from duck.contrib.websockets import codec as chosen
from duck.contrib.websockets.codec import pure

try:
    from duck.contrib.websockets import _speedups
except ImportError:
    CODECS: tuple[ModuleType, ...] = (pure,)
else:
    CODECS = (pure, _speedups)

__all__ = ["CODECS", "using"]

_NAMES = (
    "FrameWriter",
    "MaskingWriter",
    "MessageReader",
    "apply_mask",
    "build_header",
    "parse_header",
    "serialize",
    "utf8_state",
)


@contextmanager
def using(codec: ModuleType) -> Iterator[None]:
    """Makes new connections use this codec, and a constant mask."""
    before = {name: getattr(chosen, name) for name in (*_NAMES, "random_bytes")}
    for name in _NAMES:
        setattr(chosen, name, getattr(codec, name))
    chosen.random_bytes = lambda size: b"\x37\xfa\x21\x3d" * (size // 4)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(chosen, name, value)
