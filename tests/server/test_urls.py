"""URL patterns: what they hold, and the malformed ones."""

import pytest

from duck.urls import URLPattern, path, re_path


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
        ("/<a>/<a>", "'a' comes twice"),
        ("/<path:a>/<path:b>", "more than one <path:"),
        ("/x<path:a>", "alone between slashes"),
        ("/<request>", "request is what views call another argument"),
        ("/<self>", "self is what views call another argument"),
    ],
)
def test_malformed_path(url, message):
    with pytest.raises(ValueError, match=message):
        path(url, view)


@pytest.mark.parametrize(("url", "message"), [("/(", "no regular"), ("/(?P<self>.)", "self is")])
def test_malformed_re_path(url, message):
    with pytest.raises(ValueError, match=message):
        re_path(url, view)
