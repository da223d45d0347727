"""Routes from URLs to views, for the `urlpatterns` of an application: `path` and `re_path`."""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["Paths", "URLPattern", "check_parameters", "compile_url", "path", "re_path"]

# Kinds of parameters: an expression, and a converter. 18 digits fit into 64 bits, and int() refuses very long numbers.
_CONVERTERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "str": ("[^/]+", str),
    "int": ("[0-9]{1,18}", int),
    "path": (".+?", str),
}

_PARAMETER = re.compile(r"<(?:([^<>:]*):)?([^<>:]*)>")

_FOREIGN_PARAMETER = re.compile(r"\{(\w*)[^{}]*\}?|\}|(?<=/):(\w+)(?=/|$)")  # {name} or :name of other frameworks

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 9.1

Converters = dict[str, Callable[[str], Any]]


class Paths(NamedTuple):
    """The paths of a route.

    Attributes:
        expression: Matches such a path as a whole.
        converters: A converter for each parameter, a named group of the expression.
    """

    expression: re.Pattern[str]
    converters: Converters

    def match(self, path: str) -> dict[str, Any] | None:
        """Returns the parameters of the route in a decoded path; None for a path that does not match."""
        found = self.expression.fullmatch(path)
        if found is None:
            return None
        return {name: convert(found[name]) for name, convert in self.converters.items() if found[name] is not None}


class URLPattern(dict[str, Any]):
    """A route, as a dict with `url`, `handler`, `name`, `methods` and `regex`."""

    __slots__ = ()

    def __init__(
        self,
        url: str,
        handler: Callable[..., Any],
        name: str | None = None,
        methods: Iterable[str] | str | None = None,
        regex: bool = False,
    ) -> None:
        names = [methods] if isinstance(methods, str) else list(methods or ())
        for method in names:
            if not isinstance(method, str) or not _METHOD.fullmatch(method):
                raise ValueError(f'{url!r}: {method!r} is not an HTTP method; write methods=["GET"]')
        methods = [method.upper() for method in names]
        super().__init__(url=url, handler=handler, name=name, methods=methods, regex=regex)

    @property
    def regex(self) -> bool:
        """Whether `url` is a regular expression."""
        return bool(self["regex"])

    def match(self, path: str) -> dict[str, Any] | None:
        """Returns the parameters of the route in a decoded path; None for a path that does not match."""
        return compile_url(self["url"], self.regex).match(path)

    def __repr__(self) -> str:
        return f"<URLPattern {super().__repr__()}>"


def path(
    url: str,
    view: Callable[..., Any],
    name: str | None = None,
    methods: Iterable[str] | str | None = None,
) -> URLPattern:
    """Returns a route for a path such as `/rooms/<name>/<int:page>`.

    `<name>` matches a segment or a part of one, `<int:name>` a decimal number of up to 18 digits, `<path:name>` one or
    more whole segments. A slash at the end makes no difference. The notations `{name}` and `:name` of other frameworks
    are refused; `re_path` accepts such a path literally.

    Args:
        url: The pattern. It starts with a slash and has at most one parameter in a segment.
        view: A `View` class; or a function or coroutine function, called with the request and the parameters by name.
        name: Name of the route.
        methods: HTTP methods of the route, as a list or one str. By default GET, and HEAD, which GET includes. The
            embedded server offers POST as well.

    Raises:
        TypeError: The pattern is not a str.
        ValueError: The pattern is malformed, or a parameter has the name of another argument of the view.
    """
    check_parameters(url, view, compile_url(url).converters)
    return URLPattern(url, view, name, methods)


def re_path(
    url: str,
    view: Callable[..., Any],
    name: str | None = None,
    methods: Iterable[str] | str | None = None,
) -> URLPattern:
    """Returns a route for paths that match a regular expression as a whole.

    Args:
        url: The expression. Its named groups are the parameters, as str.
        view: As for `path`.
        name: Name of the route.
        methods: As for `path`.

    Raises:
        ValueError: The expression is invalid, or a group has the name of another argument of the view.
    """
    check_parameters(url, view, compile_url(url, regex=True).converters)
    return URLPattern(url, view, name, methods, regex=True)


