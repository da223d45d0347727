"""Memory that runs out at any allocation: no crash, and the written bytes are a prefix of the sent ones."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("_testcapi")

SECONDS = 60

PRELUDE = """
import gc, sys
from _testcapi import remove_mem_hooks, set_nomemory
from duck.contrib.websockets import codec

gc.disable()  # or a collection, which ignores errors, would take some of them

def each_allocation(attempt):
    '''Calls `attempt(fail)`, in which the first allocation fails, then the second, and so on, until none does.'''
    number = 1
    while attempt(number):
        number += 1 + number // 200  # all of the first ones, then fewer
    return number

def failing(number, function, *args):
    '''Whether a call runs out of memory at its n-th allocation.'''
    try:
        set_nomemory(number, number + 1)
        function(*args)
    except MemoryError:
        return True
    finally:
        remove_mem_hooks()
    return False
"""

WRITER = """
def frames(data):
    found = []
    while data:
        size, first, length, _ = codec.parse_header(data, False, True, 2**62)
        found.append((first, data[size : size + length]))
        assert len(found[-1][1]) == length, "a frame is cut"
        data = data[size + length :]
    return found

MESSAGES = [b"small", b"x" * 9000, b"", b"y" * 5000, b"z" * 20000, b"w" * 100, b"v" * 8192]

def write(writer, message):
    writer.write(0x82, message)

for before in range(len(MESSAGES)):
    for step in ("write", "take"):
        def attempt(number):
            writer = codec.FrameWriter()
            for message in MESSAGES[:before]:
                write(writer, message)
            size = writer.size
            if step == "write":
                failed = failing(number, write, writer, MESSAGES[before])
                assert not failed or writer.size == size
            else:
                write(writer, MESSAGES[before])
                taken = []
                failed = failing(number, lambda: taken.append(writer.take()))
                assert failed or not writer.size
            if step == "write":
                expected = MESSAGES[: before + (not failed)]
            elif failed:
                # The bytes have either been lost with their list, or are still there.
                expected = MESSAGES[: before + 1] if writer.size else []
            else:
                return False
            write(writer, b"behind")
            assert frames(b"".join(writer.take())) == [(0x82, message) for message in [*expected, b"behind"]]
            return failed
        each_allocation(attempt)
print("the end")
"""

READER = """
def masked(first, payload):
    return codec.serialize(first, payload, bytes(4))

STREAM = b"".join(
    [masked(0x81, b"text"), masked(0x89, b"ping"), masked(0x01, b"be"), masked(0x89, b"?"), masked(0x80, b"gin"),
     masked(0x82, b"x" * 100_000), masked(0x88, b"\\x03\\xe8")]
)
EXPECTED = codec.MessageReader(2**20, True, False).receive(STREAM)

for piece in (1, 7, 50_000, len(STREAM)):
    pieces = [STREAM[at : at + piece] for at in range(0, len(STREAM), piece)][:60]

    def attempt(number):
        reader = codec.MessageReader(2**20, True, False)
        spare = bytearray(2**18)
        got, step = [], ""

        def feed():
            nonlocal step
            for piece in pieces:
                step = "fill"
                target = reader.get_buffer(spare)
                target[: len(piece)] = piece
                size = len(piece)
                step = "read"
                messages = reader.buffer_updated(spare, size)
                step = "keep"
                got.extend(messages)

        failed = failing(number, feed)
        assert got == EXPECTED[: len(got)]
        if failed and step == "read" and codec.describe()["codec"] == "compiled":  # the twin may not have begun
            # It has lost its place in the stream, and parses no more.
            assert reader.closed
            assert reader.receive(STREAM) == []
        return failed

    each_allocation(attempt)
print("the end")
"""

HOT_PATH = """
from duck.contrib.websockets.protocol import stepping

class Transport:
    def __init__(self):
        self.written = []
        self.aborted = False

    def write(self, data):
        self.written.append(bytes(data))

    def abort(self):
        self.aborted = True

    def get_write_buffer_size(self):
        return len(self.written)

class Loop:
    def is_running(self):
        return False

class Path(codec.HotPath):
    def send_otherwise(self, data, opcode):
        raise ConnectionError

    def rest(self):
        return codec.SENT

    def write_chunks(self, chunks):
        for chunk in chunks:
            self.transport.write(chunk)

def make():
    path = Path(codec.MessageReader(2**20, True, False), codec.FrameWriter(), BUFFER, BURST, None, None)
    path.transport = Transport()
    path.max_size = 2**20
    path.direct_in = path.direct_out = True
    return path

import socket
LOOP = Loop()
BUFFER, BURST = codec.ReceiveBuffer(2**18), codec.Burst(LOOP)
MESSAGES = ["small", b"y" * 5000, b"x" * 9000, "grüße", b"z" * 20000, "w" * 100]

def send_all(path, messages, sent):
    for message in messages:
        path.send(message, 1)
        sent.append(message)
    path.corked = False
    path.flush()

def received(end):
    end.setblocking(False)
    try:
        return end.recv(2**20)
    except BlockingIOError:
        return b""

# The socket takes a part of the messages, and the transport the rest.
for corked, past_transport, messages in (
    (False, False, MESSAGES), (True, False, MESSAGES), (False, True, MESSAGES), (True, True, MESSAGES[:2])
):
    def attempt(number):
        path = make()
        path.corked = corked
        sent = []
        ends = socket.socketpair() if past_transport else ()
        if ends:
            ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            path.fd = ends[0].fileno()
        failed = failing(number, send_all, path, messages, sent)
        if failed and not path.transport.aborted:
            path.corked = False
            path.flush()
        data = b"".join([received(ends[1]) if ends else b"", *path.transport.written])
        for end in ends:
            end.close()
        got = []
        reader = codec.MessageReader(2**20, False, False)
        for opcode, payload in reader.receive(data):
            got.append(payload)
        assert not reader.error
        every = [m.encode() if isinstance(m, str) else m for m in messages]
        assert got == every[: len(got)], got
        if not path.transport.aborted:
            assert len(got) >= len(sent)
        else:
            before = len(path.transport.written)
            path.writer.write(0x81, b"nothing follows")
            path.flush()
            assert len(path.transport.written) == before
        return failed

    assert each_allocation(attempt) > 3
print("the end")
"""


@pytest.mark.parametrize("part", ["writer", "reader", "hot path"])
@pytest.mark.parametrize("twin", ["", "1"], ids=["compiled", "python"])
def test_every_allocation_may_fail(part, twin):
    code = {"writer": WRITER, "reader": READER, "hot path": HOT_PATH}[part]
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | {"DUCK_NO_EXTENSIONS": twin, "DUCK_REQUIRE_SPEEDUPS": ""},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "the end"), done.stderr[-2000:]
