"""Errors of connections, with their close codes (RFC 6455, section 7.4.1)."""

from collections.abc import Iterable, Mapping
from typing import Any

from .opcodes import CloseCode

__all__ = [
    "BaseException",
    "BrokerError",
    "ConnectionClosed",
    "ExtensionError",
    "HandshakeError",
    "HandshakeFailed",
    "HandshakeRefused",
    "InvalidHandshake",
    "PayloadTooBig",
    "ProtocolError",
]


class BaseException(Exception):  # the name is part of the API
    """Base of every error of this package."""

    def __reduce__(self) -> Any:
        """Copies and pickles the attributes. `Exception` would pass its text as the first argument of the class."""
        return type(self).__new__, (type(self),), {**self.__dict__, "args": self.args}


class ExtensionError(BaseException):
    """An extension could not encode or decode a frame."""

    close_code = CloseCode.PROTOCOL_ERROR


class ProtocolError(BaseException):
    """The peer broke RFC 6455.

    Attributes:
        close_code: Close code for the peer.
    """

    def __init__(self, message: str = "", close_code: int = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.close_code = close_code


class PayloadTooBig(ProtocolError):
    """A frame or a message is larger than the limit (close code 1009)."""

    def __init__(self, message: str = "", close_code: int = CloseCode.MESSAGE_TOO_BIG) -> None:
        super().__init__(message, close_code)


class ConnectionClosed(BaseException, ConnectionError):
    """A message cannot be sent or received, because the connection is closing or closed.

    Attributes:
        code: The close code of the connection; 1006 for an end without close frame.
        reason: The reason in the close frame.
        __cause__: The error of the network that has ended the connection, such as ConnectionResetError, or the rule
            that the peer has broken; None otherwise.
    """

    def __init__(self, code: int = CloseCode.ABNORMAL_CLOSURE, reason: str = "") -> None:
        super().__init__(f"the connection is closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class HandshakeError(BaseException):
    """An opening handshake is refused, with an HTTP response other than 101.

    Args:
        status: The HTTP status of the response, 200 to 599.
        message: The reason, for the log, and for the client unless there is a `body`.
        headers: Further header fields: a mapping, or pairs of name and value if a name is repeated.
        body: The content of the response; a str is sent as UTF-8. It is plain text unless `headers` has a Content-Type.
        fields: The header fields of the request that caused the refusal; the log shows their values.
        setting: The setting that would accept the request, for the log.

    Attributes:
        headers: The header fields as pairs. The other attributes are as given.

    Raises:
        ValueError: The status is not that of a final response.
        TypeError: The status is not an int, the message not a str, or the body neither str nor bytes.
    """

    def __init__(
        self,
        status: int,
        message: str = "",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        body: str | bytes | None = None,
        fields: tuple[str, ...] = (),
        setting: str = "",
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"the status of a refusal is an int, not {status!r}: write HandshakeError(403, 'reason')")
        if not 200 <= status <= 599:
            raise ValueError(f"a handshake is refused with a status from 200 to 599, not {status!r}")
        if not isinstance(message, str):
            raise TypeError(f"the message of a refusal is a str, not {type(message).__name__}: give bytes as body=")
        if not isinstance(body, str | bytes | None):
            raise TypeError(f"the body of a refusal is a str or bytes, not {type(body).__name__}")
        super().__init__(message)
        self.status = status
        self.message = message
        pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
        self.headers: tuple[tuple[str, str], ...] = tuple(pairs)
        self._body = body
        self.fields = fields
        self.setting = setting

    @property
    def body(self) -> bytes:
        """The content of the response; without a `body`, the reason and a line end."""
        if self._body is None:
            return f"{self.message}\n".encode() if self.message else b""
        return self._body.encode() if isinstance(self._body, str) else self._body


class HandshakeFailed(BaseException):
    """The opening handshake of a client failed. Base of `HandshakeRefused` and `InvalidHandshake`.

    Attributes:
        status: The HTTP status of the response; 0 for an unreadable response.
        headers: Its header fields, with case-insensitive names: `error.headers.get("retry-after")`.
        body: The first 64 KiB of its content.
    """

    def __init__(
        self, message: str, status: int = 0, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.body = body


class HandshakeRefused(HandshakeFailed):
    """The server answered the upgrade request with a status other than 101."""


class InvalidHandshake(HandshakeFailed):
    """The server's response to the upgrade request breaks HTTP or RFC 6455, or the stream ended within it."""


class BrokerError(BaseException):
    """The broker of groups has not taken a message, or the outcome is unknown. The text gives the reason.

    Attributes:
        not_published: Whether the message has certainly not been published, so that publishing it again repeats
            nothing. Otherwise the outcome is unknown.
    """

    def __init__(self, *args: object, not_published: bool = False) -> None:
        super().__init__(*args)
        self.not_published = not_published


# Close code and reason for each error number of the codec.
_CODEC_ERRORS: dict[int, tuple[CloseCode, str]] = {
    1: (CloseCode.PROTOCOL_ERROR, "reserved bits set"),
    2: (CloseCode.PROTOCOL_ERROR, "reserved opcode"),
    3: (CloseCode.PROTOCOL_ERROR, "frame not masked"),
    4: (CloseCode.PROTOCOL_ERROR, "frame masked by a server"),
    5: (CloseCode.PROTOCOL_ERROR, "fragmented control frame"),
    6: (CloseCode.PROTOCOL_ERROR, "control frame over 125 bytes"),
    7: (CloseCode.PROTOCOL_ERROR, "length not in its shortest form"),
    8: (CloseCode.PROTOCOL_ERROR, "length with its top bit set"),
    9: (CloseCode.MESSAGE_TOO_BIG, "message too big"),
    10: (CloseCode.PROTOCOL_ERROR, "continuation without a message"),
    11: (CloseCode.PROTOCOL_ERROR, "new message inside a fragmented one"),
    12: (CloseCode.INVALID_DATA, "text is not UTF-8"),
    13: (CloseCode.POLICY_VIOLATION, "too many empty fragments"),
}


def codec_error(number: int) -> ProtocolError:
    """Returns the exception for an error number of the codec."""
    code, message = _CODEC_ERRORS[number]
    if code is CloseCode.MESSAGE_TOO_BIG:
        return PayloadTooBig(message)
    return ProtocolError(message, code)
