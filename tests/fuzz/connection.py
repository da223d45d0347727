"""`Connection` in both roles: a script of reading and sending gives the same on both codecs, however reads are cut."""

from collections.abc import Callable, Iterator
from typing import Any

from duck.contrib.websockets.codec import pure
from duck.contrib.websockets.exceptions import ConnectionClosed
from duck.contrib.websockets.sansio.connection import Connection

from . import codecs
from .choices import Choices, cut, frame

__all__ = ["check", "seeds"]

MASK = b"\x37\xfa\x21\x3d"
MAX_SIZES = (2**20, None, 0, 125, 1000)
CODES = (1000, 1001, 1005, 1002, 1006, 999, 3000, 4999, 5000, 0, 65535)

Step = Callable[[Connection, int], Any]


def check(data: bytes) -> None:
    """Plays a script in three ways on each codec."""
    choices = Choices(data)
    client = bool(choices.number() & 1)
    max_size = choices.pick(MAX_SIZES)
    seed = 2 + choices.number()
    script = []
    while choices:
        script.append(choices.pick((_receive, _receive, _receive, _send, _close, _end))(choices))
    expected = None
    for codec in codecs.CODECS:
        with codecs.using(codec):
            for way in (0, 1, seed):
                outcome = _play(script, Connection(client=client, max_size=max_size), way)
                if expected is None:
                    expected = outcome
                    _check_outgoing(outcome[1], client)
                assert outcome == expected, (codec.__name__, way)


def _play(script: list[Step], connection: Connection, way: int) -> tuple[Any, ...]:
    answers = [step(connection, way) for step in script]
    outgoing = b"".join(connection.take_outgoing())
    codes = connection.close_code, connection.close_reason, connection.received_close
    return answers, outgoing, (*codes, repr(connection.failed), connection.is_over)


def _receive(choices: Choices) -> Step:
    data = b"".join(choices.piece() for _ in range(choices.number() % 4))

    def step(connection: Connection, way: int) -> list[tuple[int, bytes]]:
        messages = []
        for piece in cut(data, way):
            messages += connection.receive(piece)
            if connection.needs_response:
                connection.respond()
        return messages

    return step


def _send(choices: Choices) -> Step:
    opcode, fin = choices.number() % 18, choices.pick((True, False))
    payload = choices.take(choices.number()) * choices.pick((1, 1, 40))

    def step(connection: Connection, way: int) -> Any:
        try:
            connection.send(opcode, payload, fin)
        except (ConnectionClosed, ValueError, RuntimeError) as error:
            return type(error), str(error)
        return None

    return step


def _close(choices: Choices) -> Step:
    code = choices.pick(CODES)
    reason = choices.take(choices.number()).decode("utf-8", choices.pick(("replace", "surrogateescape")))

    def step(connection: Connection, way: int) -> Any:
        try:
            connection.close(code, reason)
        except ValueError as error:
            return str(error)
        return None

    return step


def _end(choices: Choices) -> Step:
    return lambda connection, way: connection.receive_eof()


def _check_outgoing(outgoing: bytes, client: bool) -> None:
    """Whole frames, each one that may be sent, none behind a close frame, no message inside another."""
    at, fragmenting, closed = 0, False, False
    while at < len(outgoing):
        header = pure.parse_header(outgoing[at:], client, False, 2**63 - 1)
        assert header is not None, "half a frame"
        size, first, length, _ = header
        at += size + length
        assert not closed, "a frame behind the close frame"
        closed = first & 0xF == 8
        if not first & 8:
            assert fragmenting is (first & 0xF == 0), "one message inside another"
            fragmenting = not first & 0x80
    assert at == len(outgoing), "half a payload"


def seeds() -> Iterator[bytes]:
    """Whole conversations."""
    for client, mask in ((0, MASK), (1, None)):
        start = bytes([client, 0, 1])
        hello, ping = frame(0x81, "Grüße".encode(), mask), frame(0x89, b"ping", mask)
        bye, bad = frame(0x88, b"\x03\xe8bye", mask), frame(0x88, b"\x03\xed", mask)
        yield start + bytes([0, 2]) + hello + ping + bytes([3, 1, 0, 5]) + b"reply\0" + bytes([0, 1]) + bye
        yield start + bytes([4, 0, 3]) + b"bye\0" + bytes([0, 3]) + hello + ping + bye
        yield start + bytes([0, 1]) + bad + bytes([3, 1, 0, 1]) + b"x\0" + bytes([5])
        yield start + bytes([3, 1, 1, 2]) + b"ab\0" + bytes([3, 9, 0, 0, 0]) + bytes([3, 0, 0, 1]) + b"c\0" + bytes([5])
        yield start + bytes([0, 2]) + frame(0x01, b"\xf0\x9f", mask) + ping + bytes([0, 1]) + frame(0x80, b"\xff", mask)
