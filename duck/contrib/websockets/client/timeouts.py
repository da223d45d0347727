"""The timeouts that callers pass: numbers of seconds."""

import math
import sys
from typing import Any

__all__ = ["checked_timeout"]


def checked_timeout(name: str, value: Any) -> float | None:
    """Returns a valid timeout: None for no limit, also for infinity; with 0 or less a wait ends at once.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is NaN, which disorders the timers of a loop, or exceeds the range of a float.
    """
    if value is None or value == math.inf:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, or None for no limit, not {value!r}")
    if not abs(value) <= sys.float_info.max and value != -math.inf:
        raise ValueError(f"{name} is a number of seconds, or None for no limit, not {value!r}")
    return value
