"""One frame as an object (RFC 6455, section 5.2), for hooks, extensions and tests. The hot path creates none."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, Self, cast

from . import codec
from .exceptions import ProtocolError, codec_error
from .opcodes import CONTROL_OPCODES, OpCode

__all__ = ["Frame", "apply_mask"]


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Masks or unmasks a payload: XOR with the repeated mask (RFC 6455, section 5.3).

    Args:
        data: The payload.
        mask: 4 bytes.

    Returns:
        As many bytes as `data` has.

    Raises:
        ValueError: The mask does not have 4 bytes.
    """
    return codec.apply_mask(data, mask)


class Transform(Protocol):
    """The methods of an extension that a frame uses; see `Extension`."""

    def encode(self, frame: "Frame") -> "Frame":
        """Returns the encoded frame."""
        raise NotImplementedError

    def decode(self, frame: "Frame", max_size: int | None = None) -> "Frame":
        """Returns the decoded frame."""
        raise NotImplementedError


class Frame:
    """A frame, or a message whose fragments have been joined.

    Args:
        opcode: An `OpCode`, or its number.
        fin: Whether the frame is the last one of its message.
        payload: The unmasked payload: any contiguous bytes-like object.
        rsv1: A reserved bit. Extensions define its meaning, as that of `rsv2` and `rsv3`.

    Raises:
        TypeError: The payload is not bytes-like, or is given in the place of `fin`.
        ValueError: There is no such opcode.
    """

    __slots__ = ("fin", "opcode", "payload", "rsv1", "rsv2", "rsv3")

    def __init__(
        self,
        opcode: int,
        fin: bool = True,
        payload: bytes | bytearray | memoryview = b"",
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> None:
        if not isinstance(payload, bytes):
            payload = memoryview(payload).tobytes()
        if not isinstance(fin, int):
            raise TypeError(f"fin is a bool, not {type(fin).__name__}: write Frame(opcode, payload=...)")
        self.opcode = opcode if type(opcode) is OpCode else OpCode(opcode)
        self.fin = fin
        self.payload = payload
        self.rsv1 = rsv1
        self.rsv2 = rsv2
        self.rsv3 = rsv3

    def __repr__(self) -> str:
        bits = "".join(f" {name}" for name in ("fin", "rsv1", "rsv2", "rsv3") if getattr(self, name))
        opcode = getattr(self.opcode, "name", self.opcode)  # a number may have been assigned
        return f"<Frame {opcode}{bits} {len(self.payload)} bytes>"

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some attributes changed."""
        return type(self)(**{name: getattr(self, name) for name in Frame.__slots__} | changes)

    def check(self) -> None:
        """Checks the rules of RFC 6455, sections 5.2 and 5.5.

        Raises:
            ProtocolError: A reserved bit is set, or a control frame is fragmented or has more than 125 bytes.
        """
        if self.rsv1 or self.rsv2 or self.rsv3:
            raise ProtocolError("reserved bits set")
        if self.opcode in CONTROL_OPCODES:
            if len(self.payload) > 125:
                raise ProtocolError("control frame over 125 bytes")
            if not self.fin:
                raise ProtocolError("fragmented control frame")

    @classmethod
    async def parse(
        cls,
        read_exact: Callable[[int], Awaitable[bytes]],
        mask_required: bool = True,
        max_size: int | None = None,
        extensions: Sequence[Transform] | None = None,
    ) -> Self:
        """Reads one frame.

        Args:
            read_exact: Coroutine function that returns exactly the requested number of bytes.
            mask_required: Whether to refuse a frame without mask, as a server must.
            max_size: Largest payload allowed, in bytes.
            extensions: The extensions that decode the frame, the last one first.

        Raises:
            ProtocolError: The header breaks a rule. No payload has been read.
            PayloadTooBig: The payload is larger than `max_size`.
        """
        limit = codec.MAX_LENGTH if max_size is None else max_size
        head = await read_exact(2)
        masked = mask_required or bool(head[1] & 0b10000000)
        try:
            header = codec.parse_header(head, masked, bool(extensions), limit)
            if header is None:
                more = {126: 2, 127: 8}.get(head[1] & 0b01111111, 0) + 4 * masked
                header = codec.parse_header(head + await read_exact(more), masked, bool(extensions), limit)
                assert header is not None
        except ValueError as error:
            raise codec_error(error.args[0]) from None
        _, first, length, mask = header
        payload = await read_exact(length) if length else b""
        if masked:
            payload = apply_mask(payload, mask)
        frame = cls(first & 0b1111, bool(first & codec.FIN), payload, rsv1=bool(first & codec.RSV1))
        for extension in reversed(extensions or ()):
            frame = cast("Self", extension.decode(frame, max_size))
        return frame

    def serialize(self, mask: bool = False, extensions: Sequence[Transform] | None = None) -> bytes:
        """Returns the bytes of the frame.

        Args:
            mask: Whether to mask the frame with new random bytes, as a client must.
            extensions: The extensions that encode the frame, the first one first.
        """
        frame: Frame = self
        for extension in extensions or ():
            frame = extension.encode(frame)
        return codec.serialize(first_byte(frame), frame.payload, codec.new_mask() if mask else None)


def first_byte(frame: Frame) -> int:
    """Returns the first byte of a frame: its bits, any of which may have been assigned, and its opcode."""
    bits = (frame.fin, 0x80), (frame.rsv1, 0x40), (frame.rsv2, 0x20), (frame.rsv3, 0x10)
    return sum(bit for is_set, bit in bits if is_set) | frame.opcode


def sendable(frame: Frame) -> tuple[OpCode, bytes, bool]:
    """Returns opcode, payload and fin of a frame for `send_frame`; any of its attributes may have been assigned.

    Raises:
        TypeError: The object is not a frame, or its payload is not bytes-like.
        ValueError: There is no such opcode, or a reserved bit is set. Only extensions set these bits, when they encode
            the message (RFC 6455, section 5.2).
    """
    if not isinstance(frame, Frame):
        raise TypeError(f"send_frame takes a Frame, not {type(frame).__name__}: use send for data")
    if frame.rsv1 or frame.rsv2 or frame.rsv3:
        raise ValueError(
            f"{frame!r} cannot be sent: leave rsv1, rsv2 and rsv3 False, because the extensions of the connection"
            " encode its payload and set them"
        )
    payload = frame.payload
    if type(payload) is not bytes:
        payload = memoryview(payload).tobytes()
    opcode = frame.opcode
    return opcode if type(opcode) is OpCode else OpCode(opcode), payload, bool(frame.fin)


def message_of(frame: Frame) -> tuple[int, bytes]:
    """Returns opcode and payload of a message that an extension or an overridden `read_frame` has returned.

    Either may have assigned any bytes-like payload, and handlers get bytes.

    Raises:
        TypeError: The frame is not a TEXT or BINARY frame, or its payload is not bytes-like.
    """
    if frame.opcode not in (OpCode.TEXT, OpCode.BINARY):
        raise TypeError(f"a received message has become {frame!r}: return a TEXT or BINARY frame")
    payload = frame.payload
    return int(frame.opcode), payload if type(payload) is bytes else memoryview(payload).tobytes()
