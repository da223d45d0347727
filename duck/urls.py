"""Which URL goes to which view: the `urlpatterns` of an application."""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["CONVERTERS", "URLPattern", "check_parameters", "compile_url", "path", "re_path"]

# Kind of a parameter: what it matches, and what makes its value. Eighteen digits fit 64 bits, and
# int() refuses very long ones.
CONVERTERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "str": ("[^/]+", str),
    "int": ("[0-9]{1,18}", int),
    "path": (".+?", str),
}

_PARAMETER = re.compile(r"<(?:([^<>:]*):)?([^<>:]*)>")

_FOREIGN_PARAMETER = re.compile(r"\{(\w*)[^{}]*\}?|\}|(?<=/):(\w+)(?=/|$)")  # {name} or :name, as elsewhere

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 9.1

Converters = dict[str, Callable[[str], Any]]


class URLPattern(dict[str, Any]):
    """A route: `url`, `handler`, `name`, `methods`, and whether the url is a `regex`."""

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
                raise ValueError(f'{url!r}: {method!r} is no HTTP method; write methods=["GET"]')
        methods = [method.upper() for method in names]
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
    methods: Iterable[str] | str | None = None,
) -> URLPattern:
    """A route for a path such as `/rooms/<name>/<int:page>`.

    `<name>` stands for a segment or a part of one, `<int:name>` for a decimal number of up to 18
    digits, `<path:name>` for one or more whole segments. A slash at the end makes no difference. Parameters as other
    frameworks write them, `{name}` and `:name`, are refused; `re_path` takes such a path literally.

    Args:
        view: A `View` class, or a function, plain or coroutine, called with the request and the
            parameters by name.
        name: A name for the route.
        methods: The HTTP methods it answers, or one of them; all that the host offers when empty.

    Raises:
        ValueError: The url is malformed, or the view cannot be called with its parameters.
    """
    _, converters = compile_url(url)
    check_parameters(url, view, converters)
    return URLPattern(url, view, name, methods)


def re_path(
    url: str,
    view: Callable[..., Any],
    name: str | None = None,
    methods: Iterable[str] | str | None = None,
) -> URLPattern:
    """A route for the whole paths that a regular expression matches.

    Args:
        url: The expression; its named groups are the parameters, given as str.
        view: As for `path`.
        name: A name for the route.
        methods: As for `path`.

    Raises:
        ValueError: The url is no regular expression, or the view cannot be called with its groups.
    """
    _, converters = compile_url(url, regex=True)
    check_parameters(url, view, converters)
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
            # Two of them would try every split of a path that does not match.
            raise ValueError(f"{url!r} has more than one <path:...>")
        expression = re.compile("/".join(segments) + "/?", re.DOTALL)
    return expression, converters


def check_parameters(url: str, view: Callable[..., Any], names: Iterable[str]) -> None:
    """See that no parameter of a route has the name of an argument that its view gets anyway.

    Raises:
        ValueError: One has: each request would fail.
    """
    taken = {"request", "self", *_positional(view)}
    for name in names:
        if name in taken:
            raise ValueError(f"{url!r}: {name} is what views call another argument; choose another name")


def _positional(view: Callable[..., Any]) -> set[str]:
    """The names of what is given to a view by position: the request, and to a class's methods the object."""
    calls: list[tuple[Any, int]] = [(view, 1)]
    if isinstance(view, type):
        calls = [(getattr(view, name, None), 2) for name in ("__init__", "run")]
    found: set[str] = set()
    for function, count in calls:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            continue  # no callable, which the host tells of, or one in C that does not say what it takes
        found.update(one.name for one in parameters[:count] if one.kind is one.POSITIONAL_OR_KEYWORD)
    return found


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
