"""Breaches of the rules by a peer: found at the first telling byte, answered with the right code, and final."""

import pytest

from duck.contrib.websockets import ConnectionClosed, OpCode, PayloadTooBig, ProtocolError
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


# By a server, of frames that begin with these bytes and need no more to be refused
AT_ONCE = {
    "reserved bit 1": (b"\xc1\x80", 1002, "reserved bits set"),
    "reserved bit 2": (b"\xa1\x80", 1002, "reserved bits set"),
    "reserved bit 3": (b"\x91\x80", 1002, "reserved bits set"),
    "reserved bits of a ping": (b"\xf9\x80", 1002, "reserved bits set"),
    **{
        f"reserved opcode {opcode}": (bytes([0x80 | opcode, 0x80]), 1002, "reserved opcode")
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "reserved opcode of any length": (b"\x83\xff", 1002, "reserved opcode"),
    "no mask": (b"\x81\x05", 1002, "frame not masked"),
    "no mask on a close frame": (b"\x88\x00", 1002, "frame not masked"),
    "fragmented close": (b"\x08\x80", 1002, "fragmented control frame"),
    "fragmented ping": (b"\x09\x80", 1002, "fragmented control frame"),
    "fragmented pong": (b"\x0a\x80", 1002, "fragmented control frame"),
    "ping of 126 bytes": (b"\x89\xfe", 1002, "control frame over 125 bytes"),
    "close of 65536 bytes": (b"\x88\xff", 1002, "control frame over 125 bytes"),
    "125 in 2 bytes": (b"\x82\xfe\x00\x7d", 1002, "length not in its shortest form"),
    "0 in 2 bytes": (b"\x82\xfe\x00\x00", 1002, "length not in its shortest form"),
    "65535 in 8 bytes": (b"\x82\xff" + (65535).to_bytes(8), 1002, "length not in its shortest form"),
    "2**63": (b"\x82\xff" + (2**63).to_bytes(8), 1002, "length with its top bit set"),
    "2**64 - 1": (b"\x82\xff" + (2**64 - 1).to_bytes(8), 1002, "length with its top bit set"),
    "continuation of nothing": (header(0x00, 1), 1002, "continuation without a message"),
    "end of nothing": (header(0x80, 0), 1002, "continuation without a message"),
    "1001 of 1000 bytes": (header(0x82, 1001), 1009, "message too big"),
    "65536 of 1000 bytes": (header(0x82, 65536), 1009, "message too big"),
    "2**63 - 1 of 1000 bytes": (header(0x82, 2**63 - 1), 1009, "message too big"),
    "a fragment over the limit": (header(0x02, 1001), 1009, "message too big"),
    "FF": (header(0x81, 1) + bytes([0xFF ^ MASK[0]]), 1007, "text is not UTF-8"),
}


@pytest.mark.parametrize("case", AT_ONCE)
@pytest.mark.parametrize("behind", [b"", b"\0" * 5000], ids=["alone", "with more behind"])
def test_a_breach_is_answered_with_its_code(case, behind):
    data, code, reason = AT_ONCE[case]
    server = Connection(max_size=1000)
    assert server.receive(data + behind) == []
    assert server.needs_response
    assert failed(server) == (code, reason)
    assert isinstance(server.failed, PayloadTooBig) is (code == 1009)


@pytest.mark.parametrize("case", AT_ONCE)
def test_a_breach_is_found_at_its_last_byte_and_not_before(case):
    data, code, reason = AT_ONCE[case]
    server = Connection(max_size=1000)
    # The first two bytes are parsed together, and a length once the mask behind it has arrived.
    for size in range(len(data)):
        server.receive(data[size : size + 1])
        if server.needs_response:
            break
    assert size == len(data) - 1
    assert failed(server) == (code, reason)


def test_a_frame_with_a_mask_is_a_breach_to_a_client():
    client = Connection(client=True)
    client.receive(frame(TEXT, b"x"))
    client.respond()
    assert (client.failed.close_code, str(client.failed)) == (1002, "frame masked by a server")
    # A client masks its close frame too.
    server = Connection()
    assert server.receive(taken(client)) == [(CLOSE, b"\x03\xeaframe masked by a server")]


# Fragmentation


@pytest.mark.parametrize("second", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [True, False])
def test_no_message_may_begin_inside_another(second, fin):
    server = Connection()
    assert server.receive(frame(TEXT, b"a", fin=False) + frame(second, b"b", fin=fin)) == []
    assert failed(server) == (1002, "new message inside a fragmented one")


def test_a_message_that_has_ended_does_not_go_on():
    server = Connection()
    stream = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b") + frame(CONTINUATION, b"c")
    assert server.receive(stream) == [(TEXT, b"ab")]
    assert failed(server) == (1002, "continuation without a message")


@pytest.mark.parametrize("sizes", [(600, 401), (1000, 1), (1, 1000), (400, 400, 201), (0, 1001)])
def test_the_limit_is_for_the_whole_message(sizes):
    server = Connection(max_size=1000)
    *parts, last = sizes
    opcode = BINARY
    for size in parts:
        assert server.receive(frame(opcode, bytes(size), fin=False)) == []
        assert not server.needs_response
        opcode = CONTINUATION
    # Refused by its header; the payload never comes.
    assert server.receive(header(0x80, last)) == []
    assert failed(server) == (1009, "message too big")


@pytest.mark.parametrize("length", [2**63 - 1, 2**63 - 500, 2**62])
def test_the_limit_is_not_passed_by_an_overflow(length):
    server = Connection(max_size=1000)
    server.receive(frame(BINARY, bytes(600), fin=False))
    server.receive(header(0x80, length))
    assert failed(server) == (1009, "message too big")


def test_the_limit_itself_is_taken_every_time():
    server = Connection(max_size=1000)
    for _ in range(3):
        assert server.receive(frame(BINARY, bytes(1000))) == [(BINARY, bytes(1000))]
        parts = frame(BINARY, bytes(400), fin=False) + frame(PING, bytes(125)) + frame(CONTINUATION, bytes(600))
        assert server.receive(parts) == [(PING, bytes(125)), (BINARY, bytes(1000))]


def test_control_frames_have_a_limit_of_their_own():
    server = Connection(max_size=10)
    assert server.receive(frame(PING, bytes(125))) == [(PING, bytes(125))]


def test_without_a_limit_any_length_is_waited_for():
    server = Connection(max_size=None)
    assert server.receive(header(0x82, 2**63 - 1)) == []
    assert not server.needs_response


@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_empty_fragments_are_counted(first):
    """Empty fragments have no bytes, so MAX_FRAME_SIZE does not bound them."""
    server = Connection()
    server.receive(frame(first, b"", fin=False))
    empty = frame(CONTINUATION, b"", fin=False)
    fragments = 1
    while not server.needs_response:
        server.receive(empty)
        fragments += 1
        assert fragments < 2000
    assert fragments > 500
    assert failed(server) == (1008, "too many empty fragments")


def test_empty_fragments_are_counted_for_each_message_alone():
    server = Connection()
    for _ in range(5):
        server.receive(frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 500)
        assert server.receive(frame(CONTINUATION, b"x")) == [(TEXT, b"x")]
    assert not server.needs_response


# UTF-8


BAD_TEXTS = {
    "not a first byte": b"\x80",
    "overlong": b"\xc0\xaf",
    "overlong, 3 bytes": b"\xe0\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "5 bytes": b"\xf8\x88\x80\x80\x80",
    "cut short by a letter": b"\xe2\x82a",
    "late": b"a" * 500 + b"\xff",
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_text_is_utf8(case):
    server = Connection()
    assert server.receive(frame(TEXT, BAD_TEXTS[case])) == []
    assert failed(server) == (1007, "text is not UTF-8")


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_binary_message_need_not_be_utf8(case):
    payload = BAD_TEXTS[case]
    assert Connection().receive(frame(BINARY, payload)) == [(BINARY, payload)]


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_text_is_refused_before_its_end_has_come(case):
    """The fault is in a fragment, or in the received half of a frame."""
    server = Connection()
    assert server.receive(frame(TEXT, BAD_TEXTS[case], fin=False)) == []
    assert failed(server) == (1007, "text is not UTF-8")
    server = Connection()
    start = frame(TEXT, BAD_TEXTS[case] + bytes(5000))[: len(BAD_TEXTS[case]) + 8]
    assert server.receive(start) == []
    assert failed(server) == (1007, "text is not UTF-8")


@pytest.mark.parametrize("text", ["é", "€", "🦆"])
def test_a_character_may_be_cut_by_fragments_but_not_by_the_end(text):
    for size in range(1, len(text.encode())):
        first, second = text.encode()[:size], text.encode()[size:]
        server = Connection()
        server.receive(frame(TEXT, first, fin=False) + frame(PING))
        assert server.receive(frame(CONTINUATION, second)) == [(TEXT, text.encode())]
        assert server.receive(frame(TEXT, first, fin=False)) == []
        assert not server.needs_response
        assert server.receive(frame(CONTINUATION, b"")) == []
        taken(server)
        assert failed(server) == (1007, "text is not UTF-8")


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
