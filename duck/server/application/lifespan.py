"""The lifespan of an application: startup before the first connection, and shutdown after the last."""

import asyncio
import contextlib
import inspect
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from duck.contrib.websockets.protocol.stepping import is_cancelled

from ..errors import ServingError

__all__ = ["Lifespan", "LifespanError", "NoLifespanError", "running_lifespan"]

logger = logging.getLogger("duck.server")

_GRACE = 1.0  # seconds for a cancelled lifespan to end before the log says that it hangs
_HUNG = "the lifespan did not end within the shutdown timeout of %g s, nor when cancelled: it swallows CancelledError"

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""Called with the server; the result is entered before the first connection is accepted."""


class LifespanError(ServingError):
    """The lifespan of an application has failed, by the error that is the cause."""

    status = 1

    def __init__(self, message: str, error: BaseException | None = None) -> None:
        super().__init__(message, "".join(traceback.format_exception(error)) if error is not None else "")


class NoLifespanError(LifespanError, TypeError):
    """An object is not a lifespan."""


class HasState(Protocol):
    """An object that keeps the value of a lifespan."""

    state: Any


@contextlib.asynccontextmanager
async def running_lifespan(lifespan: Lifespan | None, server: HasState, shutdown_timeout: float) -> AsyncIterator[None]:
    """Enters a lifespan, stores its value as the server's `state`, and leaves the lifespan at the end of the block.

    The lifespan is left without an error, however the block ends, so that the code after its `yield` runs.

    Args:
        lifespan: The lifespan; None for none.
        server: The server.
        shutdown_timeout: Seconds after which the end of the lifespan is cancelled. If it swallows the cancellation, the
            log says so.

    Raises:
        LifespanError: The lifespan has failed, or its end was cancelled.
        NoLifespanError: The object is not a lifespan.
    """
    if lifespan is None:
        yield
        return
    try:
        manager = _manager(lifespan, server)
        server.state = await manager.__aenter__()
    except NoLifespanError:
        raise
    except (Exception, asyncio.CancelledError) as error:
        if is_cancelled(error):
            raise
        raise LifespanError(f"the lifespan failed at startup: {_words(error)}", error) from error
    try:
        yield
    finally:
        limit = asyncio.timeout(shutdown_timeout)
        hung = asyncio.get_running_loop().call_later(shutdown_timeout + _GRACE, logger.error, _HUNG, shutdown_timeout)
        try:
            async with limit:
                await manager.__aexit__(None, None, None)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            if limit.expired():
                words = f"did not end within the shutdown timeout of {shutdown_timeout:g} s, and was cancelled"
                raise LifespanError(f"the lifespan {words}", error) from error
            raise LifespanError(f"the lifespan failed: {_words(error)}", error) from error
        finally:
            hung.cancel()


def _manager(lifespan: Lifespan, server: HasState) -> AbstractAsyncContextManager[Any]:
    if not callable(lifespan):
        raise NoLifespanError(f"the lifespan {lifespan!r} is not a function that returns an async context manager")
    manager: Any = lifespan(server)
    if isinstance(manager, AbstractAsyncContextManager):
        return manager
    if inspect.iscoroutine(manager):
        manager.close()  # otherwise Python warns that it was never awaited
    raise NoLifespanError(
        f"the lifespan {lifespan!r} returned {type(manager).__name__}, which is not an async context manager;"
        " decorate it with contextlib.asynccontextmanager"
    )


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:  # of a task in a TaskGroup
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
