"""HttpResponse: its bytes, and refused values."""

from datetime import datetime

import pytest

from duck.http import HttpResponse


def parse(data):
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    return status_line, [tuple(line.split(": ", 1)) for line in lines], body


def test_a_page_has_date_type_and_length():
    status_line, headers, body = parse(HttpResponse("h\xe9").to_bytes())
    assert status_line == "HTTP/1.1 200 OK"
    assert body == "h\xe9".encode()
    assert datetime.strptime(dict(headers)["Date"], "%a, %d %b %Y %H:%M:%S GMT")
    assert headers[1:] == [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "3")]


def test_head_only_keeps_the_length():
    _, headers, body = parse(HttpResponse(b"abc").to_bytes(head_only=True))
    assert body == b""
    assert ("Content-Length", "3") in headers


def test_close_is_announced_on_request():
    assert ("Connection", "close") in parse(HttpResponse().to_bytes(close=True))[1]
    assert "Connection" not in dict(parse(HttpResponse().to_bytes())[1])


@pytest.mark.parametrize("status", [204, 304])
def test_a_204_and_a_304_have_no_body(status):
    _, headers, body = parse(HttpResponse("x", status).to_bytes())
    assert body == b""
    assert "Content-Length" not in dict(headers)


def test_headers_may_be_repeated_and_the_type_left_out():
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    _, headers, _ = parse(HttpResponse(content_type="", headers=cookies).to_bytes())
    assert [header for header in headers if header[0] == "Set-Cookie"] == cookies
    assert "Content-Type" not in dict(headers)


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_a_content_type_among_the_headers_replaces_the_default(name):
    _, headers, _ = parse(HttpResponse("{}", headers={name: "application/json"}).to_bytes())
    assert headers[1:] == [(name, "application/json"), ("Content-Length", "2")]


def test_a_status_may_lack_a_phrase():
    assert HttpResponse(status=299).to_bytes().startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize("status", [0, 101, 199, 600])
def test_an_interim_status_is_refused(status):
    with pytest.raises(ValueError, match=str(status)):
        HttpResponse(status=status)


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\x0b", "\x1f", "\x7f"])
def test_a_control_character_in_a_header_is_refused(character):
    with pytest.raises(ValueError, match="control character in X"):
        HttpResponse(headers=[("X", f"a{character}b")])
    with pytest.raises(ValueError, match="control character in Content-Type"):
        HttpResponse(content_type=f"a{character}b")


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "\xe9"])
def test_an_invalid_field_name_is_refused(name):
    with pytest.raises(ValueError, match="cannot name"):
        HttpResponse(headers=[(name, "x")])


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection"])
def test_framing_belongs_to_the_server(name):
    with pytest.raises(ValueError, match="set by the server: leave it out"):
        HttpResponse(headers=[(name, "1")])


def test_a_value_outside_of_latin_1_is_refused():
    with pytest.raises(ValueError, match="beyond Latin-1 in X: '\u20ac'"):
        HttpResponse(headers=[("X", "\u20ac")])


def test_a_page_may_have_a_date_of_its_own():
    own = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert HttpResponse("", headers={"date": own}).to_bytes().lower().count(b"\r\ndate: ") == 1


@pytest.mark.parametrize("content", [bytearray(b"abc"), memoryview(b"abc"), "abc"])
def test_the_content_is_bytes_whatever_it_was(content):
    assert HttpResponse(content).content == b"abc"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"content": {"a": 1}}, r"^the content of a response is a str or bytes, not dict: for JSON, give json\.dumps"),
        ({"content": 5}, "str or bytes, not int"),
        ({"content": [1, 2]}, "str or bytes, not list"),
        ({"status": "200"}, "^the status of a response is an int, not '200'$"),
        ({"headers": {"Retry-After": 5}}, "^the name and the value of a header field are str, not 'Retry-After': 5$"),
        ({"headers": [(b"X", "1")]}, "are str, not b'X': '1'"),
        ({"content_type": {"X": "1"}}, "are str, not 'Content-Type': {'X': '1'}"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_in_the_error(arguments, words):
    with pytest.raises(TypeError, match=words):
        HttpResponse(**arguments)
