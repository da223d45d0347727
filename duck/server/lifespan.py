"""The lifespan of an application: start-up before the first connection, and clean-up after the last."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

__all__ = ["Lifespan", "LifespanError", "alive"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""Called with the server; what it returns is entered before the first connection is accepted."""


class LifespanError(Exception):
    """The lifespan of an application has failed. The traceback is in the cause."""


class HasState(Protocol):
    """An object that keeps the value of a lifespan."""

    state: Any


@contextlib.asynccontextmanager
async def alive(lifespan: Lifespan | None, server: HasState) -> AsyncIterator[None]:
    """Enter a lifespan, store its value as the server's `state`, and leave the lifespan at the end of the block.

    The lifespan is left without an error, however the block ends, so that the code after its `yield` runs.

    Raises:
        LifespanError: The lifespan has failed.
        TypeError: The object is no lifespan.
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
