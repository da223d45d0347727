"""The shutdown of a server: running work gets time to end, then is cancelled, and is finally abandoned."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.logging import cut
from duck.contrib.websockets.protocol.lingering import Lingering
from duck.contrib.websockets.protocol.transports import abort_transport
from duck.http.request import HttpRequest

from .http.protocol import HttpProtocol

__all__ = ["Work", "abort", "drain", "shut_down"]

logger = logging.getLogger("duck.server")

_CLOSING_TIME = 1.0  # seconds of the shutdown reserved for the closing handshakes
_STEP = 0.01  # seconds between two steps of draining, at least
_POLL = 0.2  # seconds within which the end of all views is noticed
_FIRST_REQUEST = 1.0  # seconds for the first request of a new connection when the server is replaced
_NAMED = 10  # hanging views and pages named in the log


class Work:
    """The running work of a server.

    Attributes:
        protocols: The connections that speak HTTP.
        answers: The tasks that answer requests.
        views: The WebSocket views, by the future that ends with their connection.
        lingering: The connections of views whose clients still read their last response, such as a refusal.
        CANCEL_TIMEOUT: Seconds within which cancelled work must end. Work that takes longer is abandoned.
    """

    CANCEL_TIMEOUT = 2.0

    __slots__ = ("_closings", "_connection_lost", "answers", "lingering", "protocols", "views")

    def __init__(self) -> None:
        self.protocols: set[HttpProtocol] = set()
        self.answers: dict[asyncio.Task[None], HttpRequest] = {}
        self.views: dict[asyncio.Future[None], WebSocketView] = {}
        self.lingering: set[Lingering] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self._connection_lost = asyncio.Event()

    def forget(self, protocol: HttpProtocol) -> None:
        """Removes a connection that is lost, or no longer speaks HTTP."""
        self.protocols.discard(protocol)
        self._connection_lost.set()

    def linger(self, lingering: Lingering, ended: Callable[[], None]) -> None:
        """Keeps a connection until it is lost, and then calls a function."""

        def lost(error: Exception | None) -> None:
            self.lingering.discard(lingering)
            self._connection_lost.set()
            ended()

        self.lingering.add(lingering)
        lingering.when_lost(lost)

    async def ended(self, patience: float) -> bool:
        """Waits for the end of all work.

        Args:
            patience: Seconds to wait.

        Returns:
            Whether all work has ended in time.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while running := {*self.answers, *self.views, *self._closings}:
                    await asyncio.wait(running)
                while self.protocols or self.lingering:
                    self._connection_lost.clear()
                    await self._connection_lost.wait()
            return True
        return False

    async def until_requested(self) -> None:
        """Waits a short time for the requests of clients that have just connected."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_REQUEST):
                while any(protocol.is_fresh for protocol in self.protocols):  # noqa: ASYNC110
                    await asyncio.sleep(_STEP)

    def close_view(self, view: WebSocketView, patience: float, code: int) -> None:
        """Closes a WebSocket once its running handlers have ended.

        Args:
            patience: Seconds to wait for the handlers.
        """
        closing = asyncio.get_running_loop().create_task(_close_view(view, patience, code))
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    def cancel(self) -> None:
        """Cancels all tasks, and drops all connections."""
        for closing in self._closings:
            closing.cancel()
        for answer in self.answers:
            answer.cancel()
        for ended, view in list(self.views.items()):
            if isinstance(ended, asyncio.Task):
                ended.cancel()
            else:
                view.terminate()
        for protocol in list(self.protocols):
            protocol.abort()
        for lingering in list(self.lingering):
            lingering.abort()


async def drain(work: Work, seconds: float, code: int) -> None:
    """Closes the WebSockets one by one in even steps, so that their clients do not return all at once.

    Args:
        work: Has the views; later ones are not closed.
        seconds: The time from the first to the last. It ends early once no view is left.
        code: The close code.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    views = list(work.views.items())
    for number, (ended, view) in enumerate(views):
        while (wait := begin + seconds * number / len(views) - loop.time()) > _STEP and work.views:  # noqa: ASYNC110
            await asyncio.sleep(min(wait, _POLL))
        if not ended.done():
            work.close_view(view, seconds, code)


async def shut_down(work: Work, patience: float, code: int) -> list[str]:
    """Ends all work of a server that no longer accepts connections.

    Args:
        work: The running work.
        patience: Seconds until the remaining work is cancelled.
        code: The close code for WebSockets.

    Returns:
        The names of views and pages that did not end when cancelled, and were abandoned.
    """
    for protocol in list(work.protocols):
        protocol.shut_down()
    for_handlers = patience - min(patience / 4, _CLOSING_TIME)
    for view in work.views.values():
        work.close_view(view, for_handlers, code)
    if await work.ended(patience):
        return []
    work.cancel()
    return [] if await work.ended(work.CANCEL_TIMEOUT) else _give_up(work)


async def _close_view(view: WebSocketView, patience: float, code: int) -> None:
    try:
        await view.drain(patience)
        await view.send_close(code, "server shutting down")
    except Exception:
        logger.debug("cannot close the connection of %r", view.request, exc_info=True)


def _give_up(work: Work) -> list[str]:
    """Aborts the connections of hanging work, and logs its names."""
    hung = [
        *(f"{type(view).__name__} at {cut(view.request.path)!r}" for view in work.views.values()),
        *(f"the page at {cut(request.path)!r}" for request in work.answers.values()),
    ]
    for view in work.views.values():
        abort(view)
    if hung:
        names = ", ".join(hung[:_NAMED]) + (", ..." if len(hung) > _NAMED else "")
        logger.error("%d did not end when cancelled, and were abandoned: %s", len(hung), names)
    return hung


def abort(view: WebSocketView) -> None:
    """Drops the connection of a view."""
    transport = view.request.transport
    if transport is not None:
        abort_transport(transport)
