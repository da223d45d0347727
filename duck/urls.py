"""Which URL goes to which view: the `urlpatterns` of an application."""

import re
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["CONVERTERS", "URLPattern", "compile_url", "path", "re_path"]

# Kind of a parameter: what it matches, and what makes its value. Eighteen digits fit 64 bits, and
# int() refuses very long ones.
CONVERTERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "str": ("[^/]+", str),
    "int": ("[0-9]{1,18}", int),
    "path": (".+?", str),
}

_PARAMETER = re.compile(r"<(?:([^<>:]*):)?([^<>:]*)>")

Converters = dict[str, Callable[[str], Any]]


class URLPattern(dict[str, Any]):
    """A route: `url`, `handler`, `name`, `methods`, and whether the url is a `regex`."""

    __slots__ = ()

    def __init__(
        self,
        url: str,
        handler: Callable[..., Any],
        name: str | None = None,
        methods: Iterable[str] | None = None,
        regex: bool = False,
    ) -> None:
        methods = [method.upper() for method in methods or ()]
        super().__init__(url=url, handler=handler, name=name, methods=methods, regex=regex)

    @property
    def regex(self) -> bool:
        """Whether the url is a regular expression."""
        return bool(self["regex"])

    def __repr__(self) -> str:
        return f"<URLPattern {super().__repr__()}>"


def path(
    url: str,
    view: Callable[..., Any],
    name: str | None = None,
    methods: Iterable[str] | None = None,
) -> URLPattern:
    """A route for a path such as `/rooms/<name>/<int:page>`.

    `<name>` stands for a segment or a part of one, `<int:name>` for a decimal number of up to 18
    digits, `<path:name>` for one or more whole segments. A slash at the end makes no difference.

    Args:
        view: A `View` class, or a function, plain or coroutine, called with the request and the
            parameters by name.
        name: A name for the route.
        methods: The HTTP methods it answers; all that the host offers when empty.

    Raises:
        ValueError: The url is malformed.
    """
    compile_url(url)
    return URLPattern(url, view, name, methods)


def re_path(
    url: str,
    view: Callable[..., Any],
    name: str | None = None,
    methods: Iterable[str] | None = None,
) -> URLPattern:
    """A route for the whole paths that a regular expression matches.

    Args:
        url: The expression; its named groups are the parameters, given as str.
        view: As for `path`.
        name: A name for the route.
        methods: As for `path`.

    Raises:
        ValueError: The url is no regular expression.
    """
    compile_url(url, regex=True)
    return URLPattern(url, view, name, methods, regex=True)


def compile_url(url: str, regex: bool = False) -> tuple[re.Pattern[str], Converters]:
    """Turn a route's url into an expression for whole paths.

    Returns:
        The expression, and for each of its named groups what makes the parameter's value.

    Raises:
        ValueError: The url is malformed; the message says how.
    """
    if regex:
        try:
            expression = re.compile(url)
        except re.error as error:
            raise ValueError(f"{url!r} is no regular expression: {error}") from None
        converters: Converters = dict.fromkeys(expression.groupindex, str)
    else:
        if not url.startswith("/"):
            raise ValueError(f"{url!r} does not start with a slash")
        converters = {}
        parts = url.removesuffix("/").split("/")
        segments = [_compile_segment(url, part, converters) for part in parts]
        if url.count("<path:") > 1:
            # Two of them would try every split of a path that does not match.
            raise ValueError(f"{url!r} has more than one <path:...>")
        expression = re.compile("/".join(segments) + "/?", re.DOTALL)
    for name in converters:
        if name in {"request", "self"}:
            raise ValueError(f"{url!r}: {name} is what views call another argument")
    return expression, converters


def _compile_segment(url: str, segment: str, converters: Converters) -> str:
    """The expression for one segment; adds the parameter it has to `converters`."""
    match = _PARAMETER.search(segment)
    before, after = (segment[: match.start()], segment[match.end() :]) if match else (segment, "")
    if re.search("[<>]", before + after):
        # Two in a segment could be told apart in many ways, and all would be tried.
        raise ValueError(f"{url!r}: {segment!r} must have at most one parameter, <name>")
    if match is None:
        return re.escape(segment)
    kind, name = match[1], match[2]
    if kind is None:
        kind = "str"
    if kind not in CONVERTERS:
        raise ValueError(f"{url!r}: {kind!r} is not one of {', '.join(CONVERTERS)}")
    if not name.isidentifier():
        raise ValueError(f"{url!r}: {name!r} cannot be the name of an argument")
    if name in converters:
        raise ValueError(f"{url!r}: {name!r} comes twice")
    if kind == "path" and (before or after):
        raise ValueError(f"{url!r}: <path:{name}> must stand alone between slashes")
    matches, convert = CONVERTERS[kind]
    converters[name] = convert
    return f"{re.escape(before)}(?P<{name}>{matches}){re.escape(after)}"
