"""`Lingering` on a transport without a socket: the peer can read the last bytes."""

import asyncio

import pytest

from duck.contrib.websockets.protocol.lingering import Lingering
from duck.contrib.websockets.protocol.virtual_transport import VirtualTransport


def ending(timeout=60, *, half_close=True, data=b"goodbye", **options):
    """A transport that is being ended, and a future for the end."""
    lost = asyncio.get_running_loop().create_future()
    transport = VirtualTransport(half_close=half_close)
    transport.write(data)
    Lingering(transport, timeout, lost=lost.set_result, **options)
    return transport, lost


async def test_our_side_ends_at_once_and_the_connection_with_the_peers():
    transport, lost = ending()
    assert transport.ended
    transport.feed(b"x" * 100_000)  # is discarded
    transport.sent(len(b"goodbye"))
    assert not transport.is_closing()
    transport.feed_eof()
    assert await lost is None


async def test_a_peer_that_does_not_end_its_side_is_cut():
    transport, lost = ending(0.05)
    transport.sent(len(b"goodbye"))
    assert await lost is None
    assert transport.aborted


@pytest.mark.in_memory
async def test_without_half_close_the_transport_closes_once_the_peer_is_quiet():
    transport, lost = ending(half_close=False)
    transport.sent(len(b"goodbye"))
    for _ in range(10):
        transport.feed(b"still sending")
        await asyncio.sleep(0.9 * Lingering.QUIET)
        assert not transport.is_closing()
    assert await lost is None
    assert not transport.aborted


async def test_a_slow_reader_is_waited_for():
    transport, lost = ending(0.02, patience=60)
    transport.sent(1)
    await asyncio.sleep(0.1)
    assert not lost.done()
    transport.abort()
    assert await lost is None