def compile_url(url: str, regex: bool = False) -> Paths:
    """Compiles the pattern of a route.

    Raises:
        TypeError: The pattern of a path is not a str.
        ValueError: The pattern is malformed. The message describes the error.
    """
    if regex:
        try:
            expression = re.compile(url)
        except re.error as error:
            raise ValueError(f"{url!r} is not a regular expression: {error}") from None
        converters: Converters = dict.fromkeys(expression.groupindex, str)
    else:
        if not isinstance(url, str):
            raise TypeError(f"a path is a str such as '/rooms/<name>', not {url!r}")
        if not url.startswith("/"):
            raise ValueError(f"{url!r} does not start with a slash")
        if foreign := _FOREIGN_PARAMETER.search(url):
            name = foreign[1] or foreign[2] or "name"
            raise ValueError(f"{url!r}: a parameter is written <{name}>, not {foreign[0]}")
        if "(?" in url:
            raise ValueError(f"{url!r}: this is a regular expression; give it to re_path")
        if "?" in url or "#" in url:
            raise ValueError(f"{url!r}: a path ends before ? and #; a view finds the query in request.query")
        converters = {}
        parts = url.removesuffix("/").split("/")
        segments = [_compile_segment(url, part, converters) for part in parts]
        if url.count("<path:") > 1:
            # With two of them, the matching of a path could take quadratic time.
            raise ValueError(f"{url!r} has more than one <path:...>")
        expression = re.compile("/".join(segments) + "/?", re.DOTALL)
    return Paths(expression, converters)


def check_parameters(url: str, view: Callable[..., Any], names: Iterable[str]) -> None:
    """Refuses parameters with the name of another argument of the view.

    Raises:
        ValueError: A parameter has such a name, so that each request would fail.
    """
    taken = {"request", "self", *_positional(view)}
    for name in names:
        if name in taken:
            raise ValueError(f"{url!r}: {name} is the name of another argument of the view; choose another name")


def _positional(view: Callable[..., Any]) -> set[str]:
    """Returns the names of a view's positional arguments: the request, and `self` of a method."""
    calls: list[tuple[Any, int]] = [(view, 1)]
    if isinstance(view, type):
        calls = [(getattr(view, name, None), 2) for name in ("__init__", "run")]
    found: set[str] = set()
    for function, count in calls:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            continue  # the view is not callable, which the host reports, or is a C function without a signature
        found.update(one.name for one in parameters[:count] if one.kind is one.POSITIONAL_OR_KEYWORD)
    return found


def _compile_segment(url: str, segment: str, converters: Converters) -> str:
    """Returns the expression for one segment, and adds its parameter to `converters`."""
    match = _PARAMETER.search(segment)
    before, after = (segment[: match.start()], segment[match.end() :]) if match else (segment, "")
    if re.search("[<>]", before + after):
        # With two parameters in a segment, the matching of a path could take quadratic time.
        raise ValueError(f"{url!r}: {segment!r} must have at most one parameter, <name>")
    if match is None:
        return re.escape(segment)
    kind, name = match[1], match[2]
    if kind is None:
        kind = "str"
    if kind not in _CONVERTERS:
        raise ValueError(f"{url!r}: {kind!r} is not one of {', '.join(_CONVERTERS)}")
    if not name.isidentifier():
        raise ValueError(f"{url!r}: {name!r} cannot be the name of an argument")
    if name in converters:
        raise ValueError(f"{url!r}: {name!r} is repeated")
    if kind == "path" and (before or after):
        raise ValueError(f"{url!r}: <path:{name}> must stand alone between slashes")
    matches, convert = _CONVERTERS[kind]
    converters[name] = convert
    return f"{re.escape(before)}(?P<{name}>{matches}){re.escape(after)}"
