"""Header fields in one block of bytes. They live as long as their connection, so they are small."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import overload

__all__ = ["HeaderField", "Headers"]

HeaderField = tuple[str, str] | tuple[bytes, bytes]

# Tab is allowed inside a value, and bytes from 0x80 on are opaque (RFC 9110, section 5.5). NUL and LF are not in
# this set because the block uses them as separators: the constructor finds strays by counting.
_CONTROL = bytes({*range(0x20), 0x7F} - set(b"\0\t\n"))


class Headers:
    r"""The header fields of a request: immutable, in their original order, with case-insensitive names.

    The block is `\n name NUL value \n name NUL value \n`, with names in lower case: one object instead of the dozens
    of a dict. A look-up is one search for `\n name NUL`.
    """

    __slots__ = ("_announce_body", "_block")

    def __init__(self, fields: Iterable[HeaderField] = ()) -> None:
        """Stores the fields of a request.

        Args:
            fields: Pairs of name and value, str or bytes. White space around a value is removed.

        Raises:
            ValueError: A name or value contains a control character, or a character outside of Latin-1.
        """
        fields = list(fields)
        try:
            lines = [b"%b\0%b\n" % (name.lower(), value.strip(b" \t")) for name, value in fields]  # type: ignore[str-format, arg-type]
        except TypeError:  # some are str
            lines = [b"%b\0%b\n" % (_encode(name).lower(), _encode(value).strip(b" \t")) for name, value in fields]
        block = b"\n" + b"".join(lines)
        count = len(lines)
        if block.count(b"\n") != count + 1 or block.count(b"\0") != count or block.translate(None, _CONTROL) != block:
            raise ValueError("control character in a header field")
        self._block = block
        self._announce_body: bool | None = None  # a cache: both the server and the handshake ask

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
        key = _key(name)
        _, found, rest = self._block.partition(key)
        if not found:
            return default
        end = rest.find(b"\n")
        if rest.find(key, end) >= 0:
            return ", ".join(self.getall(name))
        return rest[:end].decode("latin-1")

    def getall(self, name: str) -> list[str]:
        """The values of all lines of this name, in order; an empty list for a missing field."""
        key = _key(name)
        block = self._block
        values = []
        start = block.find(key)
        while start >= 0:
            end = block.index(b"\n", start + len(key))
            values.append(block[start + len(key) : end].decode("latin-1"))
            start = block.find(key, end)
        return values

    def items(self) -> list[tuple[str, str]]:
        """All lines as (name in lower case, value), in order, repeated ones included."""
        lines = self._block.decode("latin-1").split("\n")[1:-1]
        return [(name, value) for name, _, value in (line.partition("\0") for line in lines)]

    @property
    def announce_body(self) -> bool:
        """Whether a field announces a body: its length, or a transfer coding (RFC 9112, section 6)."""
        found = self._announce_body
        if found is None:
            find = self._block.find  # `in` tries bytes as a number first, and catches an exception
            found = self._announce_body = find(b"\ncontent-length\0") >= 0 or find(b"\ntransfer-encoding\0") >= 0
        return found

    @property
    def size(self) -> int:
        """Size of the fields in a head in bytes, with `: ` and CRLF for each."""
        return len(self._block) - 1 + 2 * self._block.count(b"\0")

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._block.find(_key(name)) >= 0

    def __iter__(self) -> Iterator[str]:
        """The names, in lower case and in the order of their first lines."""
        return iter(dict(self.items()))

    def __len__(self) -> int:
        """Number of lines; each line of a repeated field counts."""
        return self._block.count(b"\0")

    def __eq__(self, other: object) -> bool:
        return self._block == other._block if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._block)

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"


@lru_cache(maxsize=128)
def _key(name: str) -> bytes:
    """The bytes of the block before the value of a field."""
    return b"\n%b\0" % name.lower().encode("latin-1")


def _encode(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text
