"""Every operation of the compiled codec, over and over, for valgrind: `.ci/sanitize` runs it.

Errors are among them, because most leaks are on their paths.
"""

import asyncio
import contextlib
import gc
import os
import socket
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any

from duck.contrib.websockets import _speedups
from duck.contrib.websockets.codec import pure
from duck.contrib.websockets.protocol import stepping
from duck.contrib.websockets.protocol.broadcast import Prepared

ROUNDS = 200
MASK = b"mask"
UNLIMITED = 2**63 - 1
LENGTHS = (0, 1, 125, 126, 65535, 65536, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def use_functions() -> None:
    """Masking, UTF-8 and headers, right and wrong."""
    for size in (0, 1, 3, 31, 32, 33, 200, 5000, 20_000):
        data = bytes(size)
        _speedups.apply_mask(data, MASK, 1)
        _speedups.utf8_state(b"a" * size + "Grüße, 世界 😀".encode())
        _speedups.utf8_state(b"a" * size + b"\xff")
        _speedups.serialize(0x81, data, MASK)
        _speedups.serialize(0x81, memoryview(data))
    for call in (
        lambda: _speedups.apply_mask(b"x", b"bad"),
        lambda: _speedups.apply_mask(memoryview(b"abcd")[::2], MASK),
        lambda: _speedups.serialize(256, b"x"),
        lambda: _speedups.serialize(1, "x"),
        lambda: _speedups.build_header(1, 2**63),
        lambda: _speedups.parse_header(b"\x83\x80", True, False, UNLIMITED),
    ):
        with contextlib.suppress(BufferError, TypeError, ValueError):
            call()
    for length in LENGTHS:
        with contextlib.suppress(ValueError):
            _speedups.parse_header(b"\x82\xff" + length.to_bytes(8) + MASK, True, False, UNLIMITED)
        with contextlib.suppress(ValueError):
            _speedups.build_header(0x82, length, MASK)


def use_readers() -> None:
    """Streams of every kind, and readers that are left in the middle of one."""
    text = pure.serialize(0x81, "Grüße, 世界".encode(), MASK)
    large = pure.serialize(0x82, bytes(300_000), MASK)
    parts = b"".join(pure.serialize(first, bytes(5000), MASK) for first in (0x02, 0x00, 0x80))
    bad = pure.serialize(0x81, b"a" * 100 + b"\xff", MASK)
    for stream in (text, large, parts, bad, text + pure.serialize(0x88, b"\x03\xe8", MASK) + text):
        for size, parts in ((7, False), (7, True), (3000, False), (3000, True), (400_000, False)):
            reader = new_reader(parts)
            for at in range(0, min(len(stream), 500 * size), size):
                reader.receive(stream[at : at + size])
            receive_in_place(new_reader(parts), stream[: 500 * size], size)
    for first in (0x02, 0x82):
        for length in LENGTHS:
            head = bytes([first, 0xFF]) + length.to_bytes(8) + MASK
            for start in (b"", pure.serialize(0x02, b"part", MASK)):
                for limit in (UNLIMITED, 2**64, 1000):
                    reader = _speedups.MessageReader(limit, True, False)
                    with contextlib.suppress(MemoryError):  # said to be that long, and no limit set
                        receive_in_place(reader, start + head + bytes(100), 50)


def new_reader(parts: bool) -> _speedups.MessageReader:
    """Returns a reader that counts."""
    reader = _speedups.MessageReader(UNLIMITED, True, False, parts=parts)
    reader.counters = _speedups.Counters()
    return reader


def receive_in_place(reader: _speedups.MessageReader, stream: bytes, size: int) -> None:
    """Feeds bytes as an event loop does."""
    spare = bytearray(4096)
    while stream:
        with memoryview(reader.get_buffer(spare)) as buffer:
            some = min(size, len(buffer), len(stream))
            buffer[:some] = stream[:some]
        reader.buffer_updated(spare, some)
        stream = stream[some:]


def use_writers() -> None:
    """Gathered frames, large ones, serialized ones, and frames that are never taken."""
    for writer in (_speedups.FrameWriter(), _speedups.MaskingWriter(os.urandom)):
        writer.counters = counters = _speedups.Counters()
        for size in (0, 125, 126, 3000, 8192, 70_000):
            if isinstance(writer, _speedups.FrameWriter):
                writer.write_serialized(_speedups.serialize(0x82, bytes(size)))
            writer.write(0x82, bytes(size))
            writer.write(0x82, bytearray(size))
            if size != 3000:
                writer.take()
        for _ in range(2 * _speedups.MASK_BATCH):
            writer.write(0x82, b"x")
        writer.write(0x88, b"")
        assert counters.sent[2] and counters.sent_bytes[2] and not any(counters.received_bytes)
    failing = _speedups.MaskingWriter(lambda size: b"bad")
    with contextlib.suppress(ValueError):
        failing.write(0x82, b"x")


def use_counters() -> None:
    """Valid and invalid histograms, and noted events."""
    for bounds in ([1, 2.5], range(20), [], [2, 1], range(21), ["x"]):
        with contextlib.suppress(ValueError):
            histogram = _speedups.Histogram(bounds)
            for value in (-1, 1, 19.5, 1e300):
                histogram.observe(value)
            assert sum(histogram.counts) == 4
    counters = _speedups.Counters()
    for number in range(3):
        counters.note(("close", str(number)), number)
        counters.note_waiting(number, number)
        counters.note_write_buffer(number)
        counters.note_inflated(number, 2 * number)
        counters.note_deflated(number, 2 * number)
    assert counters.inflated == counters.deflated == [3, 6]


def use_watching() -> None:
    """A class that watches an attribute: it may refuse a value."""
    set_attribute, delete_attribute = _speedups.watching(frozenset(["watched"]))

    class Watching:
        __setattr__ = set_attribute
        __delattr__ = delete_attribute

        def _watch(self, name: str, value: object) -> None:
            if value is None:
                raise ValueError(name)

    watching: Any = Watching()
    for name in ("watched", "other"):
        for value in ("value", None):
            with contextlib.suppress(ValueError):
                setattr(watching, name, value)
        delattr(watching, name)
        with contextlib.suppress(AttributeError):
            delattr(watching, name)
    _speedups.type_version(Watching)


class Owner:
    """Stands in for the protocol."""

    dispatcher: Any

    def hook_failed(self, error: BaseException) -> None:
        """Ignored, as are the next ones."""

    refuse = hook_failed

    def hold_reading(self) -> None: ...

    release_reading = none_waits = hold_reading

    def drain_waiting(self) -> None:
        """Starts waiting messages."""
        self.dispatcher.drain()

    def decode_later(self, message: tuple[int, bytes]) -> None:
        """Decodes a large message."""
        asyncio.get_running_loop().call_soon(self.dispatcher.resume, (2, message[1]))


async def use_dispatchers() -> None:
    """Handlers that end at once, wait, fail, and are cancelled."""
    loop = asyncio.get_running_loop()
    kept: list[Any] = []
    variable: ContextVar[bytes] = ContextVar("variable")

    async def handle(payload: bytes, opcode: int) -> None:
        if payload == b"wait":
            await asyncio.sleep(0)
        elif payload == b"fail":
            raise ValueError
        elif payload == b"stay":
            await loop.create_future()
        elif payload == b"cancel":
            kept.append(asyncio.current_task())
            kept[-1].cancel()
            await asyncio.sleep(0)
        elif payload == b"keep":
            kept.append(asyncio.current_task())
        elif payload == b"set":
            variable.set(payload)

    def decode(opcode: int, payload: bytes) -> tuple[int, bytes]:
        if payload == b"bad":
            raise ValueError
        return 2, payload

    async def on_open() -> None:
        await asyncio.sleep(0)

    for hook in (None, on_open):
        owner = Owner()
        owner.dispatcher = dispatcher = _speedups.Dispatcher(owner, loop, copy_context(), handle, 2, (3, 100), stepping)
        dispatcher.decode, dispatcher.encoded, dispatcher.decoded_at_once = decode, 0x40, 10
        dispatcher.open(hook)
        words = " wait cancel keep set fail  stay wait stay wait  stay"
        messages = [(2, payload) for payload in words.encode().split(b" ")]
        messages[3:3] = [(0x42, b"small"), (0x42, b"large" * 9), (0x42, b"bad")]
        loop.call_soon(dispatcher.deliver, messages)
        for _ in range(12):
            await asyncio.sleep(0)
        workers = list(dispatcher.workers)
        dispatcher.stop()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await asyncio.sleep(0)
        dispatcher.forget()


class Inbox(_speedups.Inbox):
    """An inbox without a connection; a thread decodes the messages named "late"."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        done.set_result(None)
        super().__init__(loop, 2, 10, done, EOFError)
        self.encoded = 0x40

    def hold_reading(self) -> None:
        """Nothing is read here."""

    release_reading = hold_reading

    def expire_in(self, seconds: float) -> float:
        """No timer runs."""
        return seconds

    def take_encoded(self, message: tuple[int, bytes]) -> tuple[int, bytes] | None:
        """Decodes a small message."""
        if message[1] == b"late":
            return None
        self.pop()
        return 2, message[1]

    async def get_slowly(self, timeout: float | None, deadline: float) -> tuple[int, bytes]:
        """Decodes a large message; ends with the connection."""
        if self.has_ended:
            raise EOFError
        await asyncio.sleep(0)
        self.pop()
        return 1, b"decoded"


async def use_inboxes() -> None:
    """Messages that wait, come later, or are decoded by a thread; waiters that are cancelled, fail, or are closed."""
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    loop.call_soon(inbox.deliver, [(1, b"text"), (2, b"bytes" * 9), (0x42, b"small"), (0x41, b"late"), (0x41, b"late")])
    await asyncio.sleep(0)
    got = [await _speedups.NextMessage(inbox) for _ in range(3)]
    for step in (_speedups.NextMessage(inbox), _speedups.NextMessage(inbox)):
        step.send(None)
        with contextlib.suppress(ZeroDivisionError):
            step.throw(ZeroDivisionError())
        step.close()
    got += [await _speedups.NextMessage(inbox, 60) for _ in range(2)]
    assert got == ["text", b"bytes" * 9, b"small", "decoded", "decoded"]
    assert inbox.take() is None

    queue: list[_speedups.Waiter] = []
    woken, soon, refused = map(asyncio.ensure_future, [_speedups.Waiter(loop, queue) for _ in range(3)])
    await asyncio.sleep(0)
    loop.call_soon(queue.pop(0).wake)
    queue.pop(0).wake_soon()
    queue[0].fail(TimeoutError())
    assert await asyncio.gather(woken, soon, refused, return_exceptions=True)
    assert not queue
    for _ in range(3):  # waits that follow each other use one future, and one exception for their ends
        loop.call_soon(inbox.deliver, [(1, b"text")])
        assert await inbox.next() == "text"

    waiters = [_speedups.NextMessage(inbox, timeout) for timeout in (None, 1, 2, None, None)]
    cancelled, failed, first, second, last = map(asyncio.ensure_future, waiters)
    await asyncio.sleep(0)
    cancelled.cancel()
    waiters[1].fail(TimeoutError())
    loop.call_soon(inbox.deliver, [(1, b"first"), (1, b"second")])
    assert await asyncio.gather(cancelled, failed, first, second, return_exceptions=True)
    inbox.has_ended = True
    waiters[4].wake_soon()
    with contextlib.suppress(EOFError):
        await last
    for ends in (None, lambda error: False, lambda error: True):
        with contextlib.suppress(EOFError, StopAsyncIteration):
            await _speedups.NextMessage(inbox, None, ends)
    left = _speedups.NextMessage(inbox)
    left.close()
    with contextlib.suppress(RuntimeError):
        await left


class Transport:
    """Takes the bytes that the socket does not."""

    def write(self, data: bytes | memoryview) -> None:
        """It is lost."""

    def get_write_buffer_size(self) -> int:
        """Nothing is queued here."""
        return 0


class Loop:
    """Runs no callbacks, so no frames wait for its next iteration."""

    def is_running(self) -> bool:
        return False


class Path(_speedups.HotPath):
    """Writes to a socket past its transport."""

    def rest(self) -> None:
        """There is no loop to be let go."""

    def write_chunks(self, chunks: list[bytes | memoryview]) -> None:
        """They are lost."""


def use_hot_path() -> None:
    """A socket that takes all, a part and, in the end, nothing."""
    for writer in (_speedups.FrameWriter(), _speedups.MaskingWriter(os.urandom)):
        use_sending(writer)


def use_sending(writer: Any) -> None:
    """The same, by one role."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader, buffer = _speedups.MessageReader(1000, True, False), _speedups.ReceiveBuffer(1000)
        loop = Loop()
        path = Path(reader, writer, buffer, _speedups.Burst(loop), _speedups.Counters(), None)
        path.transport = Transport()
        path.fd, path.max_size, path.direct_out = ours.fileno(), UNLIMITED, True
        for _ in range(2):
            for size in (0, 100, 10_000, 100_000):
                path.send(bytes(size), 2)
                path.send("ä" * size, 1)
            path.corked = True
            for _ in range(5):
                path.send(bytes(9000), 2)
            path.corked = False
            path.flush()


async def use_bursts() -> None:
    """Broadcasts that follow each other to more sockets than take all of it."""
    burst = _speedups.Burst(asyncio.get_running_loop())
    pairs = [socket.socketpair() for _ in range(20)]
    members = []
    for ours, _ in pairs:
        reader, buffer = _speedups.MessageReader(1000, True, False), _speedups.ReceiveBuffer(1000)
        path = Path(reader, _speedups.FrameWriter(), buffer, burst, None, None)
        path.transport = Transport()
        path.fd, path.max_size, path.direct_out = ours.fileno(), UNLIMITED, True
        members.append(SimpleNamespace(_protocol=path))
    for _ in range(3):
        for size in (10, 1000, 40_000, 100_000, 100):
            _speedups.fan_out(members, Prepared(bytes(size), 2))
        await asyncio.sleep(0)
    for pair in pairs:
        for end in pair:
            end.close()


def use_all() -> None:
    """Runs the operations on Python objects, and on sockets."""
    use_readers()
    use_hot_path()
    asyncio.run(use_dispatchers())
    asyncio.run(use_inboxes())
    asyncio.run(use_bursts())


def objects() -> list[object]:
    """The objects of the module, of which valgrind reports no leaks, because the collector tracks them."""
    gc.collect()
    return [item for item in gc.get_objects() if type(item).__module__ == _speedups.__name__]


def main() -> None:
    """Runs all operations, many times."""
    use_all()
    before = objects()  # those that the module itself keeps, such as the tasks of the last loop
    for round in range(ROUNDS):
        use_functions()
        use_writers()
        use_counters()
        use_watching()
        if round % 10 == 0:
            use_all()
    after = objects()
    assert len(after) == len(before), after


if __name__ == "__main__":
    main()
