"""The settings of views and clients: the meaning of each, and its valid values.

One table serves the checks and the documentation. A new setting needs a row here, and a default in each class with it.
"""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .compression import Compression
from .metrics import Metrics
from .protocol.slow_consumer import SLOW_CONSUMER_POLICIES
from .sansio.handshake import MAGIC_STRING
from .sansio.negotiation import ClientOffer, is_token
from .sansio.origins import allowed_origins, checked_names

__all__ = ["BY_NAME", "CHANGEABLE", "SETTINGS", "Setting", "markdown_table"]

_MOST_SECONDS = 1e9  # three decades; loops and clocks overflow at some point beyond
_MOST_BYTES = 2**31 - 1  # the largest high-water mark of uvloop


class Setting(NamedTuple):
    """A row of the table.

    Attributes:
        name: The attribute of a view.
        unit: Unit of the value; "" for none.
        meaning: Cell of the documentation, in Markdown.
        verify: Raises a TypeError or a ValueError for an invalid value. The message begins with "is" or "has".
    """

    name: str
    unit: str
    meaning: str
    verify: Callable[[Any], None]

    def check(self, owner: str, value: object) -> None:
        """Verifies a value.

        Args:
            owner: Name of the class, for the error.

        Raises:
            TypeError: The value has the wrong type. The message names the setting and a valid value.
            ValueError: The value is out of bounds. The message names the setting and the bounds.
        """
        try:
            self.verify(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{owner}.{self.name} {error}") from None


def _number(
    words: str, least: float = 0, most: float = _MOST_SECONDS, *, or_none: bool = False, above: bool = False
) -> Callable[[Any], None]:
    """Returns a check for numbers from `least` to `most`; `above` excludes `least`."""

    def verify(value: Any) -> None:
        if value is None and or_none:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"is {words}, not {value!r}")
        if not least <= value <= most or (above and value == least):
            raise ValueError(f"is {words}, not {value!r}")

    return verify


def _whole(words: str, least: int, most: int = sys.maxsize, *, or_none: bool = False) -> Callable[[Any], None]:
    """Returns a check for ints from `least` to `most`."""
    in_bounds = _number(words, least, most, or_none=or_none)

    def verify(value: Any) -> None:
        if type(value) is int and least <= value <= most:
            return  # the usual value, at a third of the cost
        if isinstance(value, float):
            raise TypeError(f"is {words}, as an int, not {value!r}")
        in_bounds(value)

    return verify


def _policy(value: Any) -> None:
    if value not in SLOW_CONSUMER_POLICIES:
        raise ValueError(f"is one of {', '.join(SLOW_CONSUMER_POLICIES)}, not {value!r}")


def _subprotocols(value: Any) -> None:
    for name in checked_names(value, "subprotocols", "chat"):
        if not is_token(name):
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
        if not (isinstance(name, str) and is_token(name)):
            raise ValueError(f"has {name!r}, which cannot name an extension: a name is a token, such as 'x-name'")
        if not callable(negotiator):
            raise TypeError(f"has {negotiator!r} for {name!r}: give a function that takes the parameters of an offer")


def _offers(value: Any) -> None:
    if not isinstance(value, (dict, Mapping)):  # a dict is recognized without a call
        raise TypeError(f"is a mapping of names to a ClientOffer each, not {value!r}")
    for name, offer in value.items():
        if not isinstance(offer, ClientOffer):
            raise TypeError(f"has {offer!r} for {name!r}: give a ClientOffer of parameters and a function")


def _metrics(value: Any) -> None:
    if value is not None and not isinstance(value, Metrics):
        raise TypeError(f"is a Metrics or None, not {value!r}")


def _magic_string(value: Any) -> None:
    if value != MAGIC_STRING:
        raise ValueError(f"is RFC 6455's {MAGIC_STRING!r} for every client: leave it as it is")


