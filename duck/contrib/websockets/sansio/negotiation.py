"""Negotiation of extensions without I/O (RFC 6455, section 9.1): the grammar of the header field, and the choice."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from ..exceptions import HandshakeError
from ..extensions import Extension

__all__ = [
    "TOKEN",
    "ClientOffer",
    "Negotiator",
    "Offer",
    "Parameters",
    "format_extension",
    "is_token",
    "negotiate",
    "parse_offers",
]

Parameters = Sequence[tuple[str, str | None]]
"""(name, value) in the original order; (name, None) for a parameter without value."""

Negotiator = Callable[[Parameters], Extension | None]
"""Called with the parameters of an offer; returns the extension for the connection, or None to decline the offer."""


class Offer(NamedTuple):
    """One extension with one set of parameters. A client may offer an extension several times."""

    name: str
    parameters: Parameters


class ClientOffer(NamedTuple):
    """An extension offered by a client.

    Attributes:
        parameters: The parameters of the offer, as (name, value), or (name, None) for one without value.
        accept: Called with the parameters of the server's answer; returns the extension for the connection, or None for
            an answer that does not match the offer, which fails the handshake.
    """

    parameters: Parameters
    accept: Negotiator


TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, section 5.6.2
_TOKEN = re.compile(TOKEN)
_NAME = re.compile(rf"[ \t]*({TOKEN})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*({TOKEN})[ \t]*(?:=[ \t]*(?:({TOKEN})|"((?:[^"\\]|\\.)*+)")[ \t]*)?', re.DOTALL)
_NOTHING = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


_MOST_CACHED = 256  # characters of a cached header; a browser sends 42


def parse_offers(header: str) -> Sequence[Offer]:
    """Parses the value of Sec-WebSocket-Extensions; returns the offers in the client's order of preference.

    The values of repeated fields are joined by commas. A list may have empty members (RFC 9110, section 5.6.1).

    Raises:
        ValueError: The value does not match the grammar. The message gives the position.
    """
    return _parsed(header) if len(header) <= _MOST_CACHED else _parsed.__wrapped__(header)


@lru_cache  # all clients of a kind send the same header
def _parsed(header: str) -> tuple[Offer, ...]:
    offers = []
    at = 0
    while at < len(header):
        name = _NAME.match(header, at)
        if name is None:
            at = _NOTHING.match(header, at).end()  # type: ignore[union-attr]
        else:
            at = name.end()
            parameters = []
            while parameter := _PARAMETER.match(header, at):
                at = parameter.end()
                parameters.append((parameter[1], _value(parameter[2], parameter[3], at)))
            offers.append(Offer(name[1], tuple(parameters)))
        if at < len(header):
            if header[at] != ",":
                raise ValueError(f"character {at + 1} of Sec-WebSocket-Extensions breaks its grammar")
            at += 1
    return tuple(offers)


def _value(token: str | None, quoted: str | None, at: int) -> str | None:
    """Returns the value of a parameter. A quoted value must be a token without its quotes."""
    if quoted is None:
        return token
    value = _ESCAPE.sub(r"\1", quoted)
    if _TOKEN.fullmatch(value) is None:  # `is_token` would keep a peer's text
        raise ValueError(f"the value in quotes before character {at + 1} of Sec-WebSocket-Extensions is not a token")
    return value


@lru_cache  # most connections use the same few names
def is_token(word: str) -> bool:
    """Whether a word is a token (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(word) is not None


def format_extension(name: str, parameters: Parameters) -> str:
    """Formats one member of Sec-WebSocket-Extensions.

    Raises:
        ValueError: A name or value is not a token.
    """
    return _formatted(name, tuple(parameters))


@lru_cache
def _formatted(name: str, parameters: Parameters) -> str:
    member = _token(name)
    for key, value in parameters:
        member += f"; {_token(key)}" if value is None else f"; {_token(key)}={_token(value)}"
    return member


def _token(word: str) -> str:
    if not is_token(word):
        raise ValueError(f"Sec-WebSocket-Extensions consists of tokens (RFC 9110, section 5.6.2), not {word!r}")
    return word


def negotiate(header: str, negotiators: Mapping[str, Negotiator]) -> list[Extension]:
    """Returns the agreed extensions: the first accepted offer of each, in the client's order.

    Args:
        header: The value of Sec-WebSocket-Extensions.
        negotiators: The negotiator of each supported extension, by name.

    Raises:
        HandshakeError: 400, the header does not match the grammar.
        TypeError: A negotiator returned neither an `Extension` nor None.
    """
    try:
        offers = parse_offers(header)
    except ValueError as error:
        raise HandshakeError(400, str(error)) from None
    agreed: dict[str, Extension] = {}
    rsv1_is_taken = False
    for name, parameters in offers:
        negotiator = negotiators.get(name)
        if negotiator is None or name in agreed:
            continue
        extension = negotiator(parameters)
        if extension is not None and not isinstance(extension, Extension):
            raise TypeError(
                f"the negotiator of {name!r} returned {extension!r}: return an Extension, or None to decline"
            )
        if extension is not None and not (rsv1_is_taken and extension.uses_rsv1):
            agreed[name] = extension
            rsv1_is_taken = rsv1_is_taken or extension.uses_rsv1
    return list(agreed.values())
