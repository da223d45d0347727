"""`Limits`: the resources that clients of the embedded server may use."""

import sys
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Limits", "check_seconds", "check_whole"]


def check_seconds(name: str, value: Any) -> None:
    """Checks the value of an option in seconds.

    Raises:
        TypeError, ValueError: It is not a finite number of 0 or more, or a float cannot express it.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative: {value!r}")
    if value > sys.float_info.max:
        raise ValueError(f"{name} must be a finite number of seconds that a float can express")


def check_whole(name: str, value: Any, least: int = 0, most: int | None = None) -> None:
    """Checks the value of an option that is a whole number.

    Raises:
        TypeError, ValueError: It is not an int, or it is out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least or (most is not None and value > most):
        bounds = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {bounds}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server, and of one connection while it speaks HTTP.

    Attributes:
        connections: Open connections of any kind; further ones are answered 503. None for as many as the process's
            limit of open files allows.
        connections_per_address: Open connections from one IPv4 address or one IPv6 network of 64 bits; None for no
            limit. The clients that a trusted proxy names count, the proxy does not.
        head_timeout: Seconds within which a TLS handshake must end, the first request begin, and any request be
            complete, including its body.
        keep_alive_timeout: Seconds that a connection may idle between two requests.
        linger_timeout: Seconds for a refused client to read the refusal, while its further bytes are discarded.
        head_size: Bytes of a request's head.
        header_count: Header fields of a request.
        body_size: Bytes of a request's body. A longer POST is answered 413. Bodies of other requests are discarded, and
            longer ones end the connection.

    Raises:
        TypeError, ValueError: A limit is not a finite number, or is negative.
    """

    connections: int | None = None
    connections_per_address: int | None = None
    head_timeout: float = 10.0
    keep_alive_timeout: float = 20.0
    linger_timeout: float = 2.0
    head_size: int = 32 * 1024
    header_count: int = 100
    body_size: int = 64 * 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if field.name.endswith("_timeout"):
                check_seconds(f"Limits.{field.name}", value)
            else:
                check_whole(f"Limits.{field.name}", value)
