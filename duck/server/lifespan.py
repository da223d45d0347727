"""The lifespan of an application: things that start before the first connection and stop after the last."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

__all__ = ["Lifespan", "LifespanError", "alive"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""Called with the server; what it returns is entered before the first connection is accepted."""


class LifespanError(Exception):
    """The lifespan of an application has failed; the cause has its traceback."""


class HasState(Protocol):
    """Keeps the value of a lifespan."""

    state: Any


@contextlib.asynccontextmanager
async def alive(lifespan: Lifespan | None, server: HasState) -> AsyncIterator[None]:
    """Enter a lifespan, give its value to the server as `state`, and leave the lifespan at the end of the block.

    It is left without an error, whatever the end of the block was, so that the code behind its `yield` runs.

    Raises:
        LifespanError: It has failed.
        TypeError: It is no lifespan.
    """
    if lifespan is None:
        yield
        return
    manager = lifespan(server)
    if not isinstance(manager, AbstractAsyncContextManager):
        raise TypeError(
            f"the lifespan {lifespan!r} returned {type(manager).__name__}, which is no async context manager;"
            " decorate it with contextlib.asynccontextmanager"
        )
    try:
        server.state = await manager.__aenter__()
    except Exception as error:
        raise LifespanError(f"the lifespan failed at startup: {type(error).__name__}: {error}") from error
    try:
        yield
    finally:
        try:
            await manager.__aexit__(None, None, None)
        except Exception as error:
            raise LifespanError(f"the lifespan failed at shutdown: {type(error).__name__}: {error}") from error
