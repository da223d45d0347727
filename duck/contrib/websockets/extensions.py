"""Extensions, which encode sent data messages and decode received ones (RFC 6455, section 9; RFC 7692).

A compressed message may refer to earlier messages. Most implementations keep a compressor and a decompressor for each
connection. Here a connection keeps only the bytes to which a message may refer: one window of sent data and one of
received data. Each message gets a new context from the window, which is released afterwards. With 12 window bits an
idle connection takes 8 KiB instead of about 50.

The creation of a decompressor takes almost no time, but that of a compressor takes about 5 us. Therefore the
connections of a thread that have sent last keep their compressors, up to KEPT bytes in total.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import lru_cache

from .codec import deflate
from .codec.deflate import Inflater
from .exceptions import ExtensionError, PayloadTooBig
from .frame import Frame
from .opcodes import CONTROL_OPCODES, OpCode

__all__ = ["Extension", "Inflating", "PerMessageDeflate"]

KEPT = 8388608
"""Bytes of all compressors that the connections of a thread keep."""


class Extension:
    """Base of extensions: `encode` for sent messages, `decode` for received ones.

    The argument of both is a whole message as one frame, which they leave unchanged; the result is a frame.

    Args:
        name: The token of `Sec-WebSocket-Extensions`.
        parameters: The parameters in the response, as (name, value), or (name, None) for one without value.

    Attributes:
        uses_rsv1: Whether encoded frames may have RSV1 set. A connection can have one such extension.

    Raises:
        ValueError: The name is not a non-empty string.
    """

    uses_rsv1 = True

    def __init__(self, name: str, parameters: Sequence[tuple[str, str | None]] = ()) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ValueError("an extension's name is a non-empty string")
        self.name = name.strip()
        self.parameters = parameters

    def check_frame(self, frame: Frame) -> None:
        """Raises ExtensionError unless `frame` is a Frame."""
        if not isinstance(frame, Frame):
            raise ExtensionError(f"an extension takes a Frame, not {type(frame).__name__}")

    def encode(self, frame: Frame) -> Frame:
        """Returns the encoded frame."""
        raise NotImplementedError(f"{type(self).__name__} does not implement encode()")

    def decode(self, frame: Frame, max_size: int | None = None) -> Frame:
        """Returns the decoded frame.

        Args:
            frame: The frame as received.
            max_size: Bytes that the decoded payload may have.

        Raises:
            ExtensionError: The payload is not valid for this extension.
            PayloadTooBig: The decoded payload would be larger than `max_size`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement decode()")


_TAIL = b"\x00\x00\xff\xff"  # the end of a sync flush, which is not sent (RFC 7692, section 7.2.1)
# Bytes that are decompressed in the first step. Few messages need a second step, and small allocations fragment the
# heap less.
_LEAST_STEP, _EXPANSION, _MOST_AT_FIRST = 1024, 8, 65536
_EMPTY_BLOCK = b"\x00" + _TAIL
# An empty last block. Behind the tail it ends the stream of a decompressor without output, unless the message ends in
# the middle of a block.
_LAST_BLOCK = b"\x03\x00"
# The rest of a message and its tail, if the peer itself has sent a last block (section 7.2.3.4).
_BEHIND_LAST_BLOCK = (_TAIL, b"\x00" + _TAIL)


