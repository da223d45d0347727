"""The header field Forwarded, in which each proxy describes its client (RFC 7239)."""

import re
from collections.abc import Iterator

__all__ = ["parse_forwarded"]

# Some proxies omit the quotes that the grammar requires, for example around a colon.
_PAIR = re.compile(r"""[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:([^\s;,"\\]+)|"((?:[^"\\]|\\.)*+)")[ \t]*""")
_ESCAPE = re.compile(r"\\(.)")
_MARK = re.compile(r'\\["\\]|[",]')


def parse_forwarded(value: str) -> Iterator[dict[str, str]]:
    """Yields the elements, the last one first, each as a dict of parameters with names in lower case.

    The last element is that of the nearest proxy. Earlier ones may be the client's and have any form, so the value
    is read from its end, and only as far as it is well-formed.

    Args:
        value: The value of the field; several fields are joined by commas.
    """
    for text in _split(value):
        if text.strip(" \t"):
            element = _parse(text)
            if element is None:
                return
            yield element


def _parse(text: str) -> dict[str, str] | None:
    """Returns the parameters of an element; None if it is malformed or repeats a parameter."""
    element: dict[str, str] = {}
    at = 0
    while pair := _PAIR.match(text, at):
        name = pair[1].lower()
        if name in element:
            return None
        element[name] = pair[2] if pair[3] is None else _ESCAPE.sub(r"\1", pair[3])
        at = pair.end()
        if at == len(text):
            return element
        if text[at] != ";":
            return None
        at += 1
    return None


def _split(value: str) -> Iterator[str]:
    """Yields the members of a list, the last one first; commas inside quotes do not separate."""
    end = len(value)
    quoted = False
    for mark in reversed(list(_MARK.finditer(value))):
        if mark[0] == '"':
            quoted = not quoted
        elif mark[0] == "," and not quoted:
            yield value[mark.end() : end]
            end = mark.start()
    yield value[:end]
