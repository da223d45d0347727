"""Extensions: the interface of a subclass, and compression (RFC 7692)."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import Extension, ExtensionError, Frame, OpCode, PayloadTooBig, PerMessageDeflate

TAIL = b"\x00\x00\xff\xff"


def deflate(**options):
    return PerMessageDeflate("permessage-deflate", **options)


def text(payload, **bits):
    return Frame(OpCode.TEXT, payload=payload, **bits)


# The base


def test_an_extension_has_a_name():
    assert Extension("  x-thing ").name == "x-thing"


@pytest.mark.parametrize("name", ["", "  ", None, 5, b"bytes"])
def test_a_name_is_a_non_empty_string(name):
    with pytest.raises(ValueError, match="name"):
        Extension(name)
    with pytest.raises(ValueError, match="name"):
        PerMessageDeflate(name)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_a_subclass_must_implement_its_methods(method):
    class Nothing(Extension):
        pass

    with pytest.raises(NotImplementedError, match=f"Nothing does not implement {method}"):
        getattr(Nothing("x"), method)(text(b""))


def test_check_frame_refuses_other_objects():
    Extension("x").check_frame(text(b""))
    for other in (b"bytes", None, Frame):
        with pytest.raises(ExtensionError, match="takes a Frame"):
            Extension("x").check_frame(other)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_compression_takes_frames(method):
    with pytest.raises(ExtensionError, match="not bytes"):
        getattr(deflate(), method)(b"bytes")


# Compression


@given(st.lists(st.binary(max_size=300) | st.just(b""), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_messages_survive_a_round_trip(messages, ours_alone, theirs_alone):
    server = deflate(server_no_context_takeover=ours_alone, client_no_context_takeover=theirs_alone)
    # Our own client: its parameters describe the peer where those of the server describe itself.
    client = deflate(server_no_context_takeover=theirs_alone, client_no_context_takeover=ours_alone)
    for message in messages:
        for sender, receiver in ((server, client), (client, server)):
            encoded = sender.encode(text(message))
            assert encoded.rsv1
            assert encoded.fin
            assert encoded.opcode is OpCode.TEXT
            assert encoded.payload
            assert not encoded.payload.endswith(TAIL)
            decoded = receiver.decode(encoded)
            assert decoded.payload == message
            assert not decoded.rsv1


def test_an_empty_message_is_one_zero_byte_every_time():
    """RFC 7692, section 7.2.3.6."""
    sender, receiver = deflate(), deflate()
    for message in (b"", b"", b"x", b"", b""):
        encoded = sender.encode(text(message))
        assert message or encoded.payload == b"\x00"
        assert receiver.decode(encoded).payload == message


def test_the_examples_of_rfc_7692_are_decoded():
    """RFC 7692, section 7.2.3."""
    receiver = deflate()
    for payload in (b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00"):
        assert receiver.decode(text(payload, rsv1=True)).payload == b"Hello"
    stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"
    assert deflate().decode(text(stored, rsv1=True)).payload == b"Hello"
    final = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
    assert deflate().decode(text(final, rsv1=True)).payload == b"Hello"
    two_blocks = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"
    assert deflate().decode(text(two_blocks, rsv1=True)).payload == b"Hello"


def test_messages_may_follow_one_with_a_final_block():
    receiver = deflate()
    final = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
    for _ in range(3):
        assert receiver.decode(text(final, rsv1=True)).payload == b"Hello"


def test_the_context_is_taken_over_unless_declined():
    message = bytes(range(256)) * 2
    for alone in (False, True):
        sender = deflate(server_no_context_takeover=alone)
        first, second = (len(sender.encode(text(message)).payload) for _ in range(2))
        assert (second == first) if alone else (second < first / 2)


@pytest.mark.parametrize("opcode", [OpCode.CLOSE, OpCode.PING, OpCode.PONG])
def test_control_frames_are_not_changed(opcode):
    extension = deflate()
    frame = Frame(opcode, payload=b"a" * 100)
    assert extension.encode(frame) is frame
    assert extension.decode(frame) is frame


def test_messages_without_rsv1_are_not_changed():
    frame = text(b"plain")
    assert deflate().decode(frame) is frame


def test_the_given_frame_is_not_changed():
    extension = deflate()
    frame = text(b"hello " * 20)
    encoded = extension.encode(frame)
    compressed = encoded.payload
    assert (frame.payload, frame.rsv1) == (b"hello " * 20, False)
    extension.decode(encoded)
    assert (encoded.payload, encoded.rsv1) == (compressed, True)


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x06", b"not deflated at all"])
def test_corrupt_data_is_an_error(payload):
    with pytest.raises(ExtensionError, match="broken") as caught:
        deflate().decode(text(payload, rsv1=True))
    assert caught.value.close_code == 1002
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("bits", [0, 7, 16, -15])
def test_a_window_has_8_to_15_bits(bits):
    with pytest.raises(ValueError, match="8 to 15"):
        deflate(client_max_window_bits=bits)


def test_repr_shows_the_parameters():
    shown = repr(deflate(client_no_context_takeover=True, client_max_window_bits=9))
    assert "client_no_context_takeover=True" in shown
    assert "server_no_context_takeover=False" in shown
    assert "client_max_window_bits=9" in shown


# The limit


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_bomb_takes_no_more_memory_than_the_limit(limit):
    bomb = deflate().encode(text(bytes(64 * 2**20)))
    assert len(bomb.payload) < 70_000
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig):
            deflate().decode(bomb, limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
