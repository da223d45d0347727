"""Streams for `MessageReader`, and the ways of feeding them."""

import functools
import itertools

from ..support.frames import MASK, frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MIB = 2**20
UNLIMITED = 2**63 - 1


def fragments(opcode, *payloads, mask=MASK, rsv=0):
    """The frames of one message."""
    last = len(payloads) - 1
    return [
        frame(0 if i else opcode, payload, fin=i == last, rsv=0 if i else rsv, mask=mask)
        for i, payload in enumerate(payloads)
    ]


def server(codec, max_size=MIB, rsv1=False, parts=False):
    return codec.MessageReader(max_size, True, rsv1, False, parts)


# Two ways in. Both take the sizes of the pieces that the stream comes in; the last one repeats.


def repeat_last(sizes):
    return itertools.chain(sizes, itertools.repeat(sizes[-1]))


def by_receive(reader, stream, sizes):
    messages, sizes = [], repeat_last(sizes)
    at = 0
    while at < len(stream):
        size = next(sizes)
        messages += reader.receive(stream[at : at + size])
        at += size
    return messages


def by_buffer(reader, stream, sizes):
    messages, sizes = [], repeat_last(sizes)
    spare = bytearray(4096)
    at = 0
    while at < len(stream):
        buffer = memoryview(reader.get_buffer(spare))
        some = stream[at : at + min(next(sizes), len(buffer))]
        buffer[: len(some)] = some
        messages += reader.buffer_updated(spare, len(some))
        at += len(some)
    return messages


WAYS = {
    "whole": functools.partial(by_receive, sizes=[2**30]),
    "by byte": functools.partial(by_receive, sizes=[1]),
    "by seven": functools.partial(by_receive, sizes=[7]),
    "buffer": functools.partial(by_buffer, sizes=[2**30]),
    "buffer, odd": functools.partial(by_buffer, sizes=[3, 5, 70001, 4095, 1]),
}


def check(reader, feed, stream, expected, closed=False):
    assert feed(reader, stream) == expected
    assert reader.error == 0
    assert reader.closed is closed
