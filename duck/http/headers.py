"""Header fields in one block of text. They live as long as their connection, so they are small."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import overload

__all__ = ["HeaderField", "Headers"]

HeaderField = tuple[str, str] | tuple[bytes, bytes]

# Tab is allowed inside a value, and bytes from 0x80 on are opaque (RFC 9110, section 5.5).
_CONTROL = bytes({*range(0x20), 0x7F} - set(b"\t"))


class Headers:
    """The header fields of a request: immutable, in their original order, with case-insensitive names.

    The block is `LF name NUL value LF name NUL value LF`, with names in lower case: one object instead of the dozens
    of a dict. A dict for look-ups is made of the last used block only, because a handshake needs many at once.
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
            lines = [b"\0".join((name.lower(), value.strip(b" \t"))) for name, value in fields]  # type: ignore[arg-type]
        except TypeError:  # some are str
            lines = [b"\0".join((_encode(name).lower(), _encode(value).strip(b" \t"))) for name, value in fields]
        block = b"\n".join([b"", *lines, b""])
        separators = 2 * len(lines) + 1  # each line has a NUL and an LF, behind the first LF
        if len(block) - len(block.translate(None, _CONTROL)) != separators:
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
        return [part.partition("\n")[0] for part in self._block.split(f"\n{name.lower()}\0")[1:]]

    def items(self) -> list[tuple[str, str]]:
        """All lines as (name in lower case, value), in order, repeated ones included."""
        lines = self._block.split("\n")[1:-1]
        return [(name, value) for name, _, value in (line.partition("\0") for line in lines)]

    def keys(self) -> list[str]:
        """The names, as iteration yields them. `dict(headers)` has their values; those of repeated lines are joined."""
        return list(_fields(self._block))

    @property
    def announce_body(self) -> bool:
        """Whether a field announces a body, by its length or by a transfer coding (RFC 9112, section 6)."""
        fields = _fields(self._block)
        return "content-length" in fields or "transfer-encoding" in fields

    @property
    def size(self) -> int:
        """Size of the fields in a head in bytes, with colon, space and CRLF for each."""
        return len(self._block) - 1 + 2 * self._block.count("\0")

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
        return self._block.count("\0")

    def __eq__(self, other: object) -> bool:
        return self._block == other._block if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._block)

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"


@lru_cache(maxsize=1)
def _fields(block: str) -> dict[str, str]:
    """The values by name. Those of repeated lines are joined."""
    words = block.replace("\0", "\n").split("\n")[1:-1]
    fields = dict(zip(words[::2], words[1::2], strict=True))
    if 2 * len(fields) < len(words):
        several: dict[str, list[str]] = {}
        for name, value in zip(words[::2], words[1::2], strict=True):
            several.setdefault(name, []).append(value)
        fields = {name: ", ".join(values) for name, values in several.items()}
    return fields


def _encode(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text
