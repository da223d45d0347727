"""The closing handshake without I/O: codes and reasons, answers, and unread bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, ProtocolError
from duck.contrib.websockets.sansio.connection import Connection
from duck.contrib.websockets.sansio.payloads import check_close, parse_close

from ..support.frames import close, frame, taken

TEXT, CLOSE, PING, PONG = OpCode.TEXT, OpCode.CLOSE, OpCode.PING, OpCode.PONG

VALID = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


def exchange(sender, receiver):
    """Passes the outgoing bytes to the other end, which then responds."""
    received = receiver.receive(taken(sender))
    receiver.respond()
    return received


def ends(client):
    """The end that begins to close, and the other one."""
    return Connection(client=client), Connection(client=not client)


# Payloads


@pytest.mark.parametrize("code", VALID)
def test_codes_of_the_registry_and_of_applications_are_valid(code):
    check_close(code)
    assert parse_close(code.to_bytes(2)) == (code, "")
    assert parse_close(code.to_bytes(2) + "é".encode()) == (code, "é")


@pytest.mark.parametrize("code", INVALID)
def test_reserved_and_undefined_codes_are_invalid(code):
    with pytest.raises(ValueError, match=f"close code {code} cannot be sent"):
        check_close(code)
    for reason in (b"", b"why"):
        with pytest.raises(ProtocolError, match="invalid close code") as caught:
            parse_close(code.to_bytes(2) + reason)
        assert caught.value.close_code == 1002


@pytest.mark.parametrize("code", [-1, 65536, 10**6])
def test_codes_of_more_than_two_bytes_are_refused(code):
    with pytest.raises(ValueError, match="cannot be sent"):
        check_close(code)


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [(1000.0, "", TypeError), ("1000", "", TypeError), (1000, None, TypeError), (1000, "\ud800", ValueError)],
)
def test_a_close_frame_that_cannot_be_written_leaves_the_connection_open(code, reason, error):
    with pytest.raises(error):
        check_close(code, reason)
    connection = Connection()
    with pytest.raises(error):
        connection.close(code, reason)
    assert connection.is_open


def test_an_error_of_an_extension_that_no_close_frame_can_tell_is_a_fault():
    connection = Connection()
    connection.refuse(ProtocolError("a lone \ud800"))
    connection.respond()
    assert isinstance(connection.fault, UnicodeEncodeError)
    assert taken(connection) == Frame(CLOSE, payload=b"\x03\xf3internal error").serialize()


def test_no_payload_is_no_status():
    assert parse_close(b"") == (1005, "")


@pytest.mark.parametrize("payload", [b"\x00", b"\x03", b"\xff"])
def test_a_payload_of_one_byte_is_a_breach(payload):
    with pytest.raises(ProtocolError) as caught:
        parse_close(payload)
    assert caught.value.close_code == 1002


@pytest.mark.parametrize("reason", [b"\xff", b"\xed\xa0\x80", b"ok \xe2\x82", b"\xc0\xaf"])
def test_a_reason_that_is_not_utf8_is_a_breach(reason):
    with pytest.raises(ProtocolError) as caught:
        parse_close(b"\x03\xe8" + reason)
    assert caught.value.close_code == 1007


@given(st.binary(max_size=125))
def test_any_payload_is_parsed_or_refused(payload):
    try:
        code, reason = parse_close(payload)
    except ProtocolError as error:
        assert error.close_code in (1002, 1007)
        return
    assert payload == (b"" if code == 1005 else code.to_bytes(2) + reason.encode())


# Closing


@ROLES
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4999, "gründlich 🦆"), (3000, "a" * 123)])
def test_both_ends_agree_on_the_code_of_a_closing_handshake(client, code, reason):
    first, second = ends(client)
    first.close(code, reason)
    assert first.writer.closed
    assert not first.is_open
    assert not first.is_over
    assert exchange(first, second) == [(CLOSE, code.to_bytes(2) + reason.encode())]
    assert second.is_over
    assert not second.is_open
    assert second.received_close == code.to_bytes(2) + reason.encode()
    assert (second.close_code, second.close_reason) == (code, reason)
    # The answer repeats the code (section 5.5.1).
    assert exchange(second, first) == [(CLOSE, code.to_bytes(2))]
    assert first.is_over
    assert (first.close_code, first.close_reason) == (code, reason)
    assert taken(first) == taken(second) == b""
    assert first.failed is None and second.failed is None


@ROLES
def test_a_closing_handshake_may_lack_a_code(client):
    first, second = ends(client)
    first.close(1005)
    assert exchange(first, second) == [(CLOSE, b"")]
    assert exchange(second, first) == [(CLOSE, b"")]
    for end in (first, second):
        assert end.is_over
        assert (end.close_code, end.close_reason) == (1005, "")


@ROLES
def test_close_frames_that_cross_give_each_end_the_code_of_the_other(client):
    first, second = ends(client)
    first.close(4001, "first")
    second.close(4002, "second")
    crossing = taken(first)
    assert exchange(second, first) == [(CLOSE, b"\x0f\xa2second")]
    second.receive(crossing)
    second.respond()
    assert first.is_over and second.is_over
    # The close frame of the peer describes the end.
    assert (first.close_code, first.close_reason) == (4002, "second")
    assert (second.close_code, second.close_reason) == (4001, "first")
    assert taken(first) == taken(second) == b""


@ROLES
def test_a_second_close_does_nothing(client):
    first, second = ends(client)
    first.close(1001, "bye")
    first.close(1002, "again")
    assert exchange(first, second) == [(CLOSE, b"\x03\xe9bye")]
    first.close()
    second.close(1011, "late")
    assert second.close_code == 1001
    exchange(second, first)
    second.close()
    first.close()
    assert taken(first) == taken(second) == b""
    assert first.close_code == 1001


def test_closing_behind_the_end_of_the_stream_does_nothing():
    server = Connection()
    server.receive_eof()
    server.close(1001)
    assert taken(server) == b""
    assert not server.writer.closed
    assert server.close_code == 1006


@pytest.mark.parametrize("code", [code for code in INVALID if code != 1005] + [-1, 65536])
@pytest.mark.parametrize("is_open", [True, False])
def test_an_invalid_code_is_not_sent(code, is_open):
    server = Connection()
    if not is_open:
        server.close()
    taken(server)
    with pytest.raises(ValueError, match="cannot be sent"):
        server.close(code)
    assert taken(server) == b""
    assert server.is_open is is_open


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("a" * 123, "a" * 123),
        ("a" * 124, "a" * 123),
        ("a" * 10_000, "a" * 123),
        ("é" * 62, "é" * 61),
        ("a" + "é" * 62, "a" + "é" * 61),
        ("🦆" * 31, "🦆" * 30),
        ("abc" + "🦆" * 31, "abc" + "🦆" * 30),
        ("€" * 42, "€" * 41),
    ],
)
def test_a_long_reason_is_cut_at_a_character(reason, kept):
    server = Connection()
    server.close(1000, reason)
    assert taken(server) == Frame(CLOSE, payload=b"\x03\xe8" + kept.encode()).serialize()


@given(st.text(max_size=200))
def test_every_reason_is_a_valid_one(reason):
    server, client = Connection(), Connection(client=True)
    server.close(1000, reason)
    exchange(server, client)
    assert client.failed is None
    assert reason.startswith(client.close_reason)


# Errors of peers


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize(
    ("payload", "code"),
    [
        *(((invalid).to_bytes(2), 1002) for invalid in INVALID),
        (b"\x03", 1002),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xe8" + b"a" * 120 + b"\xe2\x82", 1007),
        (b"\x03\xed\xff", 1002),
    ],
)
def test_an_invalid_close_frame_is_a_breach(client, payload, code):
    peer, end = Connection(client=not client), Connection(client=client)
    end.receive(Frame(CLOSE, payload=payload).serialize(mask=not client))
    end.respond()
    assert end.failed.close_code == code
    assert end.is_over
    assert end.received_close is None
    ((opcode, answer),) = peer.receive(taken(end))
    assert (opcode, answer[:2]) == (CLOSE, code.to_bytes(2))
    assert answer[2:].decode()
    assert end.close_code == code


@pytest.mark.parametrize("behind", [close(1001), b"\xff\xff\xff", b"\x81\x85", frame(CLOSE, b"\x00")])
@pytest.mark.parametrize("together", [True, False])
def test_data_behind_a_close_frame_is_not_read(behind, together):
    server = Connection()
    stream = close()
    assert server.receive(stream + behind * together) == [(CLOSE, b"\x03\xe8")]
    server.respond()
    assert server.receive(behind) == []
    assert not server.needs_response
    server.respond()
    assert taken(server) == Frame(CLOSE, payload=b"\x03\xe8").serialize()
    assert server.failed is None
    assert server.close_code == 1000


def test_a_close_frame_inside_a_fragmented_message_is_a_close_frame():
    server = Connection()
    stream = Frame(TEXT, False, b"unfinished").serialize(mask=True) + close()
    assert server.receive(stream) == [(CLOSE, b"\x03\xe8")]
    server.respond()
    assert server.failed is None
    assert server.is_over
    assert taken(server) == b"\x88\x02\x03\xe8"


def test_we_may_close_inside_a_fragmented_message_of_ours():
    server, client = Connection(), Connection(client=True)
    server.send(TEXT, b"unfinished", fin=False)
    server.close(1011, "sorry")
    assert exchange(server, client) == [(CLOSE, b"\x03\xf3sorry")]
    with pytest.raises(ConnectionClosed):
        server.send(OpCode.CONTINUATION, b"rest")


# Around the close frames


def test_messages_before_a_close_frame_can_be_answered():
    server, client = Connection(), Connection(client=True)
    client.send(TEXT, b"last words")
    client.close(1000)
    assert server.receive(taken(client)) == [(TEXT, b"last words"), (CLOSE, b"\x03\xe8")]
    assert server.is_open
    assert server.needs_response
    server.send(TEXT, b"farewell")
    server.respond()
    assert client.receive(taken(server)) == [(CLOSE, b"\x03\xe8")]
    assert not server.needs_response


def test_messages_that_cross_our_close_frame_are_dropped():
    server, client = Connection(), Connection(client=True)
    server.close(1001)
    client.send(TEXT, b"on its way")
    client.send(PONG, b"so is this")
    assert server.receive(taken(client)) == [(PONG, b"so is this")]
    client.receive(taken(server))
    client.respond()
    assert server.receive(taken(client)) == [(CLOSE, b"\x03\xe9")]
    server.respond()
    assert server.is_over


def test_a_reply_that_closes_comes_before_the_answer_to_a_close_frame():
    """A handler may close by itself while the peer's close frame waits to be answered."""
    server, client = Connection(), Connection(client=True)
    client.close(1000)
    server.receive(taken(client))
    server.close(4000, "mine")
    server.respond()
    assert client.receive(taken(server)) == [(CLOSE, b"\x0f\xa0mine")]
    assert server.close_code == 1000
    assert server.is_over


# The end of the stream


def test_a_stream_that_ends_without_a_close_frame_has_the_code_1006():
    server = Connection()
    assert server.close_code is None
    server.receive_eof()
    assert server.ended and server.is_over and not server.is_open
    assert (server.close_code, server.close_reason) == (1006, "")


@pytest.mark.parametrize("by", ["us", "the peer", "a breach"])
def test_the_end_of_the_stream_changes_no_close_code(by):
    server = Connection()
    if by == "us":
        server.close(4000, "why")
    else:
        server.receive(close(4000, "why") if by == "the peer" else b"\xff\xff")
        server.respond()
    before = server.close_code, server.close_reason
    server.receive_eof()
    assert (server.close_code, server.close_reason) == before
    assert before == ((4000, "why") if by != "a breach" else (1002, "reserved bits set"))


def test_a_stream_may_end_inside_a_frame():
    server = Connection()
    server.receive(b"\x81\x85\x00")
    server.receive_eof()
    server.respond()
    assert server.failed is None
    assert server.close_code == 1006
