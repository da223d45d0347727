"""The header field Forwarded, in which each proxy notes what it saw of the one before it (RFC 7239)."""

import re
from collections.abc import Iterator

__all__ = ["parse_forwarded"]

# Where the grammar wants quotes, as around a colon, not all proxies write them.
_PAIR = re.compile(r"""[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:([^\s;,"\\]+)|"((?:[^"\\]|\\.)*+)")[ \t]*""")
_ESCAPE = re.compile(r"\\(.)")
_MARK = re.compile(r'\\["\\]|[",]')


def parse_forwarded(value: str) -> Iterator[dict[str, str]]:
    """The elements, the last one first, each as its parameters by their names in lower case.

    The last is the nearest proxy's. What stands before it may be the client's own and of any form, so the value is
    read from its end, and only as far as it is well-formed.

    Args:
        value: The value of the field; the values of several are one with commas between.
    """
    for text in _split(value):
        if text.strip(" \t"):
            element = _parse(text)
            if element is None:
                return
            yield element


def _parse(text: str) -> dict[str, str] | None:
    """The parameters of an element; None if it is malformed, or has one of them twice."""
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
    """The members of a list, the last one first; a comma between quotes separates none."""
    end = len(value)
    quoted = False
    for mark in reversed(list(_MARK.finditer(value))):
        if mark[0] == '"':
            quoted = not quoted
        elif mark[0] == "," and not quoted:
            yield value[mark.end() : end]
            end = mark.start()
    yield value[:end]
