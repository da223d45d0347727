"""Shared parts of `duck connect` and `duck bench`: options of a connection, and error messages."""

import argparse
import ssl

from duck.contrib.websockets.client import Options
from duck.contrib.websockets.client.address import Address
from duck.contrib.websockets.logging import printable

__all__ = ["add_connection_options", "connection_options", "explain"]

_ADVICE = {
    "CERTIFICATE_VERIFY_FAILED": "--insecure accepts any certificate",
    "WRONG_VERSION_NUMBER": "the server speaks no TLS there: write ws://",
}


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Adds the connection options and the URL."""
    parser.add_argument("url", type=_url, metavar="URL", help="ws:// or wss://")
    parser.add_argument(
        "--header", type=_header, action="append", default=[], metavar="'NAME: VALUE'", help="a field of the request"
    )
    parser.add_argument("--subprotocol", action="append", default=[], metavar="NAME", help="a subprotocol to offer")
    parser.add_argument("--origin", help="the value of Origin")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate")
    parser.add_argument("--no-compression", action="store_true", help="offer no compression")
    parser.add_argument("--unix", metavar="PATH", help="connect to a Unix socket")


def connection_options(arguments: argparse.Namespace) -> Options:
    """Returns the given options of a client."""
    chosen: Options = {
        "headers": arguments.header,
        "subprotocols": arguments.subprotocol,
        "origin": arguments.origin,
        "compression": not arguments.no_compression,
        "unix": arguments.unix,
    }
    if arguments.insecure:
        if not Address.parse(arguments.url).secure:
            raise ValueError("--insecure is for wss://: remove it")
        chosen["ssl"] = False
    return chosen


def explain(error: Exception) -> str:
    """Describes an error in one line, with advice for the usual faults of TLS."""
    words = printable(str(error) or type(error).__name__)
    advice = _ADVICE.get(error.reason) if isinstance(error, ssl.SSLError) else None
    return f"{words}; {advice}" if advice else words


def _url(text: str) -> str:
    try:
        Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a header field: write 'Name: value'")
    return name.strip(), value.strip()
