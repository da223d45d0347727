"""One WebSocket connection without I/O: bytes in, messages out, and bytes to send (RFC 6455), for both roles.

`states` has the states of both directions and their transitions. Our close frame answers that of the peer, or gives the
reason after a breach of a rule. After it nothing else is sent, and received data messages are dropped (section 5.5.1).
After a received close frame or a breach, nothing more is read.

`is_over` is true when only the end of the stream is left to wait for. The owner of the connection sends the bytes that
`take_outgoing` returns; `protocol.ConnectionProtocol`, its owner on a loop, uses the reader and the writer directly.
"""

import builtins
import contextlib
from collections.abc import Sequence

from .. import codec
from ..codec import FIN, RSV1
from ..exceptions import BaseException, ConnectionClosed, ExtensionError, PayloadTooBig, ProtocolError, codec_error
from ..extensions import Extension, Inflating, PerMessageDeflate
from ..frame import Frame, first_byte, message_of
from ..opcodes import CloseCode, OpCode
from .payloads import check_close, check_text, close_payload, parse_close
from .states import Incoming, Outgoing

__all__ = ["Connection"]

_SENDABLE = frozenset(OpCode) - {OpCode.CLOSE}
_NO_TEXT = -1
_ANY = builtins.BaseException  # the built-in class; the imported one of the same name hides it

# A look-up in the class of an enum, or a comparison of its member with an int, takes several times as long.
_CLOSE, _PING = int(OpCode.CLOSE), int(OpCode.PING)
_NO_STATUS = int(CloseCode.NO_STATUS_RCVD)
_OPEN, _ENDING, _CLOSED = Outgoing.OPEN, Outgoing.ENDING, Outgoing.CLOSED
_RECEIVING, _UNANSWERED, _ANSWERED, _FAILED = Incoming.OPEN, Incoming.UNANSWERED, Incoming.CLOSED, Incoming.FAILED


