"""The settings of a view: the meaning of each, and the values that it may have.

One table serves the checks and the documentation. A row is all that a new setting needs, beside its default in
`WebSocketView`.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .compression import Compression
from .protocol.slow_consumer import SLOW_CONSUMER_POLICIES
from .sansio.handshake import MAGIC_STRING
from .sansio.negotiation import TOKEN
from .sansio.origins import allowed_origins, checked_names

__all__ = ["BY_NAME", "CHANGEABLE", "SETTINGS", "Setting", "markdown_table"]

_MOST_SECONDS = 1e9  # three decades; loops and clocks overflow at some point beyond
_MOST_BYTES = 2**31 - 1  # what uvloop takes for a high-water mark


class Setting(NamedTuple):
    """A row of the table.

    Attributes:
        name: The attribute of a view.
        unit: What its value counts.
        meaning: The cell of the documentation, in Markdown.
        verify: Raises a TypeError or a ValueError for what it may not be; says what it is instead.
    """

    name: str
    unit: str
    meaning: str
    verify: Callable[[Any], None]

    def check(self, owner: str, value: object) -> None:
        """Verifies a value.

        Args:
            owner: Whose setting it is, for the error.

        Raises:
            TypeError, ValueError: With the name of the setting, and what to write.
        """
        try:
            self.verify(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{owner}.{self.name} {error}") from None


def _number(
    words: str, least: float = 0, most: float = _MOST_SECONDS, *, or_none: bool = False, above: bool = False
) -> Callable[[Any], None]:
    """Verifies a number; `above` excludes the least."""

    def verify(value: Any) -> None:
        if value is None and or_none:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"is {words}, not {value!r}")
        if not least <= value <= most or (above and value == least):
            raise ValueError(f"is {words}, not {value!r}")

    return verify


def _whole(words: str, least: int, most: int = sys.maxsize, *, or_none: bool = False) -> Callable[[Any], None]:
    """Verifies a number that is an int."""
    in_bounds = _number(words, least, most, or_none=or_none)

    def verify(value: Any) -> None:
        if isinstance(value, float):
            raise TypeError(f"is {words}, as an int, not {value!r}")
        in_bounds(value)

    return verify


def _policy(value: Any) -> None:
    if value not in SLOW_CONSUMER_POLICIES:
        raise ValueError(f"is one of {', '.join(SLOW_CONSUMER_POLICIES)}, not {value!r}")


def _subprotocols(value: Any) -> None:
    for name in checked_names(value, "subprotocols", "chat"):
        if re.fullmatch(TOKEN, name) is None:
            raise ValueError(f"has {name!r}, which no client can offer: a subprotocol is a token, such as 'chat.v2'")


def _origins(value: Any) -> None:
    if value is not None:
        allowed_origins(value)


def _compression(value: Any) -> None:
    if not isinstance(value, (bool, Compression)):
        raise TypeError(f"is True, False or a Compression, not {value!r}")


def _extensions(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"is a dict of names and functions, such as {{'x-name': negotiate}}, not {value!r}")
    for name, negotiator in value.items():
        if not isinstance(name, str) or re.fullmatch(TOKEN, name) is None:
            raise ValueError(f"has {name!r}, which cannot name an extension: a name is a token, such as 'x-name'")
        if not callable(negotiator):
            raise TypeError(f"has {negotiator!r} for {name!r}: give a function that takes the parameters of an offer")


def _magic_string(value: Any) -> None:
    if value != MAGIC_STRING:
        raise ValueError(f"is RFC 6455's {MAGIC_STRING!r} for every client: leave it as it is")


SETTINGS = (
    Setting(
        "PING_INTERVAL",
        "seconds",
        "Between pings; None or 0 for none.",
        _number("seconds between pings, or None for none", or_none=True),
    ),
    Setting(
        "PONG_TIMEOUT",
        "seconds",
        "In which a ping must be answered; anything received counts. None for any time.",
        _number("seconds, more than 0, or None for any time", or_none=True, above=True),
    ),
    Setting(
        "MAX_BACKOFF",
        "seconds",
        "Between pings, at most, while they are not answered. After the third the connection is closed, with 1001.",
        _number("seconds, more than 0", above=True),
    ),
    Setting(
        "RECEIVE_TIMEOUT",
        "seconds",
        "Without a byte received, after which the connection is closed, with 1001, at most a tenth later; None or 0 "
        "for no limit.",
        _number("seconds, or None for no limit", or_none=True),
    ),
    Setting(
        "CLOSE_TIMEOUT",
        "seconds",
        "That the peer has to answer a close frame, anew whenever it takes bytes that wait for it. Hooks have as long "
        "to end once the connection is gone; then they are cancelled, and `on_close` runs.",
        _number("seconds"),
    ),
    Setting(
        "MAX_FRAME_SIZE",
        "bytes",
        "Of a frame, and of a message. A larger one is refused with 1009, before it is received; None for no limit. "
        "What is sent is cut into fragments of this size.",
        _whole(f"bytes, from 1 to {sys.maxsize}, or None for no limit", 1, or_none=True),
    ),
    Setting(
        "MAX_CONCURRENT_MESSAGES",
        "handlers",
        "That may be waiting at a time; 1 for strictly one after the other. Further messages wait.",
        _whole("handlers at a time, 1 or more", 1),
    ),
    Setting(
        "MAX_WAITING_MESSAGES",
        "messages",
        "That may wait for a handler while reading goes on. Beyond that nothing more is read, not even pings and close "
        "frames, until half of them have been handled.",
        _whole("messages, 0 or more", 0),
    ),
    Setting(
        "MAX_WAITING_BYTES",
        "bytes",
        "That these may have, as they came: compressed messages wait compressed.",
        _whole(f"bytes, from 0 to {sys.maxsize}", 0),
    ),
    Setting(
        "COMPRESSION",
        "",
        "Whether messages are compressed for clients that offer it; or a `Compression`, see below.",
        _compression,
    ),
    Setting("EXTENSIONS", "functions", "Extensions of your own, see below.", _extensions),
    Setting("SUBPROTOCOLS", "names", "That are spoken; the first of the client's choice is taken.", _subprotocols),
    Setting(
        "RATE_LIMIT",
        "messages/s",
        "What the peer may send, pings included; beyond that the connection ends with 1008.",
        _number("messages a second, or None for no limit", or_none=True, above=True),
    ),
    Setting(
        "WRITE_LIMIT",
        "bytes",
        "What may wait until the peer reads it, before `SLOW_CONSUMER` applies.",
        _whole(f"bytes, from 0 to {_MOST_BYTES}", 0, _MOST_BYTES),
    ),
    Setting(
        "SLOW_CONSUMER",
        "",
        "`wait`: awaiting `send` takes until the peer reads. `drop`: the message is not sent (`view.dropped` counts). "
        "`close`: the connection ends with 1008. A message in parts waits in any case.",
        _policy,
    ),
    Setting(
        "ALLOWED_ORIGINS",
        "origins",
        "A list of those whose pages may connect: `https://example.org`; `https://*.example.org` for its subdomains, "
        "one label or more, without the domain itself; `null` and `file://` for pages without a host; `*` for all. "
        "None for the host's own. Others get 403.",
        _origins,
    ),
    Setting(
        "MAGIC_STRING", "", "Part of the handshake (RFC 6455, section 1.3), and not for you to change.", _magic_string
    ),
)

BY_NAME = {setting.name: setting for setting in SETTINGS}

CHANGEABLE = frozenset({"PING_INTERVAL", "PONG_TIMEOUT", "MAX_BACKOFF", "RECEIVE_TIMEOUT", "CLOSE_TIMEOUT"})
"""Those that a view may change while its connection is open: they hold from the next ping or close frame on."""


def markdown_table(view_class: type) -> str:
    """The documentation of the settings, with the defaults of a class."""
    rows = ["| name | default | unit | what it does |", "| --- | --- | --- | --- |"]
    for name, unit, meaning, _ in SETTINGS:
        rows.append(f"| `{name}` | `{getattr(view_class, name)!r}` | {unit}{' ' if unit else ''}| {meaning} |")
    return "\n".join(rows)
