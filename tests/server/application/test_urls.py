"""URL patterns, valid and malformed."""

import pytest

from duck.contrib.websockets import WebSocketView
from duck.server.application.routes import Routes
from duck.urls import URLPattern, path, re_path
from duck.views import View


def view(request):
    return "view"


def test_path_gives_a_dict():
    pattern = path("/a/<b>", view, "name", ["get"])
    assert isinstance(pattern, URLPattern)
    assert pattern == {
        "url": "/a/<b>",
        "handler": view,
        "name": "name",
        "methods": ["GET"],
        "regex": False,
    }
    assert pattern.regex is False


def test_re_path_gives_a_regex():
    pattern = re_path("/a/.*", view)
    assert pattern.regex is True
    assert (pattern["name"], pattern["methods"]) == (None, [])
    assert repr(pattern).startswith("<URLPattern {'url': '/a/.*'")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "slash"),
        ("a", "slash"),
        ("/<", "at most one parameter"),
        ("/<a", "at most one parameter"),
        ("/a>", "at most one parameter"),
        ("/<a><b>", "at most one parameter"),
        ("/<a>-<b>", "at most one parameter"),
        ("/<<a>>", "at most one parameter"),
        ("/<>", "'' cannot be the name"),
        ("/<int:>", "'' cannot be the name"),
        ("/<a-b>", "'a-b' cannot be the name"),
        ("/<1a>", "'1a' cannot be the name"),
        ("/<float:a>", "'float' is not one of str, int, path"),
        ("/<:a>", "'' is not one of"),
        ("/<a>/<a>", "'a' is repeated"),
        ("/<path:a>/<path:b>", "more than one <path:"),
        ("/x<path:a>", "alone between slashes"),
        ("/ws/{room}", r"'/ws/\{room\}': a parameter is written <room>, not \{room\}"),
        ("/ws/{room:int}/x", r"written <room>, not \{room:int\}"),
        ("/ws/room-{}", r"written <name>, not \{\}"),
        ("/ws/{room", r"written <room>, not \{room"),
        ("/ws/room}", r"written <name>, not \}"),
        ("/ws/:room/edit", "written <room>, not :room"),
        (r"/ws/(?P<room>\w+)", "re_path"),
        ("/ws?room=lobby", r"request\.query"),
        ("/ws/#lobby", r"request\.query"),
        ("/<request>", "request is the name of another argument of the view"),
        ("/<self>", "self is the name of another argument of the view"),
    ],
)
def test_a_malformed_path_is_refused(url, message):
    with pytest.raises(ValueError, match=message):
        path(url, view)


@pytest.mark.parametrize(("url", "message"), [("/(", "not a regular"), ("/(?P<self>.)", "self is")])
def test_a_malformed_re_path_is_refused(url, message):
    with pytest.raises(ValueError, match=message):
        re_path(url, view)


@pytest.mark.parametrize("url", ["/urn:isbn:12", "/a:b/<c>", "/12:30", "/:"])
def test_a_colon_may_be_a_part_of_a_path(url):
    assert path(url, view)["url"] == url


class Socket(WebSocketView):
    pass


class Page(View):
    def __init__(self, asked, **kwargs):
        super().__init__(asked, **kwargs)

    def run(this, what, **kwargs):
        return "page"


def function(given, **kwargs):
    return "page"


def apart(given, /, **kwargs):
    return "page"


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (Socket, "upgrade_request"),
        (Socket, "self"),
        (Page, "asked"),
        (Page, "this"),
        (Page, "what"),
        (Page, "request"),
        (function, "given"),
    ],
)
def test_the_name_of_an_argument_that_the_view_gets_anyway_is_refused(handler, name):
    refused = pytest.raises(
        ValueError, match=f"{name} is the name of another argument of the view; choose another name"
    )
    with refused:
        path(f"/<{name}>", handler)
    with refused:
        re_path(f"/(?P<{name}>.)", handler)
    with refused:
        Routes([URLPattern(f"/<{name}>", handler)])


@pytest.mark.parametrize(("handler", "name"), [(Socket, "room"), (Page, "kwargs"), (function, "_"), (apart, "given")])
def test_other_names_are_free(handler, name):
    assert Routes([path(f"/<{name}>", handler)]).match("/x").kwargs == {name: "x"}


def test_methods_may_be_one():
    assert path("/", view, methods="get") == path("/", view, methods=["GET"])
    with pytest.raises(ValueError, match="the server offers GET, HEAD, POST only"):
        Routes([path("/", view, methods="PUT")])


@pytest.mark.parametrize("methods", ["GET, POST", "", ["GET", 1], [""], "GET POST"])
def test_invalid_methods_are_refused(methods):
    with pytest.raises(ValueError, match=r"is not an HTTP method; write methods=\[\"GET\"\]"):
        path("/", view, methods=methods)