class Connection:
    """A connection after its opening handshake.

    Args:
        client: The role of this end. A client masks its frames, and accepts only unmasked frames.
        max_size: Bytes of the largest message, as received and decoded; None for no limit. The received form may be a
            sixteenth larger if it is encoded, because some data does not compress.
        extensions: The negotiated extensions, in the order in which they encode.

    Attributes:
        outgoing: The state of the sending direction.
        incoming: The state of the receiving direction.
        ended: Whether the stream has ended, for any reason.
        fault: An error of an extension that is not the peer's fault, for the owner to log.
        parts: Whether messages are received part by part.
        reader: Parses the stream. An owner that feeds it directly passes the messages to `received`.
        writer: Gathers the bytes to be sent. While `is_plain`, plain messages may be written to it directly.
        deflate: The permessage-deflate extension, if it is the only one; its messages may take the fast path.
        close_code: The close code: the peer's, else ours; 1006 without a close frame; None before the end.
        close_reason: The reason that belongs to it; ours as well if the peer has repeated our code without a reason.
        received_close: The payload of the peer's close frame; None before it is answered.
        own_code: The code of our close frame; None before it is sent, or if it answers the peer's.
        failed: The rule that the peer has broken.
        loss: The error of the network that has ended the stream before a close frame.
    """

    __slots__ = (
        "_breach",
        "_close_frame",
        "_compressing",
        "_gathered",
        "_is_refused",
        "_max_size",
        "_text",
        "client",
        "close_code",
        "close_reason",
        "deflate",
        "ended",
        "extensions",
        "failed",
        "fault",
        "incoming",
        "loss",
        "outgoing",
        "own_code",
        "parts",
        "reader",
        "received_close",
        "writer",
    )

    def __init__(self, client: bool = False, max_size: int | None = None, extensions: Sequence[Extension] = ()) -> None:
        self.client = client
        self._max_size = max_size
        self.extensions = extensions
        self.deflate = extensions[0] if len(extensions) == 1 and type(extensions[0]) is PerMessageDeflate else None
        self._compressing = False
        self._gathered: list[Frame] | None = None
        self._text = 0  # UTF-8 state of the fragmented text being sent; _NO_TEXT for a binary message
        limit = codec.MAX_LENGTH if max_size is None else max_size
        rsv1 = self.deflate is not None or (bool(extensions) and any(extension.uses_rsv1 for extension in extensions))
        self.reader = codec.MessageReader(limit, not client, rsv1, bool(extensions) and self.deflate is None)
        self.parts = False
        self.writer = codec.MaskingWriter(codec.random_bytes) if client else codec.FrameWriter()
        self._close_frame: bytes | None = None  # payload of a close frame that has not been answered
        self.received_close: bytes | None = None
        self._breach: BaseException | None = None
        self._is_refused = False  # whether a message could not be decoded
        self.outgoing = _OPEN
        self.incoming = _RECEIVING
        self.fault: builtins.BaseException | None = None
        self.failed: BaseException | None = None
        self.loss: Exception | None = None
        self.ended = False
        self.close_code: int | None = None
        self.own_code: int | None = None
        self.close_reason = ""

    @property
    def encoded(self) -> int:
        """The bits of an opcode that mark an encoded data message.

        permessage-deflate sets RSV1 in compressed messages. Other extensions may change any message.
        """
        if not self.extensions:
            return 0
        return RSV1 if self.deflate is not None else RSV1 | OpCode.TEXT | OpCode.BINARY

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self.outgoing is _OPEN

    @property
    def is_writable(self) -> bool:
        """Whether bytes may be written: no close frame has been written, and the stream has not ended."""
        return self.outgoing is not _CLOSED

    @property
    def is_plain(self) -> bool:
        """Whether messages may go straight to `writer`, as they are or compressed by `deflate`.

        False while the writer is closed or fragmenting.
        """
        return not (self.ended or (self.extensions and self.deflate is None))

    @property
    def fragmenting(self) -> bool:
        """Whether a message of ours is incomplete."""
        return self.writer.fragmenting or self._gathered is not None

    @property
    def is_breached(self) -> bool:
        """Whether the peer has broken a rule, answered or not."""
        return self._breach is not None

    @property
    def needs_response(self) -> bool:
        """Whether `respond` or `prepare_response` has something to do."""
        return self.incoming is _UNANSWERED

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to exchange: the stream may be closed once the outgoing bytes have left."""
        return self.ended or self.incoming is _ANSWERED or self.incoming is _FAILED

    @property
    def end(self) -> tuple[int | None, object, bool]:
        """The close code, its reason for the log, and whether we have closed: the arguments of `logging.end_of`."""
        failed, own = self.failed, self.own_code
        if own is not None and own != getattr(failed, "close_code", own):
            failed = None  # it had to wait for queued data, and another end came first
        return self.close_code, failed or self.close_reason or self.loss or "", own is not None

    # Receiving

    def receive_parts(self, max_size: int | None) -> None:
        """Makes the reader return messages part by part; must be called before the first byte.

        With extensions other than permessage-deflate, which decode whole messages, it has no effect.

        Args:
            max_size: Bytes of the largest message, in place of the limit of whole messages.
        """
        if not self.extensions or self.deflate is not None:
            self.parts = True
            self._max_size = max_size
            limit = codec.MAX_LENGTH if max_size is None else max_size
            self.reader = codec.MessageReader(limit, not self.client, self.deflate is not None, parts=True)

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """Parses the next bytes of the stream. The caller must call `respond` after it has delivered the messages.

        Returns:
            (opcode, payload) of each complete message and control frame. Pings have been answered.
        """
        messages = self.received(self.reader.receive(data), self.reader.control)
        if not self.extensions:
            return messages
        decoded = []
        try:
            for opcode, payload in messages:
                is_encoded = opcode & self.encoded and opcode & 0b1111 < _CLOSE
                decoded.append(self.decode(opcode, payload) if is_encoded else (opcode, payload))
        except Exception as error:
            self.refuse(error)
        return decoded

    def received(self, messages: list[tuple[int, bytes]], control: bool = True) -> list[tuple[int, bytes]]:
        """Applies the rules to the last messages of `reader`, as `receive` does, but does not decode them.

        Args:
            messages: The messages and control frames of the last call of `reader`.
            control: Whether control frames may be among them.
        """
        if self._breach is not None or self.failed is not None:
            return []
        reader = self.reader
        if reader.error:
            self.breach(codec_error(reader.error))
        close_sent = self.writer.closed
        if close_sent or self.outgoing is _ENDING:
            messages = [message for message in messages if _CLOSE <= message[0] < RSV1]
        if control:
            for opcode, payload in messages:
                if opcode == _PING and not close_sent:
                    self.writer.write(FIN | OpCode.PONG, payload)
                elif opcode == _CLOSE:
                    self._close_frame = payload
                    self.incoming = _UNANSWERED
        return messages

    def decode(self, opcode: int, payload: bytes) -> tuple[int, bytes]:
        """Returns a message as it was before the peer's extensions encoded it.

        Compressed messages may be decoded in another thread, one at a time and in order.

        Raises:
            ExtensionError: The payload is not valid for the extension.
            PayloadTooBig: The decoded message is larger than `max_size`.
            ProtocolError: A text is not UTF-8.
        """
        kind = opcode & 0b1111
        if self.deflate is not None:
            size = len(payload)
            payload = self.deflate.decompress(payload, self._max_size)
            if self.reader.counters is not None:
                self.reader.counters.note_inflated(size, len(payload))
        else:
            frame = Frame(kind, payload=payload, rsv1=bool(opcode & RSV1))
            for extension in reversed(self.extensions):
                frame = extension.decode(frame, self._max_size)
            kind, payload = message_of(frame)
            if self._max_size is not None and len(payload) > self._max_size:
                raise PayloadTooBig("message too big")
        if kind == OpCode.TEXT and codec.utf8_state(payload):
            raise ProtocolError("text is not UTF-8", CloseCode.INVALID_DATA)
        return kind, payload

    def inflating(self) -> Inflating:
        """Returns the decompressor of the next compressed message, for a connection that receives parts."""
        assert self.deflate is not None
        return Inflating(self.deflate, self._max_size)

    def receive_eof(self) -> None:
        """Notes the end of the stream, for any reason."""
        self.ended = True
        self.outgoing = _CLOSED
        for extension in self.extensions:
            if isinstance(extension, PerMessageDeflate):
                extension.release()
        if self.close_code is None:
            self.close_code = CloseCode.ABNORMAL_CLOSURE

    # Sending

    def send(self, opcode: int, payload: bytes, fin: bool = True) -> None:
        """Queues a message, a fragment, a ping or a pong.

        The size of the first fragment decides whether a message is compressed. Other extensions encode only whole
        messages: the fragments are gathered, and leave as one frame.

        Args:
            opcode: TEXT or BINARY for the first fragment of a message, CONTINUATION for the others; PING or PONG.
            payload: The payload; a large one is not copied.
            fin: Whether the payload ends its message.

        Raises:
            ConnectionClosed: A close frame has been written, or the stream has ended.
            ValueError: The opcode is none of these, a control frame is over 125 bytes or not final, or a text is not
                UTF-8.
            RuntimeError: A message begins inside a fragmented one, or continues without a beginning.
        """
        if not self.is_writable:
            raise self.closed_error()
        if opcode not in _SENDABLE:
            raise ValueError(f"opcode {opcode} cannot be sent: use TEXT, BINARY, PING or PONG")
        if opcode >= OpCode.CLOSE:
            if len(payload) > 125 or not fin:
                raise ValueError(
                    f"a control frame is final and has at most 125 bytes, not {len(payload)}: shorten its payload"
                )
        else:
            continues = opcode == OpCode.CONTINUATION
            if self.fragmenting and not continues:
                raise RuntimeError("a fragmented message is not finished: send its other fragments first")
            if continues and not self.fragmenting:
                raise RuntimeError("no message to continue: begin one by a TEXT or BINARY frame")
            self._check_text(opcode, payload, fin)
        first = opcode | fin << 7
        if self.deflate is not None and opcode < OpCode.CLOSE:
            if opcode != OpCode.CONTINUATION:
                self._compressing = self.deflate.compresses(opcode, len(payload))
                first |= self._compressing << 6
            if self._compressing:
                self._write_compressed(self.deflate, first, payload, fin)
                return
        elif self.extensions and opcode < OpCode.CLOSE:
            gathered = self._gathered = self._gathered or []
            gathered.append(Frame(opcode, fin, payload))
            if not fin:
                return
            self._gathered = None
            self._write_encoded(gathered)
            return
        self.writer.write(first, payload)

    def _check_text(self, opcode: int, payload: bytes, fin: bool) -> None:
        if opcode != OpCode.CONTINUATION:
            self._text = 0 if opcode == OpCode.TEXT else _NO_TEXT
        if self._text != _NO_TEXT:
            self._text = check_text(payload, self._text, fin)

    def _write_compressed(self, deflate: PerMessageDeflate, first: int, payload: bytes, fin: bool) -> None:
        context = deflate.context
        try:
            compressed = deflate.compress(payload, fin)
            self.writer.write(first, compressed)
        except _ANY:
            deflate.rewind(context)
            raise
        if self.writer.counters is not None:
            self.writer.counters.note_deflated(len(compressed), len(payload))

    def _write_encoded(self, gathered: list[Frame]) -> None:
        contexts = [(one, one.context) for one in self.extensions if isinstance(one, PerMessageDeflate)]
        try:
            self.writer.write(*self._encode(gathered))
        except _ANY:
            for deflate, context in contexts:
                deflate.rewind(context)
            raise

    def _encode(self, gathered: list[Frame]) -> tuple[int, bytes]:
        """Joins the fragments of a message, and encodes it; returns the first byte and the payload of its frame."""
        frame = gathered[0]
        if len(gathered) > 1:
            frame = frame.replace(payload=b"".join(fragment.payload for fragment in gathered), fin=True)
        for extension in self.extensions:
            frame = extension.encode(frame)
        if not frame.fin or frame.opcode not in (OpCode.TEXT, OpCode.BINARY):
            raise TypeError(f"a sent message has become {frame!r}: return a final TEXT or BINARY frame")
        return first_byte(frame), frame.payload

    def compress(self, fragments: Sequence[bytes]) -> list[bytes]:
        """Compresses a message for `send_compressed`; may be called in another thread, for one message at a time."""
        deflate = self.deflate
        assert deflate is not None
        last = len(fragments) - 1
        context = deflate.context
        try:
            return [deflate.compress(fragment, at == last, False) for at, fragment in enumerate(fragments)]
        except _ANY:
            deflate.rewind(context)
            raise

    def send_compressed(self, opcode: int, fragments: Sequence[bytes]) -> None:
        """Queues the last message of `compress`; raises the errors of `send`."""
        if not self.is_writable:
            raise self.closed_error()
        first = opcode | RSV1
        for fragment in fragments[:-1]:
            self.writer.write(first, fragment)
            first = OpCode.CONTINUATION
        self.writer.write(FIN | first, fragments[-1])

    def take_outgoing(self) -> list[bytes]:
        """Removes and returns the bytes to be sent, in order."""
        return self.writer.take()

    def closed_error(self) -> ConnectionClosed:
        """The error of a sender after the connection has ended."""
        error = ConnectionClosed(self.close_code or CloseCode.ABNORMAL_CLOSURE, self.close_reason)
        error.__cause__ = self.failed or self.loss
        return error

    # Closing

    def prepare_close(self, code: int, reason: str) -> None:
        """Announces `close`, which follows after queued data has left; no more messages may be sent."""
        self._prepare_end()
        self.close_code, self.close_reason = code, reason

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Queues a close frame, unless one has been written already.

        Args:
            code: See `check_close`; 1005 for a close frame without code.
            reason: Cut to 123 bytes of UTF-8.

        Raises:
            TypeError, ValueError: See `check_close`.
        """
        payload = b""
        if code != _NO_STATUS:
            payload = close_payload(code, reason)
        if self.is_writable:
            self._write_close(payload)
            self.own_code = self.close_code = code
            self.close_reason = reason

    def fail(self, error: BaseException) -> None:
        """Fails the connection because of an error of the peer, with a close frame for it (section 7.1.7)."""
        self.failed = error
        self.incoming = _FAILED
        code = getattr(error, "close_code", CloseCode.PROTOCOL_ERROR)
        self.close(code, str(error))
        if self._is_refused:  # behind the message the peer may have closed normally
            self.close_code, self.close_reason = code, str(error)

    def breach(self, error: BaseException) -> None:
        """Notes that the bytes behind the received messages break a rule; `respond` closes the connection."""
        self._breach = error
        if self.failed is None:
            self.incoming = _UNANSWERED

    def refuse(self, error: builtins.BaseException) -> None:
        """Notes that the next message cannot be decoded; `respond` closes the connection.

        Args:
            error: The error of `decode`. If it is not the peer's fault, it becomes `fault`, and the close frame
                contains no details.
        """
        self._is_refused = True
        if isinstance(error, (ExtensionError, ProtocolError)):
            try:
                check_close(error.close_code, str(error))
            except Exception as unsendable:  # a fault of the extension that has raised the error
                error = unsendable
            else:
                # The traceback would keep the decompressed data in memory until the peer closes.
                error.__traceback__ = error.__context__ = None
                self.breach(error)
                return
        self.fault = error
        self.breach(ProtocolError("internal error", CloseCode.INTERNAL_ERROR))

    def prepare_response(self) -> None:
        """Announces `respond`, which follows after queued data has left; no more messages may be sent."""
        self._prepare_end()
        self.incoming = Incoming.ANSWERING
        if self._close_frame is not None:
            with contextlib.suppress(ProtocolError):
                self._note_end(*parse_close(self._close_frame))

    def respond(self) -> None:
        """Answers the received close frame, or a breach of a rule.

        This is a separate step, so that replies to earlier messages are sent first.
        """
        if self._close_frame is not None:
            self._receive_close(self._close_frame)
            self._close_frame = None
        if self._breach is not None and self.failed is None:
            self.fail(self._breach)

    def _prepare_end(self) -> None:
        if self.outgoing is _OPEN:
            self.outgoing = _ENDING

    def _receive_close(self, payload: bytes) -> None:
        try:
            code, reason = parse_close(payload)
        except ProtocolError as error:
            self.fail(error)
            return
        self.received_close = payload
        self._note_end(code, reason)
        if not self.writer.closed:
            self._write_close(payload[:2])
        self.incoming = _ANSWERED

    def _note_end(self, code: int, reason: str) -> None:
        """Notes the content of the peer's close frame; one that only repeats our code leaves our reason."""
        if reason or code != self.own_code:
            self.close_code, self.close_reason = code, reason

    def _write_close(self, payload: bytes) -> None:
        self.writer.write(FIN | _CLOSE, payload)
        self.outgoing = _CLOSED
