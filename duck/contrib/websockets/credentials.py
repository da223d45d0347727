"""URLs with credentials, and their form in errors.

A slash, `?` or `#` in a password that is not percent-encoded ends the host of the URL for a parser, so that errors of
the parser quote the password as a port.
"""

import re
from urllib.parse import SplitResult

__all__ = ["port_of", "without_password"]

_PASSWORD = re.compile(r"(//|^)([^:/?#]*):(?!//).*@", re.DOTALL)
_PARAMETER = re.compile(r"(password=)[^&]*")  # such as `sentinel_password` for Redis


def without_password(url: str) -> str:
    """Returns a URL, which may be invalid, with stars in place of its passwords."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1\2:***@", url))


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
