"""Headers: look-ups in any case, order, repeated lines, and refused fields."""

import pytest

from duck.http import Headers

FIELDS = [
    ("Host", "example.org"),
    ("X-Empty", ""),
    ("Accept", "a"),
    ("Cookie", "a=b; c=d"),
    ("accept", " b\t"),
    ("X-Latin", "caf\xe9"),
]


@pytest.fixture(params=["str", "bytes"])
def headers(request):
    if request.param == "str":
        return Headers(FIELDS)
    return Headers((name.encode("latin-1"), value.encode("latin-1")) for name, value in FIELDS)


def test_names_match_in_any_case(headers):
    assert headers.get("HOST") == headers["host"] == headers.get("Host") == "example.org"
    assert "hOsT" in headers


def test_values_are_latin_1(headers):
    assert headers["x-latin"] == "caf\xe9"


def test_a_missing_field_has_no_value(headers):
    assert headers.get("origin") is None
    assert headers.get("origin", "?") == "?"
    assert headers.getall("origin") == []
    assert "origin" not in headers
    with pytest.raises(KeyError):
        headers["origin"]


def test_an_empty_value_is_kept(headers):
    assert headers.get("x-empty", "?") == ""
    assert headers.getall("x-empty") == [""]


def test_repeated_lines_are_joined(headers):
    assert headers.getall("Accept") == ["a", "b"]
    assert headers["accept"] == "a, b"


def test_items_keep_order_and_repeated_lines(headers):
    assert headers.items() == [(name.lower(), value.strip()) for name, value in FIELDS]
    assert list(headers) == ["host", "x-empty", "accept", "cookie", "x-latin"]
    assert len(headers) == 6


def test_a_dict_of_headers_joins_repeated_lines(headers):
    assert list(headers.keys()) == list(headers)
    assert dict(headers) == {
        "host": "example.org",
        "x-empty": "",
        "accept": "a, b",
        "cookie": "a=b; c=d",
        "x-latin": "caf\xe9",
    }


def test_values_by_name_are_those_of_the_last_and_of_earlier_headers(headers):
    other = Headers([("Host", "a"), ("host", "b")])
    assert other.by_name == {"host": "a, b"}
    assert headers.by_name == dict(headers)
    assert other.by_name["host"] == other.get("host") == "a, b"


def test_a_name_is_not_found_inside_another_or_inside_a_value():
    headers = Headers([("X-Host", "1"), ("A", "host: 2"), ("B", "host")])
    assert headers.get("host") is None
    assert headers.getall("host") == []
    assert headers.get("") is None


def test_headers_may_be_empty():
    headers = Headers()
    assert headers.items() == []
    assert len(headers) == 0
    assert headers.get("host") is None


def test_headers_are_equal_by_content():
    assert Headers([("A", "1")]) == Headers([(b"a", b"1")])
    assert hash(Headers([("A", "1")])) == hash(Headers([("a", "1")]))
    assert Headers([("A", "1")]) != Headers([("A", "2")])
    assert Headers() != []


@pytest.mark.parametrize("code", [*range(9), *range(10, 32), 127])
def test_control_characters_are_refused(code):
    with pytest.raises(ValueError, match="control character"):
        Headers([("Host", "a"), ("X", f"a{chr(code)}b"), ("Y", "c")])
    with pytest.raises(ValueError, match="control character"):
        Headers([(f"a{chr(code)}b", "c")])


@pytest.mark.parametrize("code", range(128, 256))
def test_bytes_beyond_ascii_are_opaque(code):
    """RFC 9110, section 5.5; the UTF-8 of many letters has bytes from 0x80 to 0x9f."""
    assert Headers([("X", f"a{chr(code)}b")])["x"] == f"a{chr(code)}b"
    assert Headers([(b"X", b"a%cb" % code)]).items() == [("x", f"a{chr(code)}b")]


def test_a_value_cannot_pose_as_another_line():
    with pytest.raises(ValueError):
        Headers([("X", "a\nhost\0evil")])


def test_tab_inside_a_value_is_allowed():
    assert Headers([("X", "a\tb")])["x"] == "a\tb"


def test_outside_of_latin_1_is_refused():
    with pytest.raises(ValueError):
        Headers([("X", "\u20ac")])


def test_repr_shows_the_fields():
    assert repr(Headers([("A", "1")])) == "Headers([('a', '1')])"


class Scanned(str):
    """A str that counts the characters that its methods read."""

    scanned = 0

    def split(self, *args):
        Scanned.scanned += len(self)
        return [Scanned(part) for part in super().split(*args)]


def test_repeated_lines_among_many_names_are_joined_in_one_pass():
    headers = Headers([*((f"name-{number}", "") for number in range(1000)), ("cookie", "a=1"), ("cookie", "b=2")])
    headers._block = Scanned(headers._block)
    assert headers.get("cookie") == "a=1, b=2"
    assert Scanned.scanned <= 2 * len(headers._block)
