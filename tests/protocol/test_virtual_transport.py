"""A `VirtualTransport` calls its protocol as a transport of asyncio does; a `Network` connects two of them."""

import asyncio

import pytest

from duck.contrib.websockets.protocol.virtual_transport import VirtualTransport
from duck.contrib.websockets.testing.network import Network


class Recorder(asyncio.Protocol):
    """Notes the calls of its transport.

    Attributes:
        keeps: Whether its own side of the stream stays open at the end of the other's.
    """

    def __init__(self, keeps=False):
        self.calls = []
        self.received = b""
        self.keeps = keeps
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data

    def eof_received(self):
        self.calls.append("eof")
        return self.keeps

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class Buffered(Recorder, asyncio.BufferedProtocol):
    """Receives into a buffer of a few bytes, and pauses reading after each `most`."""

    def __init__(self, most=None):
        super().__init__()
        self.most = most
        self.buffer = bytearray(4)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.received += self.buffer[:nbytes]
        if self.most is not None:
            self.transport.pause_reading()


def connected(protocol, changed=None, **options):
    transport = VirtualTransport(changed, **options)
    transport.connect(protocol)
    return transport


async def settle():
    """Waits until the loop is idle."""
    for _ in range(8):
        await asyncio.sleep(0)


def drain(transport):
    taken = b""
    while data := transport.outgoing():
        taken += data
        transport.sent(len(data))
    return taken


async def test_written_bytes_wait_for_the_owner():
    changes = []
    transport = VirtualTransport(lambda: changes.append(transport.get_write_buffer_size()))
    transport.write(b"abc")
    transport.write(bytearray(b"def"))
    transport.write(b"")
    transport.writelines([b"g", memoryview(b"h")])
    assert changes == [3, 6, 8]
    assert transport.outgoing(2) == b"ab"
    transport.sent(2)
    assert transport.outgoing() == b"c"
    assert transport.get_write_buffer_size() == 6
    assert drain(transport) == b"cdefgh"
    assert transport.outgoing() == b""


async def test_the_writer_is_paused_at_the_water_marks():
    protocol = Recorder()
    transport = connected(protocol)
    assert transport.get_write_buffer_limits() == (16384, 65536)
    transport.set_write_buffer_limits(high=8)
    assert transport.get_write_buffer_limits() == (2, 8)
    transport.write(b"12345678")
    assert protocol.calls == []
    transport.write(b"9")
    transport.write(b"0")
    assert protocol.calls == ["pause"]
    transport.sent(7)
    assert protocol.calls == ["pause"]
    transport.sent(1)
    assert protocol.calls == ["pause", "resume"]
    with pytest.raises(ValueError, match="low water mark"):
        transport.set_write_buffer_limits(high=1, low=2)


@pytest.mark.parametrize("make", [Recorder, Buffered])
async def test_bytes_are_received_while_reading_is_not_paused(make):
    protocol = make()
    transport = VirtualTransport()
    transport.feed(b"early and long, ")
    transport.connect(protocol)
    await settle()
    transport.pause_reading()
    transport.feed(b"paused")
    transport.feed_eof()
    await settle()
    assert protocol.received == b"early and long, "
    assert protocol.calls == []
    transport.resume_reading()
    await settle()
    assert protocol.received == b"early and long, paused"
    assert protocol.calls == ["eof"]
    assert await protocol.lost is None


async def test_reading_may_be_paused_between_two_parts_of_the_fed_bytes():
    protocol = Buffered(most=1)
    transport = connected(protocol)
    transport.feed(b"123456")
    assert protocol.received == b"1234"
    assert not transport.is_reading()
    transport.resume_reading()
    await settle()
    assert protocol.received == b"123456"


async def test_close_waits_for_the_owner_and_abort_does_not():
    protocol = Recorder()
    transport = connected(protocol)
    transport.write(b"last")
    transport.close()
    transport.write(b"too late")
    await settle()
    assert transport.is_closing()
    assert not transport.is_reading()
    assert not protocol.lost.done()
    assert drain(transport) == b"last"
    assert not protocol.lost.done()  # the loop calls it
    assert await protocol.lost is None
    transport.lose()  # again

    protocol = Recorder()
    transport = connected(protocol)
    transport.write(b"lost")
    transport.abort()
    assert transport.outgoing() == b""
    assert await protocol.lost is None


async def test_write_eof_follows_can_write_eof():
    transport = VirtualTransport()
    assert not transport.can_write_eof()
    with pytest.raises(NotImplementedError):
        transport.write_eof()
    protocol = Recorder(keeps=True)
    transport = connected(protocol, half_close=True, extra={"peername": ("192.0.2.1", 4711)})
    assert transport.get_extra_info("peername") == ("192.0.2.1", 4711)
    assert transport.get_extra_info("socket", "none") == "none"
    transport.write_eof()
    assert transport.ended
    assert not transport.is_closing()
    transport.feed(b"still read")
    transport.feed_eof()
    assert protocol.received == b"still read"
    assert not transport.is_closing()


async def test_a_protocol_that_fails_loses_the_connection():
    class Failing(Recorder):
        def data_received(self, data):
            raise OSError("cannot")

    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    protocol = Failing()
    connected(protocol).feed(b"data")
    assert str(await protocol.lost) == "cannot"
    assert seen[0]["protocol"] is protocol


def ends_of_a_network(one, other):
    """The transports of two protocols that are connected."""
    network = Network()
    network.client.connect(one)
    network.server.connect(other)
    return network.client, network.server


async def test_a_network_carries_both_ways_and_ends():
    one, other = Recorder(keeps=True), Recorder(keeps=True)
    first, second = ends_of_a_network(one, other)
    first.write(b"ping")
    second.write(b"pong")
    await settle()
    assert (one.received, other.received) == (b"pong", b"ping")
    first.write(b"bye")
    first.write_eof()
    await settle()
    assert (other.received, other.calls) == (b"pingbye", ["eof"])
    second.write(b"bye too")
    second.close()
    await settle()
    assert one.received == b"pongbye too"
    assert await other.lost is None
    first.close()
    assert await one.lost is None


async def test_the_buffers_of_a_network_are_bounded():
    one, other = Recorder(), Recorder()
    first, second = ends_of_a_network(one, other)
    second.pause_reading()
    for _ in range(65):
        first.write(bytes(1024))
    await settle()
    assert one.calls == ["pause"]
    assert other.received == b""
    second.resume_reading()
    await settle()
    assert one.calls == ["pause", "resume"]
    assert len(other.received) == 65 * 1024


async def test_an_end_of_a_network_that_aborts_resets_the_other():
    one, other = Recorder(), Recorder()
    first, second = ends_of_a_network(one, other)
    first.abort()
    assert await one.lost is None
    assert isinstance(await other.lost, ConnectionResetError)

    one, other = Recorder(keeps=True), Recorder()
    first, second = ends_of_a_network(one, other)
    second.close()
    assert await other.lost is None
    assert one.calls == ["eof"]
    first.write(b"is anybody there")
    assert isinstance(await one.lost, ConnectionResetError)
