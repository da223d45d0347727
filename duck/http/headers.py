"""Header fields in one block of text. They live as long as their connection, so they are small."""

from collections.abc import Iterable, Iterator, Mapping
from typing import overload

__all__ = ["HeaderField", "Headers"]

HeaderField = tuple[str, str] | tuple[bytes, bytes]

# Tab is allowed inside a value, and bytes from 0x80 on are opaque (RFC 9110, section 5.5).
_CONTROL = bytes({*range(0x20), 0x7F} - set(b"\t"))


class Headers:
    """The header fields of a request: immutable, in their original order, with case-insensitive names.

    The block has the names, in lower case, and values in turn, each with an LF behind it: one object instead of the
    dozens of a dict. A dict for look-ups is kept of the last used block only, because a handshake needs many at once.
    """

    __slots__ = ("_block",)

    def __init__(self, fields: Iterable[HeaderField] = ()) -> None:
        """Stores the fields of a request.

        Args:
            fields: Pairs of name and value, str or bytes. White space around a value is removed.

        Raises:
            ValueError: A name or value contains a control character, or a character outside of Latin-1.
        """
        fields = list(fields)
        try:
            block = _join(fields)  # type: ignore[arg-type]
        except TypeError:  # some are str
            block = _join([(_encode(name), _encode(value)) for name, value in fields])
        if len(block) - len(block.translate(None, _CONTROL)) != 2 * len(fields):
            raise ValueError("control character in a header field")
        self._block = block.decode("latin-1")

    @overload
    def get(self, name: str, default: str) -> str: ...

    @overload
    def get(self, name: str, default: str | None = None) -> str | None: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of a field. The values of repeated lines are joined by a comma and a space.

        RFC 9110, section 5.3, joins repeated list fields in this way. A repeated field without a list, such as Origin,
        then has a value that no check accepts.

        Args:
            name: Name of the field, in any case.
            default: Result for a missing field.
        """
        fields = _fields(self._block)
        value = fields.get(name)
        return fields.get(name.lower(), default) if value is None else value

    def getall(self, name: str) -> list[str]:
        """The values of all lines of this name, in order; an empty list for a missing field."""
        name = name.lower()
        return [value for other, value in self.items() if other == name]

    def items(self) -> list[tuple[str, str]]:
        """All lines as (name in lower case, value), in order, repeated ones included."""
        return list(_lines(self._block))

    def keys(self) -> list[str]:
        """The names, as iteration yields them. `dict(headers)` has their values; those of repeated lines are joined."""
        return list(_fields(self._block))

    @property
    def by_name(self) -> Mapping[str, str]:
        """The values by names in lower case, joined as by `get`. A look-up in it takes less time."""
        return _fields(self._block)

    @property
    def size(self) -> int:
        """Size of the fields in a head in bytes, with colon, space and CRLF for each."""
        return len(self._block) + self._block.count("\n")

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in _fields(self._block)

    def __iter__(self) -> Iterator[str]:
        """The names, in lower case and in the order of their first lines."""
        return iter(_fields(self._block))

    def __len__(self) -> int:
        """Number of lines; each line of a repeated field counts."""
        return self._block.count("\n") // 2

    def __eq__(self, other: object) -> bool:
        return self._block == other._block if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._block)

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"


_last: tuple[str, dict[str, str]] = ("", {})
"""The last used block, and its values by name."""


def _fields(block: str) -> dict[str, str]:
    """The values by name. Those of repeated lines are joined."""
    global _last  # noqa: PLW0603
    last, fields = _last
    if last == block:
        return fields
    fields = dict(_lines(block))
    if 2 * len(fields) < block.count("\n"):
        several: dict[str, list[str]] = {}
        for name, value in _lines(block):
            several.setdefault(name, []).append(value)
        fields = {name: ", ".join(values) for name, values in several.items()}
    _last = block, fields
    return fields


def _lines(block: str) -> Iterable[tuple[str, str]]:
    words = iter(block.split("\n"))
    return zip(words, words, strict=False)  # behind the last LF is an empty word


def _join(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    words: list[bytes] = []
    for name, value in fields:
        words += name.lower(), value.strip(b" \t")
    words.append(b"")
    return b"\n".join(words)


def _encode(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text
