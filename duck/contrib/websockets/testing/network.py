"""The network of a test: two transports without sockets, and faults on demand.

client's transport <-- Network.move --> server's transport
"""

import asyncio

from .. import codec
from ..frame import Frame
from ..protocol.virtual_transport import VirtualTransport

__all__ = ["Network", "frames_of"]


class Network:
    """Carries bytes between a client and a server, in callbacks of the loop.

    Attributes:
        client: The transport of the client.
        server: The transport of the server.
        piece: Bytes moved in each direction per pass of the loop; None for no limit.
        kept: The bytes that the client has received; None if they are not kept.
        stalled: Whether the client receives nothing, as if it did not read.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_moving = False
        self.client = VirtualTransport(self._changed, extra={"peername": ("testserver", 80)}, half_close=True)
        self.server = VirtualTransport(self._changed, extra={"peername": ("testclient", 50000)}, half_close=True)
        self.piece: int | None = None
        self.stalled = False
        self.kept: bytearray | None = None

    def drop(self) -> None:
        """Breaks the connection; both ends see a reset."""
        for transport in (self.client, self.server):
            transport.lose(ConnectionResetError("the network was dropped by the test"))

    def resume(self) -> None:
        """Delivers bytes to the client again."""
        self.stalled = False
        self._changed()

    def _changed(self) -> None:
        if not self._is_moving:
            self._is_moving = True
            self._loop.call_soon(self._move)

    def _move(self) -> None:
        self._is_moving = False
        self._carry(self.client, self.server)
        if not self.stalled:
            self._carry(self.server, self.client)
        elif self.server.aborted:
            self.client.lose(ConnectionResetError("the peer has reset the connection"))

    def _carry(self, source: VirtualTransport, target: VirtualTransport) -> None:
        """Delivers the bytes that wait in `source` to `target`."""
        while (data := source.outgoing(self.piece)) and target.is_reading():
            if self.kept is not None and target is self.client:
                self.kept += data
            try:
                target.feed(data)
            finally:  # even where a handler raises KeyboardInterrupt
                source.sent(len(data))
            if self.piece is not None:
                self._changed()
                break
        if source.aborted:
            target.lose(ConnectionResetError("the peer has reset the connection"))
        elif target.lost and source.get_write_buffer_size():
            source.lose(ConnectionResetError("the peer has closed the connection"))
        elif source.ended and not source.get_write_buffer_size():
            target.feed_eof()


def frames_of(received: bytes) -> list[Frame]:
    """Returns the complete frames behind the response to the upgrade request, before decompression."""
    _, _, data = received.partition(b"\r\n\r\n")
    frames = []
    while (header := codec.parse_header(data, False, True, codec.MAX_LENGTH)) is not None:
        start, first, length, _ = header
        if len(data) < start + length:
            break
        payload, data = data[start : start + length], data[start + length :]
        frames.append(Frame(first & 0b1111, bool(first & codec.FIN), payload, rsv1=bool(first & codec.RSV1)))
    return frames
