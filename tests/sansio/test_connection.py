"""`Connection` without I/O: sent messages arrive at the other end, in pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import ConnectionClosed, Extension, Frame, OpCode, PayloadTooBig, PerMessageDeflate
from duck.contrib.websockets.sansio.connection import Connection

from ..codec import streams
from ..codec.streams import by_receive
from ..support.frames import RSV1, frame, taken

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode
MIB = 2**20


def by_buffer(connection, data, sizes):
    """Feeds the reader, as a transport does."""
    return connection.received(streams.by_buffer(connection.reader, data, sizes))


WAYS = pytest.mark.parametrize("way", [by_receive, by_buffer])
ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


# There and back


@ROLES
@WAYS
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300_000])
def test_a_message_arrives_in_both_roles(client, way, opcode, size):
    sender, receiver = Connection(client=not client), Connection(client=client)
    payload = b"x" * size
    sender.send(opcode, payload)
    assert way(receiver, taken(sender), [60_000]) == [(opcode, payload)]
    assert taken(receiver) == b""


contents = st.binary(max_size=150) | st.integers(0, 300_000).map(bytes)
texts = st.text(max_size=60).map(str.encode)
messages = st.one_of(
    st.tuples(st.just(TEXT), st.lists(texts, min_size=1, max_size=4)),
    st.tuples(st.just(BINARY), st.lists(contents, min_size=1, max_size=4)),
    st.tuples(st.sampled_from([PING, PONG]), st.lists(st.binary(max_size=125), min_size=1, max_size=1)),
)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@ROLES
@WAYS
@given(data=st.data())
def test_the_division_of_a_stream_does_not_change_a_conversation(client, way, data):
    """Fragmented messages with control frames between the fragments, in a stream cut anywhere."""
    sender, receiver = Connection(client=not client), Connection(client=client)
    expected, pings = [], []

    def control(opcode, payload):
        sender.send(opcode, payload)
        expected.append((opcode, payload))
        if opcode == PING:
            pings.append(payload)

    for opcode, parts in data.draw(st.lists(messages, max_size=6)):
        if opcode >= CLOSE:
            control(opcode, parts[0])
            continue
        last = len(parts) - 1
        for i, part in enumerate(parts):
            sender.send(CONTINUATION if i else opcode, part, fin=i == last)
            if i < last:
                for between in data.draw(st.lists(controls, max_size=2)):
                    control(*between)
        expected.append((opcode, b"".join(parts)))
    stream = taken(sender)
    sizes = [*data.draw(st.lists(st.integers(1, 3000), min_size=1, max_size=20)), len(stream) or 1]
    assert way(receiver, stream, sizes) == expected
    # Every ping has been answered, in order and with its payload.
    answers = sender.receive(taken(receiver))
    assert answers == [(PONG, payload) for payload in pings]
    assert receiver.is_open
    assert receiver.failed is None


def test_opcodes_are_given_by_number_or_name():
    server = Connection()
    ((opcode, _),) = server.receive(frame(TEXT, b"x"))
    assert opcode == OpCode.TEXT == 1


# Control frames


def test_a_pong_is_not_answered():
    server = Connection()
    assert server.receive(frame(PONG, b"unasked")) == [(PONG, b"unasked")]
    assert taken(server) == b""


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_ping_is_answered_with_its_payload(size):
    server = Connection()
    server.receive(frame(PING, b"p" * size))
    assert taken(server) == Frame(PONG, payload=b"p" * size).serialize()


def test_a_pong_leaves_inside_a_fragmented_message_of_ours():
    server, client = Connection(), Connection(client=True)
    server.send(TEXT, b"Hel", fin=False)
    server.receive(frame(PING, b"?"))
    server.send(CONTINUATION, b"lo")
    assert client.receive(taken(server)) == [(PONG, b"?"), (TEXT, b"Hello")]


def test_pings_behind_our_close_frame_are_not_answered():
    server = Connection()
    server.close()
    taken(server)
    server.receive(frame(PING, b"?"))
    assert taken(server) == b""


# Sending


def test_a_server_does_not_mask():
    server = Connection()
    server.send(TEXT, b"Hello")
    assert taken(server) == b"\x81\x05Hello"


def test_a_client_masks_each_frame_with_a_mask_of_its_own():
    client = Connection(client=True)
    masks = set()
    for _ in range(20):
        client.send(TEXT, b"\0" * 8)
        data = taken(client)
        assert data[:2] == b"\x81\x88"
        assert data[6:] == data[2:6] * 2
        masks.add(data[2:6])
    assert len(masks) == 20


def test_fragments_leave_as_given():
    server = Connection()
    server.send(TEXT, b"a", fin=False)
    server.send(CONTINUATION, b"b", fin=False)
    server.send(PING, b"?")
    server.send(CONTINUATION, b"c")
    assert taken(server) == b"\x01\x01a\x00\x01b\x89\x01?\x80\x01c"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_no_message_begins_inside_a_fragmented_one(opcode):
    server = Connection()
    server.send(TEXT, b"a", fin=False)
    with pytest.raises(RuntimeError, match="not finished"):
        server.send(opcode, b"b")
    server.send(CONTINUATION, b"c")
    assert taken(server) == b"\x01\x01a\x80\x01c"


@pytest.mark.parametrize("fin", [True, False])
def test_no_message_goes_on_where_none_has_begun(fin):
    server = Connection()
    with pytest.raises(RuntimeError, match="no message to continue"):
        server.send(CONTINUATION, b"a", fin=fin)
    assert taken(server) == b""


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize(("payload", "fin"), [(bytes(126), True), (b"", False)])
def test_a_control_frame_is_short_and_whole(opcode, payload, fin):
    server = Connection()
    with pytest.raises(ValueError, match="125 bytes"):
        server.send(opcode, payload, fin)
    assert taken(server) == b""


@pytest.mark.parametrize("opcode", [3, 7, CLOSE, 11, 15, 16, 129, -1])
def test_other_opcodes_are_not_sent(opcode):
    """A close frame is sent by `close`, which changes the state too."""
    server = Connection()
    with pytest.raises(ValueError, match="opcode"):
        server.send(opcode, b"")
    assert taken(server) == b""
    assert server.is_open


@pytest.mark.parametrize("end", ["closed", "answered", "failed", "eof"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG])
def test_nothing_is_sent_once_the_connection_closes(end, opcode):
    server = Connection()
    if end == "closed":
        server.close(1001, "bye")
    elif end == "eof":
        server.receive_eof()
    else:
        server.receive(frame(CLOSE, b"\x03\xe9bye") if end == "answered" else b"\xff\xff")
        server.respond()
    data = taken(server)
    with pytest.raises(ConnectionClosed) as caught:
        server.send(opcode, b"x")
    assert caught.value.code == {"closed": 1001, "answered": 1001, "failed": 1002, "eof": 1006}[end]
    assert caught.value.code == server.close_code
    assert caught.value.reason == server.close_reason
    assert taken(server) == b""
    assert data.count(b"\x88") == (end != "eof")


def test_a_large_payload_is_not_copied():
    server = Connection()
    payload = bytes(MIB)
    server.send(BINARY, payload)
    assert any(chunk is payload for chunk in server.take_outgoing())


def test_drained_bytes_are_not_drained_again():
    server = Connection()
    server.send(TEXT, b"a")
    assert taken(server) == b"\x81\x01a"
    assert taken(server) == b""


# Extensions


def deflating(client=False, max_size=MIB):
    return Connection(client=client, max_size=max_size, extensions=[PerMessageDeflate("permessage-deflate")])


def compressed(payload):
    return PerMessageDeflate("permessage-deflate").encode(Frame(TEXT, payload=payload)).payload


def test_compressed_messages_arrive():
    server, client = deflating(), deflating(client=True)
    for payload in (b"hello " * 50, b"", b"x", b"hello " * 50):
        server.send(TEXT, payload)
        data = taken(server)
        assert data[0] == 0b11000001
        assert client.receive(data) == [(TEXT, payload)]


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_compressed_message_may_have_a_ping_between_its_fragments(cut):
    server = deflating()
    payload = compressed(b"Hello, Hello")
    stream = frame(TEXT, payload[:cut], False, rsv=RSV1) + frame(PING) + frame(CONTINUATION, payload[cut:])
    assert by_receive(server, stream, [1]) == [(PING, b""), (TEXT, b"Hello, Hello")]


def test_a_compressed_message_may_end_with_a_fragment_of_one_zero_byte():
    """RFC 7692, section 7.2.3.6."""
    server = deflating()
    stream = frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07", False, rsv=RSV1) + frame(CONTINUATION, b"\x00")
    assert server.receive(stream) == [(TEXT, b"Hello")]


def test_messages_may_come_without_compression_where_there_is_an_extension():
    server = deflating()
    assert server.receive(frame(TEXT, b"plain")) == [(TEXT, b"plain")]
    assert server.receive(frame(TEXT, compressed(b"not plain"), rsv=RSV1)) == [(TEXT, b"not plain")]


def test_control_frames_are_never_compressed():
    server = deflating()
    server.send(PING, b"hello " * 20)
    server.receive(frame(PING, b"hello " * 20))
    server.close(1000, "hello " * 20)
    client = Connection(client=True)
    assert [opcode for opcode, _ in client.receive(taken(server))] == [PING, PONG, CLOSE]


def test_a_sent_message_in_fragments_is_compressed_as_one():
    server, client = deflating(), deflating(client=True)
    for _ in range(2):
        frames = []
        for opcode, part in ((TEXT, b"Hello, "), (CONTINUATION, b"Hello, "), (CONTINUATION, b"")):
            server.send(opcode, part, fin=not part)
            server.send(PING, b"between")
            frames.append(taken(server))
        assert [data[0] for data in frames] == [0b01000001, 0b00000000, 0b10000000]
        assert frames[2].startswith(b"\x80\x01\x00")
        data = b"".join(frames)
        assert [message for message in client.receive(data) if message[0] < PING] == [(TEXT, b"Hello, Hello, ")]


def test_the_first_sent_fragment_decides_on_compression():
    extension = PerMessageDeflate("permessage-deflate", threshold=4)
    server, client = Connection(extensions=[extension]), deflating(client=True)
    for parts, first in (((b"Hel", b"lo, hello"), 0b00000001), ((b"Hello", b"!"), 0b01000001)):
        server.send(TEXT, parts[0], fin=False)
        server.send(CONTINUATION, parts[1])
        data = taken(server)
        assert data[0] == first
        assert client.receive(data) == [(TEXT, b"".join(parts))]


def test_fragments_for_another_extension_are_gathered():
    class Reverse(Extension):
        def encode(self, frame):
            return frame.replace(payload=frame.payload[::-1], rsv1=True)

    server = Connection(extensions=[Reverse("x-reverse")])
    server.send(TEXT, b"Hel", fin=False)
    assert taken(server) == b""
    assert server.fragmenting
    server.send(PING, b"between")
    with pytest.raises(RuntimeError, match="not finished"):
        server.send(TEXT, b"another")
    server.send(CONTINUATION, b"lo", fin=False)
    server.send(CONTINUATION, b"!")
    assert taken(server) == b"\x89\x07between" + b"\xc1\x06!olleH"
    assert not server.fragmenting


@pytest.mark.parametrize("fragmented", [False, True])
def test_a_bomb_is_refused_without_a_delivery(fragmented):
    server = deflating(max_size=1000)
    bomb = compressed(b"a" * 1001)
    assert len(bomb) < 50
    stream = frame(TEXT, bomb, rsv=RSV1)
    if fragmented:
        stream = frame(TEXT, bomb[:9], False, rsv=RSV1) + frame(CONTINUATION, bomb[9:])
    assert server.receive(frame(TEXT, b"before") + stream + frame(TEXT, b"behind")) == [(TEXT, b"before")]
    server.respond()
    assert isinstance(server.failed, PayloadTooBig)
    assert taken(server)[2:4] == (1009).to_bytes(2)
    assert server.receive(frame(TEXT, b"later")) == []


@pytest.mark.parametrize("size", [999, 1000])
def test_a_message_of_the_maximum_decompressed_size_is_accepted(size):
    assert deflating(max_size=1000).receive(frame(TEXT, compressed(b"a" * size), rsv=RSV1)) == [(TEXT, b"a" * size)]


def test_the_limit_holds_for_messages_without_compression_too():
    server = deflating(max_size=1000)
    server.receive(frame(TEXT, b"a" * 1001))
    server.respond()
    assert server.failed.close_code == 1009


@pytest.mark.parametrize(
    ("payload", "opcode", "code"),
    [(b"\xff\xff\xff", TEXT, 1002), (b"\xff\xff\xff", BINARY, 1002), (compressed(b"caf\xe9"), TEXT, 1007)],
    ids=["broken text", "broken bytes", "text that is not UTF-8"],
)
def test_corrupt_data_ends_the_connection(payload, opcode, code):
    server = deflating()
    assert server.receive(frame(opcode, payload, rsv=RSV1)) == []
    server.respond()
    assert server.failed.close_code == code
    assert taken(server)[2:4] == code.to_bytes(2)


def test_compressed_bytes_need_not_be_utf8():
    assert deflating().receive(frame(BINARY, compressed(b"caf\xe9"), rsv=RSV1)) == [(BINARY, b"caf\xe9")]


def test_an_extension_may_use_all_reserved_bits_on_the_way_out():
    class Bits(Extension):
        def encode(self, frame):
            return frame.replace(rsv1=True, rsv2=True, rsv3=True)

    server = Connection(extensions=[Bits("x-bits")])
    server.send(TEXT, b"")
    assert taken(server) == b"\xf1\x00"


@pytest.mark.parametrize("change", [{"fin": False}, {"opcode": CONTINUATION}, {"opcode": PING}])
def test_an_extension_must_return_a_whole_message(change):
    class Broken(Extension):
        def encode(self, frame):
            return frame.replace(**change)

    server = Connection(extensions=[Broken("x-broken")])
    with pytest.raises(TypeError, match="return a final TEXT or BINARY frame"):
        server.send(TEXT, b"text")
    assert taken(server) == b""


def test_extensions_encode_in_order_and_decode_in_reverse():
    class Wrap(Extension):
        def encode(self, frame):
            return frame.replace(payload=self.name.encode() + frame.payload)

        def decode(self, frame, max_size=None):
            return frame.replace(payload=frame.payload.removeprefix(self.name.encode()))

    ends = [Connection(client=client, extensions=[Wrap("a"), Wrap("b")]) for client in (False, True)]
    ends[0].send(TEXT, b"x")
    data = taken(ends[0])
    assert data == b"\x81\x03bax"
    ends[0].send(PING, b"ba")  # control frames are not for them
    assert ends[1].receive(data + taken(ends[0])) == [(TEXT, b"x"), (PING, b"ba")]
