"""`Routes`: the routes of a server, compiled from `urlpatterns`, and the look-up of the view for a path."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from duck.contrib.websockets import WebSocketView
from duck.urls import Paths, check_parameters, compile_url
from duck.views import View

from ..errors import ServingError

__all__ = ["UVICORN", "HealthPathError", "Match", "Route", "Routes", "is_asgi"]

OFFERED_METHODS = ("GET", "HEAD", "POST")
UVICORN = "duck.contrib.websockets.uvicorn:WebSocketProtocol"
DEFAULT_METHODS = ("GET", "HEAD")


class HealthPathError(ServingError, ValueError):
    """The path of health checks is that of a route, which it would hide."""


class Route(NamedTuple):
    """A view and its paths.

    Attributes:
        methods: The HTTP methods that it answers; a WebSocket view answers, or refuses, any.
        is_websocket: Whether the handler takes over the connection.
        literal: The only path; None if the paths have parameters.
    """

    paths: Paths
    handler: Callable[..., Any]
    methods: tuple[str, ...]
    is_websocket: bool
    literal: str | None = None


class Match(NamedTuple):
    """The route of a path, and the URL parameters in the path."""

    route: Route
    kwargs: dict[str, Any]


class Routes:
    """The routes of an application, in the order of their trial.

    Attributes:
        first_page: The path of the first page that has no parameters; None if there is none.
    """

    def __init__(
        self,
        urlpatterns: Iterable[Mapping[str, Any]] | type[View],
        before: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Compiles the patterns.

        Args:
            urlpatterns: Results of `duck.urls.path` and `re_path`, or a view for every path.
            before: The route of health checks, which is tried first.

        Raises:
            TypeError: The routes are neither, or a handler is neither a `View` class nor a function.
            HealthPathError: A route has the path of the health checks.
            ValueError: A url is malformed, or a route answers no method that the server offers.
        """
        if isinstance(urlpatterns, type) and issubclass(urlpatterns, View):
            everything = Paths(re.compile(".*", re.DOTALL), {})
            self._routes = [Route(everything, urlpatterns, DEFAULT_METHODS, _is_websocket(urlpatterns))]
        elif isinstance(urlpatterns, list | tuple):
            self._routes = [_compile(pattern) for pattern in urlpatterns]
        else:
            advice = f"; an ASGI application is served by uvicorn --ws {UVICORN}" if callable(urlpatterns) else ""
            known = "a WebSocketView class nor a list of routes such as [path('/', Chat)]"
            raise TypeError(f"{urlpatterns!r} is neither {known}{advice}")
        pages = (route for route in self._routes if "GET" in route.methods and not route.is_websocket)
        self.first_page = next((route.literal for route in pages if route.literal is not None), None)
        own = [_compile(pattern) for pattern in before]
        for route in self._routes:
            if route.literal is not None and any(route.literal == other.literal for other in own):
                raise HealthPathError(
                    f"the health path {route.literal!r} is also the path of a route, which it would hide:"
                    " choose another health path"
                )
        self._routes[:0] = own
        # The match of each literal is found at its first request: finding all of them here would take quadratic time.
        literals = [route.literal for route in self._routes if route.literal is not None]
        self._literals: dict[str, Match | None] = dict.fromkeys(literals)

    def match(self, path: str) -> Match | None:
        """Returns the first route for a decoded path, or None."""
        match = self._literals.get(path)
        if match is None:
            match = self._find(path)
            if path in self._literals:
                self._literals[path] = match
        return match

    def _find(self, path: str) -> Match | None:
        for route in self._routes:
            kwargs = route.paths.match(path)
            if kwargs is not None:
                return Match(route, kwargs)
        return None


def _compile(pattern: Mapping[str, Any]) -> Route:
    if not isinstance(pattern, Mapping):
        raise TypeError(f"{pattern!r} is not a route: make it with duck.urls.path()")
    url, handler = pattern["url"], pattern["handler"]
    if (
        not callable(handler)
        or isinstance(handler, View)
        or (isinstance(handler, type) and not issubclass(handler, View))
    ):
        raise TypeError(f"the handler of {url!r}, {handler!r}, is neither a View nor a function")
    if is_asgi(handler):
        raise TypeError(
            f"the handler of {url!r}, {handler!r}, is an ASGI application: give the View class itself,"
            f" or serve the application by uvicorn --ws {UVICORN}"
        )
    paths = compile_url(url, regex=pattern["regex"])
    check_parameters(url, handler, paths.converters)
    literal = None if pattern["regex"] or paths.converters else url
    is_websocket = _is_websocket(handler)
    for method in () if is_websocket else pattern["methods"]:
        if method not in OFFERED_METHODS:
            raise ValueError(f"{url!r}: the server offers {', '.join(OFFERED_METHODS)} only, not {method}")
    return Route(paths, handler, _answered(pattern["methods"]), is_websocket, literal)


def is_asgi(value: Any) -> bool:
    """Whether a value has the arguments of an ASGI application."""
    try:
        return callable(value) and list(inspect.signature(value).parameters) == ["scope", "receive", "send"]
    except (TypeError, ValueError):  # a C function without a signature
        return False


def _is_websocket(handler: Callable[..., Any]) -> bool:
    return isinstance(handler, type) and issubclass(handler, WebSocketView)


def _answered(methods: Iterable[str]) -> tuple[str, ...]:
    """Returns the methods that a route answers; GET implies HEAD, and is the default."""
    wanted = set(methods) or set(DEFAULT_METHODS)
    if "GET" in wanted:
        wanted.add("HEAD")
    return tuple(method for method in OFFERED_METHODS if method in wanted)
