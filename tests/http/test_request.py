"""HttpRequest: the parts of its target, and its arguments."""

import pytest

from duck.http import Headers, HttpRequest


@pytest.mark.parametrize(
    ("target", "path", "query_string"),
    [
        ("/", "/", ""),
        ("/chat", "/chat", ""),
        ("/a%20b/%C3%A9", "/a b/\xe9", ""),
        ("/a?b=c?d", "/a", "b=c?d"),
        ("/a?b#c", "/a", "b"),
        ("/a%3Fb", "/a?b", ""),
        ("/%ff", "/\ufffd", ""),
        ("//evil/a", "//evil/a", ""),
        ("/to?url=http://other/", "/to", "url=http://other/"),
        ("http://host:1/a%20b?c", "/a b", "c"),
        ("http://host", "/", ""),
        ("http://host?a", "/", "a"),
        ("*", "*", ""),
        ("host:443", "host:443", ""),
    ],
)
def test_a_target_is_split_and_decoded(target, path, query_string):
    request = HttpRequest(target=target)
    assert (request.target, request.path) == (target, path)
    assert request.query_string == query_string


def test_a_malformed_target_is_refused():
    with pytest.raises(ValueError):
        HttpRequest(target="http://[::1/")


def test_a_query_has_lists_of_values():
    request = HttpRequest(target="/?a=1&b=%C3%A9+x&a=2&c=")
    assert request.query == {"a": ["1", "2"], "b": ["\xe9 x"], "c": [""]}
    assert HttpRequest().query == {}


def test_headers_from_pairs_from_a_mapping_or_as_they_are():
    headers = Headers([("Host", "a")])
    assert HttpRequest(headers=headers).headers is headers
    assert HttpRequest(headers=[("Host", "a")]).headers == headers
    assert HttpRequest(headers={"Host": "a"}).headers == headers
    assert HttpRequest(headers={"TE": "trailers"}).headers == Headers([("TE", "trailers")])
    assert HttpRequest(headers=[(b"Host", b"a")]).get_header("HOST") == "a"
    assert HttpRequest().get_header("host", "-") == "-"
    assert HttpRequest().get_header("host") is None


def test_meta_is_made_once():
    request = HttpRequest()
    request.META["DEBUG_MESSAGE"] = "refused"
    assert request.META == {"DEBUG_MESSAGE": "refused"}
    assert HttpRequest().META == {}


def test_a_request_needs_no_connection():
    request = HttpRequest()
    assert request.method == "GET"
    assert request.http_version == "1.1"
    assert request.client_address is None
    assert request.client_socket is None
    assert request.transport is None
    assert request.content == b""
    assert request.secure is False


def test_repr_does_not_let_a_client_write_log_lines():
    assert repr(HttpRequest(target="/\n")) == r"<HttpRequest GET '/\n'>"


COOKIES = {
    "": {},
    "a=1": {"a": "1"},
    "a=1; b=2;c=3": {"a": "1", "b": "2", "c": "3"},
    'a="quoted"; b="; c=" ; d="': {"a": "quoted", "b": '"', "c": '"', "d": '"'},
    "a=1; a=2": {"a": "1"},
    "a=x=y; =nameless; bare; ; b = spaced ": {"a": "x=y", "b": "spaced"},
    "$Version=1; é=ü": {"$Version": "1", "é": "ü"},
}


@pytest.mark.parametrize("header", COOKIES)
def test_cookies_are_parsed_leniently(header):
    assert HttpRequest(headers=[("Cookie", header)]).cookies == COOKIES[header]


def test_cookies_on_several_lines_are_all_taken():
    assert HttpRequest(headers=[("Cookie", "a=1"), ("Cookie", "b=2, c")]).cookies == {"a": "1", "b": "2, c"}
