"""The timeouts that callers pass: numbers of seconds."""

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

__all__ = ["checked_timeout", "within"]

T = TypeVar("T")


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


async def within(timeout: float | None, waiting: Awaitable[T], explain: Callable[[], str]) -> T:
    """Awaits for at most `timeout` seconds; `explain` returns the text of the TimeoutError."""
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            return await waiting
    except TimeoutError:
        if not deadline.expired():
            raise
        raise TimeoutError(explain()) from None
