"""The lifespan of an application: start-up before the first connection, and clean-up after the last."""

import asyncio
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
async def alive(lifespan: Lifespan | None, server: HasState, shutdown_timeout: float) -> AsyncIterator[None]:
    """Enter a lifespan, store its value as the server's `state`, and leave the lifespan at the end of the block.

    The lifespan is left without an error, however the block ends, so that the code after its `yield` runs.

    Args:
        lifespan: The lifespan; None for none.
        server: The server.
        shutdown_timeout: Seconds after which the end of the lifespan is cancelled.

    Raises:
        LifespanError: The lifespan has failed, or its end was cancelled.
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
        limit = asyncio.timeout(shutdown_timeout)
        try:
            async with limit:
                await manager.__aexit__(None, None, None)
        except Exception as error:
            if limit.expired():
                raise LifespanError(
                    f"the lifespan did not end within the shutdown timeout of {shutdown_timeout:g} s, and was cancelled"
                ) from error
            raise LifespanError(f"the lifespan failed at shutdown: {type(error).__name__}: {error}") from error
