"""The run of a view's `on_handshake`, while the upgrade request waits for its response.

hook returns ----------------------------> 101, as changed by the hook
hook raises HandshakeError --------------> that refusal
hook raises or returns anything else ----> 500, and the exception is logged
no decision within HANDSHAKE_TIMEOUT ----> 503, and the hook is cancelled
the peer disconnects --------------------> no response, and the hook is cancelled
the server stops ------------------------> 503, and the hook is cancelled
"""

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

from ..exceptions import ConnectionClosed, HandshakeError
from ..logging import label, log_failure, logger
from ..protocol import stepping
from ..protocol.loop import receive_buffer
from ..sansio.handshake import Handshake, check_refusal
from .upgrade import EARLY_LIMIT

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

__all__ = ["Decision"]

Hook = Callable[[Handshake], Awaitable[object]]


class Decision:
    """One run of a hook.

    Args:
        hook: The `on_handshake` of a view.
        handshake: Its argument.
        timeout: Seconds for the decision; None for no limit.

    Attributes:
        CANCEL_TIMEOUT: Seconds within which a cancelled hook must end. A hook that takes longer is logged.
    """

    CANCEL_TIMEOUT = 1.0

    def __init__(self, hook: Hook, handshake: Handshake, timeout: float | None) -> None:
        self._hook = hook
        self._handshake = handshake
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None
        self._refusal: HandshakeError | None = None
        self._withdrawn = False  # whether `cancel` was called
        # The next two exist only if the hook waits.
        self._cancelled: asyncio.Future[None] | None = None  # completed by `cancel`
        self._over: asyncio.Future[None] | None = None  # completed at the end of `made`

    async def made(self) -> Context:
        """Runs the hook, and waits until it has accepted the handshake.

        Returns:
            The context of the hook, in which the connection must continue.

        Raises:
            HandshakeError: The handshake is refused.
            ConnectionClosed: The peer has disconnected.
        """
        loop = asyncio.get_running_loop()
        context = copy_context()
        self._task = task = stepping.start_task(loop, self._run(), context)
        try:
            if not task.done():
                await self._wait(task, loop)
        finally:
            if task.done():
                self._task = None  # the traceback of its cancellation refers to this object, in a cycle
        if task.cancelled() or self._withdrawn:
            raise HandshakeError(503, "the service is not available")
        refusal, self._refusal = self._refusal, None  # its traceback would refer to this object, in a cycle
        if refusal is not None:
            try:
                raise refusal
            finally:
                del refusal
        return context

    def cancel(self) -> None:
        """Refuses the handshake with 503, because the server stops."""
        self._withdrawn = True
        if self._cancelled is not None and not self._cancelled.done():
            self._cancelled.set_result(None)

    async def over(self, patience: float) -> None:
        """Waits for the decision, and refuses the handshake if the hook takes longer.

        Args:
            patience: Seconds that the hook may take.
        """
        if self._over is None:
            return
        await asyncio.wait([self._over], timeout=patience)
        if not self._over.done():
            self.cancel()
            await asyncio.wait([self._over])  # within CANCEL_TIMEOUT

    @property
    def running(self) -> list["asyncio.Task[None]"]:
        """The task of the hook, while it runs."""
        return [] if self._task is None or self._task.done() else [self._task]

    async def _wait(self, task: "asyncio.Task[None]", loop: asyncio.AbstractEventLoop) -> None:
        waiting = _Waiting(self._handshake.request, loop)
        gone = waiting.gone
        self._cancelled = cancelled = loop.create_future()
        self._over = over = loop.create_future()
        try:
            await asyncio.wait([task, gone, cancelled], timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=self.CANCEL_TIMEOUT)
                if not task.done():
                    logger.warning("%r: %s has not ended after its cancellation", self._label, self._name)
                if not gone.done() and not cancelled.done():
                    raise HandshakeError(503, "the handshake took too long", setting="HANDSHAKE_TIMEOUT")
        except CancelledError:
            task.cancel()
            raise
        finally:
            waiting.leave()
            over.set_result(None)
        if gone.done():
            raise ConnectionClosed
        if not task.done():
            raise HandshakeError(503, "the service is not available")

    async def _run(self) -> None:
        """Runs the hook; an exception in it is a refusal."""
        try:
            found = await stepping.checked(self._hook(self._handshake))
            if found is not None:
                # A hook that returns False means a refusal.
                raise TypeError(f"{self._name} returned {found!r}: return None to accept, or raise HandshakeError")
        except HandshakeError as error:
            self._refusal = error
            try:
                check_refusal(error)
            except Exception as mistake:  # such as AttributeError, where a subclass omits `super().__init__()`
                self._fail(mistake)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit, which would end the server
            if stepping.is_abandoned(error, asyncio.get_running_loop()):
                raise
            if isinstance(error, CancelledError) and self._task is not None and self._task.cancelling():
                raise
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._refusal = HandshakeError(500, "internal error")  # first, because a filter of the log may raise
        log_failure(error, "%r: error in %s", self._label, self._name)

    @property
    def _label(self) -> str:
        return label(self._handshake.request)

    @property
    def _name(self) -> str:
        return stepping.name_of(self._hook)


class _Waiting(asyncio.BufferedProtocol):
    """The protocol of the transport while a hook decides: it keeps the bytes of the peer, and detects its end.

    Attributes:
        gone: Completed when the peer has disconnected.
    """

    def __init__(self, request: "HttpRequest", loop: asyncio.AbstractEventLoop) -> None:
        assert request.transport is not None
        self._request = request
        self._transport = request.transport
        self._buffer = receive_buffer(loop)
        self.gone: asyncio.Future[None] = loop.create_future()
        self._before = self._transport.get_protocol()
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            self.gone.set_result(None)
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def leave(self) -> None:
        """Restores the previous protocol, with reading paused."""
        transport = self._transport
        if transport.get_protocol() is self:
            transport.set_protocol(self._before)
            if not transport.is_closing():
                transport.pause_reading()

    # From the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = self._buffer.unused()
        return self._buffer.window

    def buffer_updated(self, nbytes: int) -> None:
        request = self._request
        request.content += bytes(self._buffer.window[:nbytes])
        if len(request.content) >= EARLY_LIMIT:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        if self._before is not None:
            self._before.connection_lost(exc)
