"""The whole codec in plain Python: the specification of `_speedups`, which has the same names."""

from typing import Final

from . import numbers
from .burst import Burst
from .clock import Clock
from .counters import SECONDS, Counters, Histogram
from .deadline import Deadline
from .dispatcher import Dispatcher
from .header import build_header, parse_header, serialize
from .hotpath import HotPath, ReceiveBuffer, fan_out
from .inbox import Inbox, NextMessage
from .numbers import *  # noqa: F403
from .payload import apply_mask, utf8_state
from .reader import MessageReader
from .sent import SENT, Sent
from .waiter import Waiter
from .watching import type_version, watching
from .worker import Worker
from .writer import FrameWriter, MaskingWriter

__all__ = [
    "IMPLEMENTATION",
    "SECONDS",
    "SENT",
    "SIMD_TIER",
    "SIMD_TIERS",
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
    "Sent",
    "Waiter",
    "Worker",
    "apply_mask",
    "build_header",
    "fan_out",
    "parse_header",
    "serialize",
    "type_version",
    "utf8_state",
    "watching",
]
__all__ += numbers.__all__

IMPLEMENTATION: Final = "python"
SIMD_TIERS: Final[tuple[str, ...]] = ()
SIMD_TIER: Final = "none"
