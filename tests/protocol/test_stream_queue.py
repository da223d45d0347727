"""The queue of messages in parts, by itself: for any stream of frames, the parts add up to the messages."""

import asyncio
import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import ConnectionClosed, OpCode, PerMessageDeflate
from duck.contrib.websockets.protocol.stream_queue import StreamQueue
from duck.contrib.websockets.sansio.connection import Connection

from ..support.frames import RSV1, frame

CONTINUATION, TEXT, BINARY, *_ = OpCode


@st.composite
def messages_in_frames(draw):
    """(messages, their stream, whether it is compressed)."""
    deflate = PerMessageDeflate("permessage-deflate", client=True) if draw(st.booleans()) else None
    messages, stream = [], []
    texts = st.one_of(st.text(max_size=30), st.sampled_from(["\u00e4\U0001f986" * 40_000, "a" * 100_000]))
    for message in draw(st.lists(st.one_of(st.binary(max_size=30), texts), max_size=4)):
        payload = message.encode() if isinstance(message, str) else message
        if deflate is not None:
            payload = deflate.compress(payload)
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        pieces = [payload[i:j] for i, j in itertools.pairwise([0, *cuts, len(payload)])]
        for at, piece in enumerate(pieces):
            opcode = CONTINUATION if at else TEXT if isinstance(message, str) else BINARY
            rsv = RSV1 if deflate is not None and not at else 0
            stream.append(frame(opcode, piece, at == len(pieces) - 1, rsv=rsv))
        messages.append(message)
    return messages, b"".join(stream), deflate is not None


@given(sent=messages_in_frames(), size=st.sampled_from([1, 7, 1000, 65_537, 2**30]), most=st.sampled_from([0, 2**30]))
def test_the_parts_of_a_message_add_up_to_it(codec, sent, size, most):
    messages, stream, compressed = sent

    async def scenario():
        loop = asyncio.get_running_loop()
        connection = Connection(extensions=[PerMessageDeflate("permessage-deflate")] if compressed else ())
        connection.receive_parts(None)
        reader = codec.MessageReader(2**30, True, compressed, parts=True)
        streams = StreamQueue(loop, most, None)
        streams.attach(SimpleNamespace(connection=connection, counters=None, hold=lambda reason: None))
        got = []

        async def receive():
            while True:
                message = await streams.next()
                parts = [part async for part in message]
                assert all(parts)
                got.append(("" if message.opcode == TEXT else b"").join(parts))

        task = loop.create_task(receive())
        await asyncio.sleep(0)
        for at in range(0, len(stream), max(size, len(stream) // 300)):
            loop.call_soon(streams.deliver, reader.receive(stream[at : at + max(size, len(stream) // 300)]))
            await asyncio.sleep(0)
        streams.end()
        with pytest.raises(ConnectionClosed):
            await task
        return got

    assert asyncio.run(scenario()) == messages
