"""Sec-WebSocket-Extensions: its grammar, and the agreement (RFC 6455, section 9.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import Extension
from duck.contrib.websockets.exceptions import HandshakeError
from duck.contrib.websockets.sansio.negotiation import Offer, format_extension, is_token, negotiate, parse_offers

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=8)
spaces = st.text(" \t", max_size=2)


# The grammar


@st.composite
def headers(draw):
    """A header, and the offers that it makes."""
    offers, members = [], []
    for _ in range(draw(st.integers(0, 4))):
        name = draw(tokens)
        parts, parameters = [draw(spaces) + name + draw(spaces)], []
        for key, value in draw(st.lists(st.tuples(tokens, st.none() | tokens), max_size=4)):
            part = draw(spaces) + key + draw(spaces)
            if value is not None:
                written = value
                if draw(st.booleans()):
                    escaped = draw(st.sets(st.integers(0, len(value) - 1)))
                    written = "".join("\\" * (i in escaped) + c for i, c in enumerate(value))
                    written = f'"{written}"'
                part += "=" + draw(spaces) + written + draw(spaces)
            parts.append(part)
            parameters.append((key, value))
        offers.append(Offer(name, tuple(parameters)))
        members.append(";".join(parts))
        members.extend([draw(spaces)] * draw(st.integers(0, 2)))
    return ",".join(members), tuple(offers)


@given(headers())
def test_a_valid_header_is_parsed(case):
    header, offers = case
    assert parse_offers(header) == offers


@given(st.text(st.sampled_from('ab,;="\\ \t\r\n\0é'), max_size=20) | st.text(max_size=20))
def test_any_other_header_is_an_error(header):
    try:
        offers = parse_offers(header)
    except ValueError as error:
        assert "Sec-WebSocket-Extensions" in str(error)
    else:
        assert parse_offers(", ".join(format_extension(*offer) for offer in offers)) == offers


@pytest.mark.parametrize(
    "header",
    [
        "a b",
        "a;",
        "a; ;b",
        "; a",
        "a; b=",
        "a; =b",
        "a; b=c d",
        'a; b="',
        'a; b="c',
        'a; b="c\\"',
        'a; b=""',
        'a; b="c d"',
        'a; b="c"d',
        'a; b="é"',
        "a/b",
        "(comment)",
        '"quoted"',
        "é",
        "a\0",
        "a\r\n",
    ],
)
def test_an_invalid_header_is_refused(header):
    with pytest.raises(ValueError, match="Sec-WebSocket-Extensions"):
        parse_offers(header)
    with pytest.raises(HandshakeError) as caught:
        negotiate(header, {})
    assert caught.value.status == 400


def test_a_comma_in_quotes_does_not_divide():
    with pytest.raises(ValueError, match="is not a token"):
        parse_offers('a; b="c, d"')


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a\r\nSet-Cookie: b"])
def test_an_answer_is_made_of_tokens(name):
    with pytest.raises(ValueError, match="token"):
        format_extension(name, [])
    with pytest.raises(ValueError, match="token"):
        format_extension("a", [(name, None)])
    with pytest.raises(ValueError, match="token"):
        format_extension("a", [("b", name)])


# Agreements


class Plain(Extension):
    uses_rsv1 = False


def accepting(name, kind=Extension):
    return lambda parameters: kind(name, parameters)


def test_the_first_offer_that_is_not_declined_is_agreed():
    seen = []

    def choosy(parameters):
        seen.append(list(parameters))
        return Extension("x", parameters) if ("b", "2") in parameters else None

    agreed = negotiate("x; b=1, y, x; b=2, x; b=2; c", {"x": choosy})
    assert [(extension.name, extension.parameters) for extension in agreed] == [("x", (("b", "2"),))]
    assert seen == [[("b", "1")], [("b", "2")]]


def test_the_error_for_a_negotiator_that_returns_something_else_says_what_to_return():
    with pytest.raises(TypeError, match="the negotiator of 'x' returned True: return an Extension, or None to decline"):
        negotiate("x", {"x": lambda parameters: True})


def test_names_are_compared_whole():
    for name in ("x", "xx", "X", "x-y"):
        assert [e.name for e in negotiate(name, {"xx": accepting("xx")})] == (["xx"] if name == "xx" else [])


def test_rsv1_has_one_meaning():
    negotiators = {"a": accepting("a"), "b": accepting("b"), "p": accepting("p", Plain), "q": accepting("q", Plain)}
    assert [extension.name for extension in negotiate("p, b, a, q", negotiators)] == ["p", "b", "q"]


def test_only_offered_extensions_are_agreed():
    assert negotiate("", {"x": accepting("x")}) == []
    assert negotiate(" , ,", {"x": accepting("x")}) == []


def test_no_long_text_of_a_client_is_kept():
    is_token.cache_clear()
    parse_offers(f'x; a="{"b" * 10_000}"')
    assert is_token.cache_info().currsize == 0
