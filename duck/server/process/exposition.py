"""The metrics of a server for Prometheus, at a separate address: `duck serve --metrics HOST:PORT`."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from duck.contrib.websockets.metrics import Stats
from duck.http.request import HttpRequest
from duck.http.response import HttpResponse
from duck.urls import path

from ..addresses import split_address
from ..errors import ServingError
from ..limits import Limits
from ..serving import serve

__all__ = ["ExpositionError", "exposing", "prometheus"]

logger = logging.getLogger("duck.server")

_CONNECTIONS = 32  # of scrapers at a time


class ExpositionError(ServingError):
    """The metrics cannot be served."""


def prometheus() -> Any:
    """Imports the module for Prometheus.

    Raises:
        ExpositionError: prometheus_client is not installed.
    """
    try:
        from duck.contrib.websockets.metrics import prometheus as module
    except ModuleNotFoundError:
        raise ExpositionError("metrics need prometheus_client: pip install 'duck-websockets[metrics]'") from None
    return module


@contextlib.asynccontextmanager
async def exposing(address: str | None, stats: Callable[[], Awaitable[Stats]]) -> AsyncIterator[None]:
    """Serves `/metrics` for the duration of the block, by the running loop.

    Args:
        address: The address, as `HOST:PORT`; None for no metrics.
        stats: Returns the current counts.

    Raises:
        ExpositionError: prometheus_client is not installed, or the address is not available.
    """
    if address is None:
        yield
        return
    module = prometheus()

    async def metrics(request: HttpRequest) -> HttpResponse:
        return HttpResponse(module.render(await stats()), 200, module.CONTENT_TYPE_LATEST)

    host, port = split_address(address)
    async with contextlib.AsyncExitStack() as stack:
        try:
            limits = Limits(connections=_CONNECTIONS)
            page = path("/metrics", metrics)
            server = await stack.enter_async_context(serve([page], host, port, limits=limits, shutdown_timeout=1.0))
        except OSError as error:
            raise ExpositionError(
                f"cannot serve metrics at {address}: {error.strerror or error}; choose another --metrics"
            ) from error
        logger.info("metrics at %s/metrics", server.addresses[0].replace("ws", "http", 1))
        yield
