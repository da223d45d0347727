"""The event loops available by name."""

import asyncio
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ServingError

__all__ = ["LOOPS", "LoopError", "loop_factory"]

LOOPS = ("auto", "asyncio", "uvloop")


class LoopError(ServingError):
    """A name gives no event loop."""


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Returns the factory of an event loop.

    Args:
        name: One of `LOOPS`, or `module:attribute` for a function without arguments that returns a loop.

    Raises:
        LoopError: The module has no such function, or cannot be imported; or uvloop is requested but not installed.
        ValueError: The name is unknown.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        return _checked(name, module, attribute)
    if name not in LOOPS:
        raise ValueError(f"{name!r} is not one of {', '.join(LOOPS)}, or the module:function of another loop")
    if name != "asyncio":
        try:
            import uvloop
        except ModuleNotFoundError:
            if name == "uvloop":
                raise LoopError("uvloop is not installed; install it, or choose the loop auto") from None
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


def _checked(name: str, module: str, attribute: str) -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        factory: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise LoopError(f"no loop {name}: {type(error).__name__}: {error}; give the module:function of one") from error

    def make() -> asyncio.AbstractEventLoop:
        try:
            loop: Any = factory()
        except Exception as error:
            raise LoopError(
                f"{name} creates no loop: {type(error).__name__}: {error}; give a function without arguments"
            ) from error
        if inspect.iscoroutine(loop):
            loop.close()  # otherwise Python warns that it was never awaited
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise LoopError(f"{name} returned {type(loop).__name__}, which is not an event loop")
        if loop.is_closed() or loop.is_running():
            raise LoopError(f"{name} returned a loop that is closed or runs already; it must create a new one")
        return loop

    return make
