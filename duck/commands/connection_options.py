"""Shared parts of `duck connect` and `duck bench`: the options of the client, and error messages."""

import argparse
import ssl

from duck.contrib.websockets import ConnectionClosed
from duck.contrib.websockets.client import HandshakeFailed, Options
from duck.contrib.websockets.client.address import Address
from duck.contrib.websockets.credentials import without_password
from duck.contrib.websockets.logging import printable, text_of

__all__ = ["FAILURES", "address_of", "connection_options", "explain"]

FAILURES = (OSError, HandshakeFailed, ConnectionClosed, ValueError, ModuleNotFoundError)
"""The errors of a connection that is not opened; the last is that of a proxy without its library."""

_ADVICE = {
    "CERTIFICATE_VERIFY_FAILED": "--ssl-ca-certs FILE trusts your own authority, --insecure any certificate",
    "WRONG_VERSION_NUMBER": "the server speaks no TLS there: write ws://",
}
# Codes of OpenSSL: a certificate that is not valid yet, expired, or for another host name or address.
_OF_ANY_AUTHORITY = frozenset({9, 10, 62, 64})

_TLS = ("insecure", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def connection_options(arguments: argparse.Namespace) -> Options:
    """Returns the given options of a client.

    Raises:
        ValueError: The URL is none, an option of TLS is given for a plain connection, or a file has other content.
    """
    scheme, _, path = arguments.url.partition("+unix:")
    if scheme in ("ws", "wss") and path:  # as a server prints it
        raise ValueError(f"write {scheme}://localhost/ --unix {path.removeprefix('//')}")
    is_secure = Address.parse(arguments.url).secure
    chosen: Options = {
        "headers": arguments.header,
        "subprotocols": arguments.subprotocol,
        "origin": arguments.origin,
        "compression": not arguments.no_compression,
        "unix": arguments.unix,
        "open_timeout": arguments.open_timeout,
    }
    given = [name for name in _TLS if getattr(arguments, name)]
    if given:
        if not is_secure:
            raise ValueError(f"--{given[0].replace('_', '-')} is for wss://: remove it")
        chosen["ssl"] = _context(arguments)
    return chosen


def _context(arguments: argparse.Namespace) -> ssl.SSLContext:
    authorities, certificate, key = arguments.ssl_ca_certs, arguments.ssl_certfile, arguments.ssl_keyfile
    if key and not certificate:
        raise ValueError("--ssl-keyfile is of no use without --ssl-certfile")
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise ValueError(f"{authorities or 'SSLKEYLOGFILE'}: {error}") from None
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        try:
            context.load_cert_chain(certificate, key)
        except OSError as error:
            raise ValueError(f"{' or '.join(filter(None, (certificate, key)))}: {error}") from None
    return context


def address_of(arguments: argparse.Namespace) -> str:
    """Returns the URL for reports: in one line, without its password."""
    return printable(without_password(arguments.url))


def explain(error: Exception) -> str:
    """Describes an error in one line, with advice for the usual faults of TLS."""
    words = printable(text_of(error))
    advice = _ADVICE.get(error.reason) if isinstance(error, ssl.SSLError) else None
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OF_ANY_AUTHORITY:
        advice = "--insecure accepts any certificate"
    return f"{words}; {advice}" if advice else words
