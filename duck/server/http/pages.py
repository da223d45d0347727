"""The answers to requests for pages: a response of the route's view, or a refusal."""

import asyncio
import inspect
import logging
from collections.abc import Collection
from typing import Any

from duck.contrib.websockets.logging import cut, format_address, printable
from duck.contrib.websockets.protocol.stepping import is_abandoned, is_cancelled
from duck.contrib.websockets.sansio.origins import is_allowed
from duck.http.request import ClientAddress, HttpRequest
from duck.http.response import HttpResponse

from ..application.routes import Match
from .head import Refusal, RequestHead

__all__ = ["fault_of_post", "log_refusal", "plain", "respond"]

logger = logging.getLogger("duck.server")


def fault_of_post(
    request: HttpRequest, head: RequestHead, match: Match | None, allowed_origins: Collection[str] | None
) -> Refusal | None:
    """The refusal of a POST for a page of ours: without its body, or from a page of a foreign origin."""
    if head.method != "POST" or match is None or "POST" not in match.route.methods:
        return None
    if head.body is None:
        if "expect" in head.headers:
            return Refusal(417, "bodies are read without 100-continue only")
        return Refusal(413, "the body is longer than Limits.body_size, or belongs to an upgrade request")
    if not is_allowed(request, None if allowed_origins is None else tuple(allowed_origins)):
        origin = cut(request.get_header("origin", ""))
        return Refusal(403, f"pages of {origin!r} may not post: see allowed_origins")
    return None


async def respond(request: HttpRequest, match: Match | None, loop: asyncio.AbstractEventLoop) -> HttpResponse:
    """Asks the view for its response; an exception is logged and answered with 500."""
    if match is None:
        log_refusal(request.client_address, 404, "there is no route for %s", cut(request.target))
        return plain(404)
    route, kwargs = match
    if request.method not in route.methods:
        allowed = ", ".join(route.methods)
        words = "%s of %s, which answers %s: see methods of its route"
        log_refusal(request.client_address, 405, words, request.method, cut(request.target), allowed)
        return plain(405, headers=[("Allow", allowed)])
    try:
        result = route.handler(request, **kwargs)
        if isinstance(route.handler, type):
            result = result.run(request, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, HttpResponse):
            result.check()
            return result
        if isinstance(result, str | bytes):
            return HttpResponse(result)
        advice = "return a str, bytes or an HttpResponse, such as HttpResponse(text, content_type='application/json')"
        raise TypeError(f"{route.handler!r} returned {type(result).__name__}, not a response: {advice}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # such as SystemExit, which would end the server
        if is_cancelled(error) or is_abandoned(error, loop):
            raise
        logger.exception("the view for %r failed", request)
        return plain(500)


def log_refusal(address: ClientAddress, status: int, reason: str, *words: str) -> None:
    """Logs a refusal; `words` are the arguments of a `reason` with fields."""
    if logger.isEnabledFor(logging.INFO):
        reason = printable(reason % words if words else reason)
        logger.info("%s refused with %d: %s", format_address(address), status, reason)


def plain(status: int, **kwargs: Any) -> HttpResponse:
    """Returns a response without a body beyond its status."""
    return HttpResponse(f"{status}\n", status, "text/plain; charset=utf-8", **kwargs)