SETTINGS = (
    Setting(
        "PING_INTERVAL",
        "seconds",
        "Time between two pings. None or 0 sends no pings.",
        _number("seconds between pings, or None for none", or_none=True),
    ),
    Setting(
        "PONG_TIMEOUT",
        "seconds",
        "Time in which the peer must answer a ping. Any received byte counts as an answer. None waits without limit.",
        _number("seconds, more than 0, or None for any time", or_none=True, above=True),
    ),
    Setting(
        "MAX_BACKOFF",
        "seconds",
        "Longest wait before the ping that follows an unanswered one; each unanswered ping doubles the wait. The third"
        " in a row closes the connection with 1001.",
        _number("seconds, more than 0", above=True),
    ),
    Setting(
        "RECEIVE_TIMEOUT",
        "seconds",
        "Silence of the peer, after which the connection is closed with 1001, at most a tenth later. None or 0 "
        "sets no limit.",
        _number("seconds, or None for no limit", or_none=True),
    ),
    Setting(
        "HANDSHAKE_TIMEOUT",
        "seconds",
        "Time for `on_handshake` to decide; then it is cancelled and the client gets 503. None waits without limit.",
        _number("seconds, more than 0, or None for any time", or_none=True, above=True),
    ),
    Setting(
        "OPEN_TIMEOUT",
        "seconds",
        "Time for a client to connect. None sets no limit.",
        _number("a number of seconds, or None for no limit", most=math.inf, or_none=True),
    ),
    Setting(
        "CLOSE_TIMEOUT",
        "seconds",
        "Time for the peer to answer a close frame; it starts again whenever the peer reads waiting bytes. After "
        "the loss of the connection hooks have the same time to end. Then they are cancelled, and `on_close` "
        "runs.",
        _number("seconds"),
    ),
    Setting(
        "MAX_FRAME_SIZE",
        "bytes",
        "Largest frame, and largest message after reassembly and decompression. A larger one is refused with 1009"
        " before its payload is received. None sets no limit. Outgoing messages are cut into fragments of this "
        "size.",
        _whole(f"bytes, from 1 to {sys.maxsize}, or None for no limit", 1, or_none=True),
    ),
    Setting(
        "MAX_STREAM_SIZE",
        "bytes",
        "Largest message for `on_stream`, in place of `MAX_FRAME_SIZE`; compressed, and decompressed. A larger one is"
        " refused with 1009. None sets no limit.",
        _whole(f"bytes, from 1 to {sys.maxsize}, or None for no limit", 1, or_none=True),
    ),
    Setting(
        "MAX_CONCURRENT_MESSAGES",
        "handlers",
        "Handlers of one connection that may be suspended at the same time. Further messages wait. 1 handles "
        "messages strictly one after the other.",
        _whole("handlers at a time, 1 or more", 1),
    ),
    Setting(
        "MAX_WAITING_MESSAGES",
        "messages",
        "Messages that may wait for a handler while reading continues. Beyond this number nothing is read, not "
        "even pings and close frames, until half of the messages have been handled.",
        _whole("messages, 0 or more", 0),
    ),
    Setting(
        "MAX_WAITING_BYTES",
        "bytes",
        "Size of the waiting messages, and of the waiting parts for `on_stream`, as received: compressed messages wait"
        " compressed.",
        _whole(f"bytes, from 0 to {sys.maxsize}", 0),
    ),
    Setting(
        "COMPRESSION",
        "",
        "True compresses messages for clients that offer `permessage-deflate`, False never does. A `Compression` "
        "object sets the details.",
        _compression,
    ),
    Setting("EXTENSIONS", "functions", "Further extensions: a negotiator function for each name.", _extensions),
    Setting("OFFERS", "offers", "Further extensions of a client: a `ClientOffer` for each name.", _offers),
    Setting(
        "SUBPROTOCOLS",
        "names",
        "Subprotocols of the view. The first supported one in the client's order is chosen.",
        _subprotocols,
    ),
    Setting(
        "RATE_LIMIT",
        "messages/s",
        "Messages that the peer may send, pings included. A peer that has been silent may send those of one second at "
        "once. Beyond this rate the connection is closed with 1008.",
        _number("messages a second, or None for no limit", or_none=True, above=True),
    ),
    Setting(
        "WRITE_LIMIT",
        "bytes",
        "Outgoing bytes that may wait for the peer before `SLOW_CONSUMER` applies.",
        _whole(f"bytes, from 0 to {_MOST_BYTES}", 0, _MOST_BYTES),
    ),
    Setting(
        "SLOW_CONSUMER",
        "",
        "Policy for a peer that reads too slowly. `wait`: awaiting `send` suspends the caller. `drop`: the "
        "message is discarded, and `view.dropped` counts it. `close`: the connection is closed with 1008. "
        "Messages in parts wait under every policy.",
        _policy,
    ),
    Setting(
        "ALLOWED_ORIGINS",
        "origins",
        "Origins whose pages may connect: `https://example.org`; `https://*.example.org` for its subdomains at "
        "any depth, without the domain itself; `null` and `file://` for pages without a host; `*` for all. None "
        "allows the server's own origin only. Other pages get 403.",
        _origins,
    ),
    Setting(
        "METRICS",
        "",
        "A `duck.contrib.websockets.metrics.Metrics` that counts the connections of the view. None leaves that to the "
        "server: the embedded one counts all its connections.",
        _metrics,
    ),
    Setting("MAGIC_STRING", "", "Constant of the handshake (RFC 6455, section 1.3). Do not change it.", _magic_string),
)

BY_NAME = {setting.name: setting for setting in SETTINGS}

CHANGEABLE = frozenset({"PING_INTERVAL", "PONG_TIMEOUT", "MAX_BACKOFF", "RECEIVE_TIMEOUT", "CLOSE_TIMEOUT"})
"""Settings that may change while the connection is open.

The heartbeat applies a change of its times at once. CLOSE_TIMEOUT is read when the connection closes.
"""


def markdown_table(view_class: type) -> str:
    """Returns the table of the settings of a class for the documentation, with their defaults."""
    rows = ["| name | default | unit | meaning |", "| --- | --- | --- | --- |"]
    for name, unit, meaning, _ in SETTINGS:
        if not hasattr(view_class, name):  # a setting of clients
            continue
        rows.append(f"| `{name}` | `{getattr(view_class, name)!r}` | {unit}{' ' if unit else ''}| {meaning} |")
    return "\n".join(rows)
