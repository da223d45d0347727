"""The arguments of `duck connect` and `duck bench`, without their modules: `duck serve` does not import the client."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from duck.contrib.websockets.sansio.negotiation import is_token

__all__ = ["add_bench_options", "add_connection_options", "number"]

_MOST = 1_000_000  # connections, and messages in flight
_LARGEST = 1 << 30  # bytes of a message


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Adds the URL and the options of a connection, which are all of `duck connect`."""
    # Checked later: argparse would take the value of an unknown option for the URL, and report only that.
    parser.add_argument("url", metavar="URL", help="ws:// or wss://")
    parser.add_argument(
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a field of the request; may be repeated",
    )
    parser.add_argument(
        "--subprotocol",
        type=_subprotocol,
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer; may be repeated",
    )
    parser.add_argument("--origin", help="the value of Origin, such as https://example.org")
    parser.add_argument("--ssl-ca-certs", metavar="FILE", help="trust these authorities (PEM) instead of the system's")
    parser.add_argument("--ssl-certfile", metavar="FILE", help="send this client certificate (PEM)")
    parser.add_argument("--ssl-keyfile", metavar="FILE", help="key of the certificate, if it is in another file")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate")
    parser.add_argument("--no-compression", action="store_true", help="offer no compression")
    parser.add_argument("--unix", metavar="PATH", help="connect to a Unix socket")
    parser.add_argument(
        "--open-timeout", type=_seconds, default=10.0, metavar="S", help="seconds to open a connection (%(default)s)"
    )


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Adds the URL and the options of `duck bench`."""
    add_connection_options(parser)
    count = number(int, 1, _MOST, f"a whole number from 1 to {_MOST:,}")
    size = number(int, 1, _LARGEST, f"a whole number from 1 to {_LARGEST:,}")
    parser.add_argument("-c", "--connections", type=count, default=100, metavar="N", help="connections (%(default)s)")
    parser.add_argument(
        "-d", "--depth", type=count, default=4, metavar="N", help="messages in flight on each connection (%(default)s)"
    )
    parser.add_argument("-s", "--size", type=size, default=32, metavar="BYTES", help="size of a message (%(default)s)")
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="S", help="duration (%(default)s)")


# Parsers of option values. argparse shows only the message of an ArgumentTypeError; for any other error it shows
# the name of the function.


def number(kind: Callable[[str], Any], least: float, most: float, words: str) -> Callable[[str], Any]:
    """Returns a parser of numbers within a range.

    Args:
        kind: Converts the text to a number.
        words: The expected value, for the error.
    """

    def read(text: str) -> Any:
        try:
            found = kind(text)
        except ValueError:
            found = None
        if found is None or not least <= found <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return found

    return read


_seconds = number(float, sys.float_info.min, sys.float_info.max, "a number of seconds above 0")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a header field: write 'Name: value'")
    return name.strip(), value.strip()


def _subprotocol(text: str) -> str:
    if not is_token(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a subprotocol: write a token, such as 'chat.v2'")
    return text
