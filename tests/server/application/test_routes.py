"""Routing: the view and the parameters for a path."""

import time

import pytest

from duck.contrib.websockets import WebSocketView
from duck.server.application.routes import Routes
from duck.urls import path, re_path
from duck.views import View


def view(request, **kwargs):
    return "view"


def other(request, **kwargs):
    return "other"


def kwargs_of(pattern, url):
    match = Routes([pattern]).match(url)
    return None if match is None else match.kwargs


@pytest.mark.parametrize(
    ("pattern", "url", "kwargs"),
    [
        ("/", "/", {}),
        ("/", "", {}),
        ("/", "/a", None),
        ("/a", "/a", {}),
        ("/a", "/a/", {}),
        ("/a/", "/a", {}),
        ("/a/", "/a/", {}),
        ("/a", "/a//", None),
        ("/a", "/ab", None),
        ("/a", "/A", None),
        ("/a.b", "/a.b", {}),
        ("/a.b", "/axb", None),
        ("/<name>", "/x y", {"name": "x y"}),
        ("/<name>", "/x/y", None),
        ("/<name>", "/", None),
        ("/<name>/end", "/x/end/", {"name": "x"}),
        ("/post-<int:id>.html", "/post-12.html", {"id": 12}),
        ("/<int:a>/<int:b>", "/007/0", {"a": 7, "b": 0}),
        ("/<int:a>", "/-1", None),
        ("/<int:a>", "/1x", None),
        ("/<int:a>", "/\u0661", None),
        ("/<int:a>", "/" + "9" * 18, {"a": 10**18 - 1}),
        ("/<int:a>", "/" + "9" * 5000, None),
        ("/<path:p>", "/a/b/c", {"p": "a/b/c"}),
        ("/<path:p>", "/a/b/", {"p": "a/b"}),
        ("/f/<path:p>/edit", "/f/a/b/edit", {"p": "a/b"}),
        ("/f/<path:p>/edit", "/f/edit", None),
    ],
)
def test_a_path_matches_its_pattern(pattern, url, kwargs):
    assert kwargs_of(path(pattern, view), url) == kwargs


def test_re_path_matches_whole_paths():
    pattern = re_path(r"/(?P<year>[0-9]{4})(/(?P<slug>\w+))?", view)
    assert kwargs_of(pattern, "/2024/x") == {"year": "2024", "slug": "x"}
    assert kwargs_of(pattern, "/2024") == {"year": "2024"}
    assert kwargs_of(pattern, "/20245") is None


def test_first_match_wins():
    routes = Routes([path("/<name>", view), path("/a", other)])
    assert routes.match("/a").route.handler is view


def test_the_routes_are_tried_at_the_first_request_for_a_literal_only(monkeypatch):
    tried = []

    class Literal:
        converters = ()

        def __init__(self, url, regex):
            self.url = url

        def match(self, path):
            tried.append(self.url)
            return {} if path == self.url else None

    monkeypatch.setattr("duck.server.application.routes.compile_url", Literal)
    routes = Routes([path("/a", view), path("/b", other)])
    assert tried == []
    assert [routes.match("/b").route.handler for _ in range(2)] == [other, other]
    assert tried == ["/a", "/b"]
    assert routes.match("/c") is None


def test_a_view_class_alone_takes_every_path():
    class Page(View):
        pass

    for url in ("/", "/a/b", "*", "host:1", "/\n"):
        match = Routes(Page).match(url)
        assert (match.route.handler, match.kwargs) == (Page, {})


def test_websocket_views_are_known():
    class Socket(WebSocketView):
        pass

    class Page(View):
        pass

    patterns = [path("/s", Socket, methods=["POST"]), path("/p", Page), path("/f", view)]
    routes = Routes(patterns)
    assert [routes.match(url).route.is_websocket for url in ("/s", "/p", "/f")] == [True, False, False]


@pytest.mark.parametrize(
    ("methods", "offered"),
    [
        (None, ("GET", "HEAD")),
        (["GET"], ("GET", "HEAD")),
        (["get", "POST"], ("GET", "HEAD", "POST")),
        ("POST", ("POST",)),
        (["HEAD"], ("HEAD",)),
    ],
)
def test_get_implies_head_and_is_the_default(methods, offered):
    assert Routes([path("/", view, methods=methods)]).match("/").route.methods == offered


@pytest.mark.parametrize("methods", [["PUT"], ["POST", "PUT"]])
def test_a_method_of_a_page_that_the_server_does_not_offer_is_refused(methods):
    with pytest.raises(ValueError, match="'/a': the server offers GET, HEAD, POST only, not PUT"):
        Routes([path("/a", view, methods=methods)])
    assert Routes([path("/a", WebSocketView, methods=methods)]).match("/a").route.is_websocket


@pytest.mark.parametrize(
    "urlpatterns",
    [None, 1, "module", view, object, [view], [path("/", None)], [path("/", dict)], [path("/", WebSocketView(None))]],
)
def test_invalid_routes_are_refused(urlpatterns):
    with pytest.raises(TypeError):
        Routes(urlpatterns)


@pytest.mark.parametrize("pattern", [None, b"/rooms", WebSocketView])
def test_a_path_that_is_no_str_is_refused(pattern):
    with pytest.raises(TypeError, match="a path is a str such as '/rooms/<name>', not "):
        path(pattern, WebSocketView)


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("/<path:p>/<name>/end", "/" + "a/" * 16000),
        ("/x-<name>-y/z", "/x" + "-" * 32000),
        ("/<path:p>/edit", "/" + "/edi" * 8000),
    ],
)
def test_a_near_match_is_fast(pattern, url):
    routes = Routes([path(pattern, view)])
    start = time.thread_time()
    assert routes.match(url) is None
    assert time.thread_time() - start < 1


def test_an_asgi_application_is_no_page():
    with pytest.raises(TypeError, match="is an ASGI application: give the View class itself, or serve"):
        Routes([path("/", WebSocketView.as_asgi())])


def test_the_first_page_is_the_first_one_without_parameters():
    class Socket(WebSocketView):
        pass

    first = [path("/s", Socket), path("/<name>", view), re_path("/r", view), path("/form", view, methods="POST")]
    assert Routes(first).first_page is None
    assert Routes([*first, path("/page", view), path("/", view)]).first_page == "/page"
