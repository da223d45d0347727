"""What may change a data message on its way to the wire and back (RFC 6455, section 9; RFC 7692)."""

import zlib
from typing import TYPE_CHECKING

from .exceptions import ExtensionError, PayloadTooBig
from .opcodes import CONTROL_OPCODES

if TYPE_CHECKING:
    from .frame import Frame

__all__ = ["Extension", "PerMessageDeflate"]


class Extension:
    """Base of extensions: `encode` on the way out, `decode` on the way in.

    Both get a whole message as one frame, give a frame, and leave the one they got as it is.

    Args:
        name: The token of `Sec-WebSocket-Extensions`.

    Raises:
        ValueError: The name is not a non-empty string.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ValueError("an extension's name is a non-empty string")
        self.name = name.strip()

    def check_frame(self, frame: "Frame") -> None:
        """Raises ExtensionError unless `frame` is a Frame."""
        from .frame import Frame

        if not isinstance(frame, Frame):
            raise ExtensionError(f"an extension takes a Frame, not {type(frame).__name__}")

    def encode(self, frame: "Frame") -> "Frame":
        """The frame as it goes to the wire."""
        raise NotImplementedError(f"{type(self).__name__} does not implement encode()")

    def decode(self, frame: "Frame", max_size: int | None = None) -> "Frame":
        """The frame as it was before the peer encoded it.

        Args:
            frame: As it came from the wire.
            max_size: Bytes that the decoded payload may have.

        Raises:
            ExtensionError: The payload is not this extension's.
            PayloadTooBig: It would become larger than `max_size`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement decode()")


_TAIL = b"\x00\x00\xff\xff"  # what a sync flush ends with; it stays off the wire (RFC 7692, section 7.2.1)


class PerMessageDeflate(Extension):
    """permessage-deflate at the server's end.

    Args:
        name: `permessage-deflate`.
        client_no_context_takeover: The client compresses each message on its own.
        server_no_context_takeover: So do we.
        client_max_window_bits: Base-2 logarithm of the client's LZ77 window, 8 to 15.
    """

    def __init__(
        self,
        name: str,
        client_no_context_takeover: bool = False,
        server_no_context_takeover: bool = False,
        client_max_window_bits: int = 15,
    ) -> None:
        super().__init__(name)
        if not 8 <= client_max_window_bits <= 15:
            raise ValueError(f"client_max_window_bits is 8 to 15, not {client_max_window_bits}")
        self.client_no_context_takeover = client_no_context_takeover
        self.server_no_context_takeover = server_no_context_takeover
        self.client_max_window_bits = client_max_window_bits
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None

    def __repr__(self) -> str:
        return (
            f"<PerMessageDeflate client_no_context_takeover={self.client_no_context_takeover}"
            f" server_no_context_takeover={self.server_no_context_takeover}"
            f" client_max_window_bits={self.client_max_window_bits}>"
        )

    def encode(self, frame: "Frame") -> "Frame":
        """Compresses a data message (RFC 7692, section 7.2.1); a control frame stays as it is."""
        self.check_frame(frame)
        if frame.opcode in CONTROL_OPCODES:
            return frame
        deflater = self._deflater or zlib.compressobj(wbits=-15)
        payload = deflater.compress(frame.payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        self._deflater = None if self.server_no_context_takeover else deflater
        return frame.replace(payload=payload.removesuffix(_TAIL) or b"\x00", rsv1=True)

    def decode(self, frame: "Frame", max_size: int | None = None) -> "Frame":
        """Decompresses a data message that has RSV1 set (RFC 7692, section 7.2.2)."""
        self.check_frame(frame)
        if frame.opcode in CONTROL_OPCODES or not frame.rsv1:
            return frame
        inflater = self._inflater or zlib.decompressobj(wbits=-self.client_max_window_bits)
        try:
            # One byte of room more than allowed tells a message that fits from one that is cut.
            payload = inflater.decompress(frame.payload + _TAIL, 0 if max_size is None else max_size + 1)
        except zlib.error as error:
            raise ExtensionError(f"compressed data is broken: {error}") from None
        if max_size is not None and len(payload) > max_size:
            raise PayloadTooBig(f"message inflates to more than {max_size} bytes")
        self._inflater = None if self.client_no_context_takeover or inflater.eof else inflater
        return frame.replace(payload=payload, rsv1=False)
