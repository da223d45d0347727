"""`broadcast`: a message to many connections, encoded once, and compressed once for each distinct agreement."""

import asyncio
import threading
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

from .. import codec
from ..extensions import PerMessageDeflate
from ..logging import log_failure
from ..opcodes import OpCode
from ..sansio.payloads import Data, check_text, checked_opcode

__all__ = ["Member", "Prepared", "broadcast", "encode", "send_to_all"]


class Prepared:
    """A message, and the server frames that carry it.

    Args:
        data: A str or bytes-like.
        opcode: TEXT or BINARY.

    Attributes:
        payload: The bytes of the message.
        frame: The frame for a connection that does not compress the message.
        size: Bytes of the payload.
        compressed: By agreement on compression, the frame for the connections of that agreement, and the context for
            `PerMessageDeflate.follow`.

    Raises:
        TypeError: The data is neither str nor bytes-like, or the opcode is no integer.
        ValueError: The opcode is neither TEXT nor BINARY, or bytes sent as TEXT are not UTF-8.
    """

    __slots__ = ("compressed", "frame", "opcode", "payload", "size")

    def __init__(self, data: Data, opcode: int = OpCode.TEXT) -> None:
        self.payload = encode(data, opcode)
        self.opcode = OpCode(checked_opcode(opcode))
        self.size = len(self.payload)
        self.frame = codec.serialize(codec.FIN | self.opcode, self.payload)
        self.compressed: dict[Hashable, tuple[bytes, bytes]] = {}

    def compress_with(self, deflate: PerMessageDeflate) -> tuple[bytes, bytes]:
        """Compresses the message for the connections that share the agreement; returns the entry of `compressed`."""
        payload, context = deflate.compress_alone(self.payload)
        entry = codec.serialize(codec.FIN | codec.RSV1 | self.opcode, payload), context
        self.compressed[deflate.agreement] = entry
        return entry


def encode(data: Data, opcode: int) -> bytes:
    """Returns the payload of a message for many connections; raises the errors of `Prepared`."""
    if checked_opcode(opcode) not in (OpCode.TEXT, OpCode.BINARY):
        raise ValueError(f"a message for many is TEXT or BINARY, not opcode {opcode}")
    if isinstance(data, str):
        return data.encode()
    payload = data if isinstance(data, bytes) else _bytes(data)
    if opcode == OpCode.TEXT:
        check_text(payload)
    return payload


def _bytes(data: Any) -> bytes:
    try:
        return memoryview(data).tobytes()
    except TypeError:
        advice = ": use json.dumps" if isinstance(data, dict | list) else ""
        raise TypeError(f"a message for many is str or bytes-like, not {type(data).__name__}{advice}") from None


class Member(Protocol):
    """A receiver of prepared messages: a view, or another end of a connection.

    The name has an underscore because all names without one in a view belong to its author.
    """

    def _send_prepared(self, message: Prepared) -> bool:
        """Sends a message without waiting; returns False if the connection is closed, or drops the message."""
        raise NotImplementedError


def broadcast(views: Iterable[Member], data: Data, opcode: int = OpCode.TEXT) -> int:
    """Sends a message to many connections, without waiting for any of them.

    The message is encoded once, and compressed once for each distinct agreement on compression; above 1 MiB, once for
    each connection, in threads. On each connection it keeps the order of that connection's sends. A broadcast is
    written at once. Broadcasts that follow it before the loop's next iteration leave together then, with one write for
    each connection. May be called from any thread.

    The view's `SLOW_CONSUMER` applies to a peer that reads too slowly. Because `broadcast` never waits, "wait" closes
    the connection with 1008 once 64 times its `WRITE_LIMIT`, and 4 MiB at least, waits for the peer.

    Args:
        views: Views, or other ends of connections. Connections that are closed or not open yet are skipped. The
            iterable may change during the call.
        data: A str or bytes-like.
        opcode: TEXT or BINARY.

    Returns:
        The number of connections that have accepted the message. A connection of another thread counts, although it may
        be closed by the time its loop sends the message.

    Raises:
        TypeError: The data is neither str nor bytes-like, or `views` is a str.
        ValueError: The opcode is neither TEXT nor BINARY, or bytes sent as TEXT are not UTF-8.
    """
    if isinstance(views, str):
        raise TypeError(f"broadcast takes views, not {views!r}: the members of a group get messages by its publish")
    return send_to_all(list(views), Prepared(data, opcode))


def send_to_all(members: Sequence[Member], message: Prepared) -> int:
    """`broadcast` of a prepared message."""
    taken, rest = codec.fan_out(members, message)
    return taken + _send_otherwise(rest, message) if rest else taken


def _send_otherwise(members: Sequence[Member], message: Prepared) -> int:
    taken = 0
    elsewhere: dict[asyncio.AbstractEventLoop, list[Member]] = {}
    for member in members:
        protocol = getattr(member, "_protocol", None)
        if protocol is not None and protocol.thread != threading.get_ident():
            if protocol.connection.is_open:
                elsewhere.setdefault(protocol.loop, []).append(member)
            continue
        try:
            taken += member._send_prepared(message)
        except Exception as error:
            log_failure(error, "%r: a message for many could not be sent", member)
    for loop, those in elsewhere.items():
        try:
            loop.call_soon_threadsafe(send_to_all, those, message)
        except RuntimeError:
            if not loop.is_closed():
                raise
        else:
            taken += len(those)
    return taken
