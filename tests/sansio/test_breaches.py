"""Breaches of the rules by a peer: answered with the right code, and final."""

import pytest

from duck.contrib.websockets import (
    ConnectionClosed,
    ExtensionError,
    OpCode,
    PayloadTooBig,
    PerMessageDeflate,
    ProtocolError,
)
from duck.contrib.websockets.sansio.connection import Connection
from duck.contrib.websockets.sansio.payloads import parse_close

from ..support.frames import MASK, frame, header, taken

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode

pytestmark = pytest.mark.usefixtures("on_codec")


def failed(server):
    """The code and reason in the only close frame of a failed connection."""
    server.respond()
    assert isinstance(server.failed, ProtocolError)
    assert server.is_over
    assert not server.is_open
    data = taken(server)
    assert data[0] == 0b10000000 | CLOSE
    assert len(data) == 2 + data[1]
    code, reason = parse_close(data[2:])
    assert code == server.failed.close_code == server.close_code
    assert reason == str(server.failed) == server.close_reason
    return code, reason


# Each error of the codec; the tests of the codec have the streams that cause it.
BREACHES = {
    "reserved bit": (b"\xc1\x80", 1002, "reserved bits set"),
    "reserved opcode": (b"\x83\x80", 1002, "reserved opcode"),
    "no mask": (b"\x81\x05", 1002, "frame not masked"),
    "fragmented ping": (b"\x09\x80", 1002, "fragmented control frame"),
    "ping of 126 bytes": (b"\x89\xfe", 1002, "control frame over 125 bytes"),
    "125 in 2 bytes": (b"\x82\xfe\x00\x7d", 1002, "length not in its shortest form"),
    "2**63": (b"\x82\xff" + (2**63).to_bytes(8), 1002, "length with its top bit set"),
    "1001 of 1000 bytes": (header(0x82, 1001), 1009, "message too big"),
    "continuation of nothing": (header(0x00, 1), 1002, "continuation without a message"),
    "message in a message": (frame(TEXT, fin=False) + header(0x81, 1), 1002, "new message inside a fragmented one"),
    "FF": (header(0x81, 1) + bytes([0xFF ^ MASK[0]]), 1007, "text is not UTF-8"),
    "empty fragments": (
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 1024,
        1008,
        "too many empty fragments",
    ),
}


@pytest.mark.parametrize("case", BREACHES)
@pytest.mark.parametrize("behind", [b"", b"\0" * 5000], ids=["alone", "with more behind"])
def test_a_breach_is_answered_with_its_code(case, behind):
    data, code, reason = BREACHES[case]
    server = Connection(max_size=1000)
    assert server.receive(data + behind) == []
    assert server.needs_response
    assert failed(server) == (code, reason)
    assert isinstance(server.failed, PayloadTooBig) is (code == 1009)


def test_a_frame_with_a_mask_is_a_breach_to_a_client():
    client = Connection(client=True)
    client.receive(frame(TEXT, b"x"))
    client.respond()
    assert (client.failed.close_code, str(client.failed)) == (1002, "frame masked by a server")
    # A client masks its close frame too.
    server = Connection()
    assert server.receive(taken(client)) == [(CLOSE, b"\x03\xeaframe masked by a server")]


def test_without_a_limit_any_length_is_waited_for():
    server = Connection(max_size=None)
    assert server.receive(header(0x82, 2**63 - 1)) == []
    assert not server.needs_response


# The connection after a breach


def test_messages_before_a_breach_are_given_and_can_be_answered():
    server = Connection()
    stream = frame(TEXT, b"one") + frame(PING, b"?") + frame(TEXT, b"two") + b"\x83\x80" + frame(TEXT, b"three")
    assert server.receive(stream) == [(TEXT, b"one"), (PING, b"?"), (TEXT, b"two")]
    assert server.needs_response
    assert server.is_open
    server.send(TEXT, b"reply")
    server.respond()
    client = Connection(client=True)
    assert client.receive(taken(server)) == [(PONG, b"?"), (TEXT, b"reply"), (CLOSE, b"\x03\xeareserved opcode")]


def test_bytes_behind_a_breach_are_not_read():
    server = Connection()
    server.receive(b"\x83\x80")
    assert server.receive(frame(TEXT, b"before the answer")) == []
    assert failed(server) == (1002, "reserved opcode")
    for _ in range(3):
        assert server.receive(frame(TEXT, b"x") + frame(PING) + frame(CLOSE) + b"\xff\xff") == []
        assert not server.needs_response
        server.respond()
    assert taken(server) == b""
    assert server.received_close is None
    assert server.close_code == 1002


def test_messages_behind_a_broken_one_are_not_read():
    """The codec has read it without an error, because decompression is the connection's."""
    server = Connection(extensions=[PerMessageDeflate("permessage-deflate")])
    assert server.receive(frame(TEXT, b"\xff", rsv=0b100)) == []
    assert server.receive(frame(TEXT, b"before the answer") + frame(CLOSE)) == []
    server.respond()
    assert isinstance(server.failed, ExtensionError)
    assert server.received_close is None


def test_messages_behind_a_breach_are_not_sent():
    server = Connection()
    server.receive(b"\x83\x80")
    failed(server)
    with pytest.raises(ConnectionClosed, match="1002 reserved opcode"):
        server.send(TEXT, b"x")
    server.close(1000)
    assert taken(server) == b""


def test_a_breach_behind_our_close_frame_is_not_answered_again():
    server = Connection()
    server.close(1001, "bye")
    taken(server)
    server.receive(b"\x83\x80")
    server.respond()
    assert taken(server) == b""
    assert server.is_over
    assert str(server.failed) == "reserved opcode"
    assert (server.close_code, server.close_reason) == (1001, "bye")


def test_responding_twice_responds_once():
    server = Connection()
    server.receive(b"\x83\x80")
    server.respond()
    server.respond()
    assert len(taken(server)) == 2 + 2 + len("reserved opcode")


def test_respond_does_nothing_without_a_breach_or_close_frame():
    server = Connection()
    server.receive(frame(TEXT, b"x"))
    assert not server.needs_response
    server.respond()
    assert taken(server) == b""
    assert server.is_open