class PerMessageDeflate(Extension):
    """permessage-deflate (RFC 7692), for both roles.

    Args:
        name: `permessage-deflate`.
        client_no_context_takeover: The client compresses each message on its own.
        server_no_context_takeover: The same for the server.
        client_max_window_bits: Base-2 logarithm of the client's LZ77 window, 8 to 15.
        server_max_window_bits: The same for the server.
        client: The role of this end: a client rather than a server.
        level: From 1, fast, to 9, small; None for the level with the best ratio of size to time.
        memory_level: Memory of the compressor while it works: 2 ** (memory_level + 9) bytes, 1 to 9.
        threshold: Bytes from which messages are compressed.
        binary: Whether binary messages are compressed.
        parameters: As for `Extension`.
        backend: The compression library; None for the one that was chosen for the process.

    Attributes:
        followed: The last argument of `follow`, which replaces the history; None from the next `compress` on.

    Raises:
        ValueError: A number of window bits is out of its bounds.
    """

    def __init__(
        self,
        name: str,
        client_no_context_takeover: bool = False,
        server_no_context_takeover: bool = False,
        client_max_window_bits: int = 15,
        *,
        server_max_window_bits: int = 15,
        client: bool = False,
        level: int | None = 6,
        memory_level: int = 8,
        threshold: int = 0,
        binary: bool = True,
        parameters: Sequence[tuple[str, str | None]] = (),
        backend: deflate.Backend | None = None,
    ) -> None:
        super().__init__(name, parameters)
        for side, bits in (("client", client_max_window_bits), ("server", server_max_window_bits)):
            if not (isinstance(bits, int) and 8 <= bits <= 15):
                raise ValueError(f"{side}_max_window_bits is 8 to 15, not {bits}")
        self.client_no_context_takeover = client_no_context_takeover
        self.server_no_context_takeover = server_no_context_takeover
        self.client_max_window_bits = client_max_window_bits
        self.server_max_window_bits = server_max_window_bits
        self._bits, self._alone = server_max_window_bits, server_no_context_takeover
        self._peer_bits, self._peer_alone = client_max_window_bits, client_no_context_takeover
        if client:
            self._bits, self._peer_bits = self._peer_bits, self._bits
            self._alone, self._peer_alone = self._peer_alone, self._alone
        self.level = level
        self.memory_level = memory_level
        self.threshold = threshold
        self.binary = binary
        self._backend = backend or deflate.BACKEND
        self._compressor: deflate.Deflater | None = None
        self._sent = b""  # the window of sent data
        self.followed: bytes | None = None
        self._received = b""  # the window of received data

    def __repr__(self) -> str:
        names = (
            "client_no_context_takeover",
            "server_no_context_takeover",
            "client_max_window_bits",
            "server_max_window_bits",
        )
        return f"<PerMessageDeflate {' '.join(f'{name}={getattr(self, name)}' for name in names)}>"

    def fresh(self) -> "PerMessageDeflate":
        """Returns an extension with the same agreement, for another connection; this one must not have been used."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def compresses(self, opcode: int, size: int) -> bool:
        """Whether data messages of this opcode and size in bytes are compressed."""
        return size >= self.threshold and (self.binary or opcode != OpCode.BINARY)

    def encode(self, frame: Frame) -> Frame:
        """Compresses a data message (RFC 7692, section 7.2.1) for which `compresses` is true."""
        self.check_frame(frame)
        if frame.opcode in CONTROL_OPCODES or not self.compresses(frame.opcode, len(frame.payload)):
            return frame
        return frame.replace(payload=self.compress(frame.payload), rsv1=True)

    def decode(self, frame: Frame, max_size: int | None = None) -> Frame:
        """Decompresses a data message that has RSV1 set (RFC 7692, section 7.2.2)."""
        self.check_frame(frame)
        if frame.opcode in CONTROL_OPCODES or not frame.rsv1:
            return frame
        return frame.replace(payload=self.decompress(frame.payload, max_size), rsv1=False)

    def compress(self, payload: bytes, fin: bool = True, keep: bool = True) -> bytes:
        """Returns the compressed payload of a message.

        Args:
            payload: The message, or a fragment of it.
            fin: Whether the payload ends its message.
            keep: Whether the thread may keep the compressor after the message: false in any thread but that of the
                connection.
        """
        try:
            self._catch_up()
            compressed = self._compress(payload, fin)
            sent = b""
            if not self._alone:
                sent = _last(1 << self._bits, self._sent, payload)
            if not fin:
                _kept.drop(self)
            elif self._alone or not keep:
                self._compressor = None
            else:
                _kept.add(self)
        except BaseException:
            # The compressed payload is not sent, so later messages must not refer to it.
            self.release()
            raise
        self._sent = sent
        return compressed

    def _compress(self, payload: bytes, fin: bool) -> bytes:
        compressor = self._compressor
        if compressor is None:
            compressor = self._backend.deflater(self.level, self._bits, self.memory_level, self._sent)
            self._compressor = compressor
        # An empty message or last fragment is an empty block without its tail (section 7.2.3.6).
        compressed = _EMPTY_BLOCK
        if payload or not fin:
            compressed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return compressed.removesuffix(_TAIL) if fin else compressed

    def decompress(self, payload: bytes, max_size: int | None = None) -> bytes:
        """Returns the decompressed payload of a message.

        Raises:
            ExtensionError: The data is not valid DEFLATE.
            PayloadTooBig: The message is larger than `max_size`. No more than that has been decompressed.
        """
        if not payload:
            return b""  # never sent in practice, but accepted by every receiver
        inflater = self._backend.inflater(self._peer_bits, self._received)
        try:
            message = _inflate(inflater, payload + _TAIL, max_size)
            is_whole = _is_whole(inflater)
        except self._backend.error as error:
            raise _broken(error) from None
        if not is_whole:
            raise _broken("it does not end with its last block")
        if not self._peer_alone:
            self._received = _last(1 << self._peer_bits, self._received, message)
        return message

    @property
    def takes_over(self) -> bool:
        """Whether received messages may refer to earlier ones."""
        return not self._peer_alone

    def release(self) -> None:
        """Releases the compressor; the next message makes another."""
        self._compressor = None
        _kept.drop(self)

    @property
    def agreement(self) -> Hashable:
        """The parameters of a message compressed on its own; equal for connections that may share such a message."""
        return _agreement(self._backend, self._bits, self.level, self.memory_level)

    def compress_alone(self, payload: bytes) -> tuple[bytes, bytes]:
        """Compresses a message without references to earlier ones, so that every receiver can decompress it.

        Returns:
            The compressed payload, and the argument of `follow` for each connection that sends it.
        """
        compressor = self._backend.deflater(self.level, self._bits, self.memory_level)
        compressed = _EMPTY_BLOCK
        if payload:
            compressed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return compressed.removesuffix(_TAIL), payload[-(1 << self._bits) :]

    def follow(self, context: bytes) -> None:
        """Notes that a message of `compress_alone` is sent: later ones may refer to it, but not to earlier ones.

        The receiver's window ends with that message, so the distances of a continued compressor would be wrong.
        """
        if self.followed is None:
            if self._compressor is not None:
                self.release()
            self._sent = b""
        self.followed = context

    def _catch_up(self) -> None:
        """Replaces the history by `followed`, if that is set."""
        if self.followed is not None:
            if not self._alone:
                self._sent = self.followed
            self.followed = None

    @property
    def context(self) -> bytes:
        """The history that the next message may refer to, for `rewind`."""
        self._catch_up()
        return self._sent

    def rewind(self, context: bytes) -> None:
        """Returns to an earlier `context`, because the messages compressed since are not sent."""
        self.release()
        self.followed = None
        self._sent = context

    def compressor_size(self) -> int:
        """Returns the size of the compressor in bytes."""
        return self._backend.deflater_size(self._bits, self.memory_level)


class Inflating:
    """The decompression of one message that is received part by part (RFC 7692, section 7.2.2).

    With context takeover a message may refer to the one before it, whose decompression must have ended first.

        while data := inflating.take(65536): ...   # until it is empty
        inflating.feed(part)                       # then the next part, or `finish` and `take` again

    Args:
        deflate: The extension of the connection.
        max_size: Bytes of the largest message, decompressed; None for no limit.

    Attributes:
        is_over: Whether the whole message has been returned.
        received: The number of compressed bytes that have been fed.
        size: The number of decompressed bytes that have been returned.
    """

    __slots__ = (
        "_deflate",
        "_finished",
        "_inflater",
        "_is_pending",
        "_max_size",
        "_rest",
        "_window",
        "is_over",
        "received",
        "size",
    )

    def __init__(self, deflate: PerMessageDeflate, max_size: int | None) -> None:
        self._deflate = deflate
        self._max_size = max_size
        self._window = deflate._received
        self._inflater: Inflater | None = None  # from the first byte on
        self._rest = b""
        self._is_pending = False  # whether the decompressor may have output without further input
        self.received = self.size = 0
        self._finished = False
        self.is_over = False

    def feed(self, data: bytes) -> None:
        """Adds the next compressed bytes."""
        if data and self._inflater is None:
            self._inflater = self._deflate._backend.inflater(self._deflate._peer_bits, self._window)
        self._rest += data
        self.received += len(data)

    def finish(self) -> None:
        """Notes the end of the message."""
        self._finished = True
        self._rest += _TAIL

    def take(self, size: int) -> bytes:
        """Returns the next decompressed bytes; none if more input is needed, or at the end.

        Args:
            size: Bytes to return at most, 1 or more.

        Raises:
            ExtensionError: The data is not valid DEFLATE.
            PayloadTooBig: The message is larger than `max_size`.
        """
        inflater = self._inflater
        try:
            data = b"" if inflater is None else self._inflate(inflater, size)
            if not data and self._finished and not self.is_over:
                self.is_over = True
                if inflater is not None and not _is_whole(inflater):
                    raise _broken("it does not end with its last block")
                if self._deflate.takes_over:
                    self._deflate._received = self._window
        except self._deflate._backend.error as error:
            raise _broken(error) from None
        return data

    def _inflate(self, inflater: Inflater, size: int) -> bytes:
        if not (self._rest or self._is_pending):
            return b""
        if self._max_size is not None:
            size = min(size, self._max_size + 1 - self.size)
        data = inflater.decompress(self._rest, size)
        # At the end of the stream zlib may repeat the bytes of `unused_data` in `unconsumed_tail`.
        self._rest = b"" if inflater.eof else inflater.unconsumed_tail
        self._is_pending = len(data) == size and not inflater.eof
        if inflater.eof and not any(tail.startswith(inflater.unused_data) for tail in _BEHIND_LAST_BLOCK):
            raise _broken("it continues behind its last block")
        self.size += len(data)
        if self._max_size is not None and self.size > self._max_size:
            raise PayloadTooBig("message too big")
        if self._deflate.takes_over:
            self._window = _last(1 << self._deflate._peer_bits, self._window, data)
        return data


@lru_cache(maxsize=64)
def _agreement(*parameters: Hashable) -> Hashable:
    """Returns one object for equal parameters. Its hash, needed for each receiver of a message, is its address."""
    return object()


def _is_whole(inflater: Inflater) -> bool:
    """Whether a decompressor has stopped between two blocks after a message and its tail."""
    if inflater.eof:
        return inflater.unused_data in _BEHIND_LAST_BLOCK
    return not inflater.decompress(_LAST_BLOCK, 1) and inflater.eof


def _broken(why: object) -> ExtensionError:
    return ExtensionError(f"compressed data is broken: {why}")


class _Kept(threading.local):
    """The extensions of a thread that keep their compressors, the longest unused one first."""

    def __init__(self) -> None:
        self._extensions: OrderedDict[PerMessageDeflate, int] = OrderedDict()
        self._size = 0

    def add(self, extension: PerMessageDeflate) -> None:
        """Keeps the compressor of an extension, and releases the longest unused ones if there is no room."""
        extensions = self._extensions
        if extension in extensions:
            extensions.move_to_end(extension)
            return
        extensions[extension] = size = extension.compressor_size()
        self._size += size
        while self._size > KEPT:
            next(iter(extensions)).release()

    def drop(self, extension: PerMessageDeflate) -> None:
        """Removes an extension that has no compressor any more, or whose compressor is in use."""
        self._size -= self._extensions.pop(extension, 0)


_kept = _Kept()


def _inflate(inflater: deflate.Inflater, stream: bytes, max_size: int | None) -> bytes:
    """Decompresses in steps, each as large as all before it, so that no object exceeds `max_size`."""
    pieces: list[bytes] = []
    size, step = 0, min(max(_LEAST_STEP, _EXPANSION * len(stream)), _MOST_AT_FIRST)
    while True:
        if max_size is not None:
            step = min(step, max_size + 1 - size)
        piece = inflater.decompress(stream, step)
        size += len(piece)
        if max_size is not None and size > max_size:
            raise PayloadTooBig("message too big")
        if len(piece) < step or inflater.eof:
            return b"".join((*pieces, piece)) if pieces else piece
        pieces.append(piece)
        stream = inflater.unconsumed_tail
        step = size


def _last(size: int, before: bytes, payload: bytes) -> bytes:
    """Returns the last `size` bytes of `before` and a payload that follows it."""
    if len(payload) >= size:
        return payload[-size:]
    return before[len(payload) - size :] + payload
