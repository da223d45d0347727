"""The codec: bytes to messages and back, and the hot path. Other modules import it from here.

This module chooses between the compiled codec, `_speedups`, and its pure-Python twin, `codec.pure`:

    DUCK_NO_EXTENSIONS=1       the twin, without a warning
    DUCK_REQUIRE_SPEEDUPS=1    the compiled codec, or an ImportError
"""

import os
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the twins share no class, only their shape
    from .pure import (
        CORK_LIMIT,
        FIN,
        MAX_LENGTH,
        MESSAGE_COST,
        NOT_TEXT,
        RSV1,
        SECONDS,
        SENT,
        UTF8_REJECT,
        Burst,
        Clock,
        Counters,
        Deadline,
        Dispatcher,
        FrameWriter,
        Histogram,
        HotPath,
        Inbox,
        MaskingWriter,
        MessageReader,
        NextMessage,
        ReceiveBuffer,
        Waiter,
        apply_mask,
        build_header,
        fan_out,
        parse_header,
        serialize,
        type_version,
        utf8_state,
        watching,
    )

__all__ = [
    "CORK_LIMIT",
    "FIN",
    "MAX_LENGTH",
    "MESSAGE_COST",
    "NOT_TEXT",
    "RSV1",
    "SECONDS",
    "SENT",
    "UTF8_REJECT",
    "Burst",
    "Clock",
    "Counters",
    "Deadline",
    "Dispatcher",
    "FrameWriter",
    "Histogram",
    "HotPath",
    "Inbox",
    "MaskingWriter",
    "MessageReader",
    "NextMessage",
    "ReceiveBuffer",
    "Waiter",
    "apply_mask",
    "build_header",
    "describe",
    "fan_out",
    "new_mask",
    "parse_header",
    "random_bytes",
    "serialize",
    "type_version",
    "utf8_state",
    "watching",
]


def _choose() -> tuple[ModuleType, str]:
    """Returns the chosen module, and the reason for the choice."""
    required = os.environ.get("DUCK_REQUIRE_SPEEDUPS", "") not in ("", "0")
    if os.environ.get("DUCK_NO_EXTENSIONS", "") not in ("", "0"):
        if required:
            raise ImportError("DUCK_NO_EXTENSIONS and DUCK_REQUIRE_SPEEDUPS are both set: unset one")
        return _pure(), "DUCK_NO_EXTENSIONS is set"
    try:
        from .. import _speedups
    except ImportError as error:
        if error.name == "DUCK_SIMD":  # it loads, and the twin would not be what was asked for either
            raise
        # If the codec is built but does not load, the message must show the cause.
        missing = isinstance(error, ModuleNotFoundError) or "cannot import name" in str(error)
        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        why = f"it was not built in {folder}" if missing else f"it does not load: {str(error).rstrip('.')}"
        advice = _advice(folder)
        if "interpreter" in str(error):  # a process loads it once
            advice = "Use the main interpreter (in mod_wsgi: `WSGIApplicationGroup %{GLOBAL}`)"
        if required:
            raise ImportError(f"the compiled codec is required, but {why}. {advice}.") from error
        warnings.warn(
            f"duck-websockets runs on its pure-Python codec, which is many times slower than the compiled one: {why}."
            f" {advice}, or set DUCK_NO_EXTENSIONS=1 if this is what you want.",
            RuntimeWarning,
            stacklevel=2,
        )
        return _pure(), why
    return _speedups, "it is built and loads"


def _advice(folder: str) -> str:
    """Returns advice on getting the compiled codec.

    A source tree in the working directory hides the installed package, so it gets advice of its own.
    """
    checkout = os.path.abspath(os.path.join(folder, "..", "..", ".."))
    if os.path.isfile(os.path.join(checkout, "setup.py")) and os.path.isfile(os.path.join(folder, "_speedups.pyx")):
        return (
            f"{checkout} is a source tree: run Python from another folder (or as `python -P`) to import the installed"
            " package, or compile this one (`DUCK_BUILD_EXTENSION=yes python setup.py build_ext --inplace`)"
        )
    return (
        "Reinstall with a C compiler at hand (`pip install --force-reinstall --no-cache-dir --no-binary"
        " duck-websockets duck-websockets`)"
    )


def _pure() -> ModuleType:
    """Imports the twin; only if it is chosen, because the import takes time."""
    from . import pure

    return pure


_module, _why = _choose()

if not TYPE_CHECKING:
    globals().update({name: value for name, value in vars(_module).items() if name in __all__})


random_bytes = os.urandom
"""The source of unpredictable masks (RFC 6455, section 5.3)."""


def new_mask() -> bytes:
    """Returns a new mask of 4 bytes."""
    return random_bytes(4)


def describe() -> dict[str, str]:
    """Describes the chosen codec: its kind, the reason for the choice, and its SIMD tier."""
    return {
        "codec": "pure Python" if _module.IMPLEMENTATION == "python" else "compiled",
        "reason": _why,
        "simd": _module.SIMD_TIER,
        "simd tiers": ", ".join(_module.SIMD_TIERS) or "none",
    }
