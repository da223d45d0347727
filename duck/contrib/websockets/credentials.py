"""URLs with credentials, and their form in errors.

A slash, `?` or `#` in a password that is not percent-encoded ends the host of the URL for a parser, so that errors of
the parser quote the password as a port. They also quote it if its NFKC form has such a character, as a fullwidth `?`.
"""

import base64
import re
from urllib.parse import SplitResult, urlsplit

__all__ = ["basic_authorization", "check_user", "port_of", "split_url", "without_password"]

_PASSWORD = re.compile(r"(//|^)([^:/?#]*):(?!//).*@", re.DOTALL)
_PARAMETER = re.compile(r"(password=)[^&]*")  # such as `sentinel_password` for Redis


def without_password(url: str) -> str:
    """Returns a URL, which may be invalid, with stars in place of its passwords."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1\2:***@", url))


def split_url(url: str) -> SplitResult:
    """Returns the parts of a URL.

    Raises:
        ValueError: The URL is invalid; the message quotes no password.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise ValueError(without_password(str(error))) from None


def port_of(parts: SplitResult) -> int | None:
    """Returns the port of a URL.

    Raises:
        ValueError: The port is invalid; the message does not quote it.
    """
    try:
        return parts.port
    except ValueError:
        encoded = "a password has %2F for /, %3F for ? and %23 for #"
        raise ValueError(f"the port is not a number up to 65535; {encoded}") from None


def basic_authorization(user: str, password: str) -> str:
    """Returns the value of Authorization or Proxy-Authorization for credentials (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def check_user(user: str) -> None:
    """Raises a ValueError for a user name that Basic authentication cannot send (RFC 7617, section 2)."""
    if ":" in user:
        raise ValueError(f"the user name {user!r} has a colon, at which the password would begin")
