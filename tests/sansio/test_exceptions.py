"""Errors, and the close codes that they carry."""

import copy
import pickle

import pytest

from duck.contrib.websockets import exceptions
from duck.contrib.websockets.codec import pure
from duck.contrib.websockets.exceptions import (
    BrokerError,
    ConnectionClosed,
    ExtensionError,
    HandshakeError,
    HandshakeRefused,
    InvalidHandshake,
    PayloadTooBig,
    ProtocolError,
    codec_error,
)
from duck.contrib.websockets.sansio.response import ResponseHeaders


@pytest.mark.parametrize("name", exceptions.__all__)
def test_all_errors_have_one_base(name):
    assert issubclass(getattr(exceptions, name), exceptions.BaseException)
    assert issubclass(exceptions.BaseException, Exception)


def test_errors_carry_their_close_codes():
    assert ProtocolError().close_code == 1002
    assert ProtocolError("why", 1007).close_code == 1007
    assert PayloadTooBig().close_code == 1009
    assert ExtensionError().close_code == 1002
    assert str(PayloadTooBig("why")) == "why"


def test_payload_too_big_is_a_protocol_error():
    assert issubclass(PayloadTooBig, ProtocolError)


def test_connection_closed_has_code_and_reason():
    error = ConnectionClosed(4000, "enough")
    assert (error.code, error.reason) == (4000, "enough")
    assert str(error) == "the connection is closed: 4000 enough"
    assert str(ConnectionClosed()) == "the connection is closed: 1006"


def test_connection_closed_is_a_connection_error():
    assert issubclass(ConnectionClosed, ConnectionError)


def test_handshake_error_is_an_http_answer():
    error = HandshakeError(405, "GET only", (("Allow", "GET"),))
    assert (error.status, str(error), error.headers) == (405, "GET only", (("Allow", "GET"),))
    assert error.body == b"GET only\n"
    error = HandshakeError(302, headers={"Location": "/login"})
    assert (error.headers, error.body) == ((("Location", "/login"),), b"")
    assert HandshakeError(403, "no", body="nö").body == "nö".encode()
    with pytest.raises(ValueError, match="from 200 to 599, not 101"):
        HandshakeError(101)
    with pytest.raises(TypeError, match=r"is an int, not 'no': write HandshakeError\(403"):
        HandshakeError("no")
    with pytest.raises(TypeError, match="give bytes as body="):
        HandshakeError(403, b"no")
    with pytest.raises(TypeError, match="is a str or bytes, not dict"):
        HandshakeError(403, body={})


NUMBERS = {
    "RESERVED_BITS": 1002,
    "RESERVED_OPCODE": 1002,
    "FRAME_NOT_MASKED": 1002,
    "FRAME_MASKED": 1002,
    "FRAGMENTED_CONTROL": 1002,
    "LONG_CONTROL": 1002,
    "LENGTH_NOT_MINIMAL": 1002,
    "LENGTH_TOP_BIT": 1002,
    "TOO_BIG": 1009,
    "UNEXPECTED_CONTINUATION": 1002,
    "UNFINISHED_MESSAGE": 1002,
    "INVALID_UTF8": 1007,
    "TOO_MANY_EMPTY_FRAGMENTS": 1008,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_codec_error_has_its_close_code_and_reason(name):
    error = codec_error(getattr(pure, name))
    assert error.close_code == NUMBERS[name]
    assert isinstance(error, PayloadTooBig) is (NUMBERS[name] == 1009)
    assert 0 < len(str(error).encode()) <= 123


def test_codec_errors_have_distinct_reasons():
    words = {str(codec_error(number)) for number in range(1, len(NUMBERS) + 1)}
    assert len(words) == len(NUMBERS)


def test_the_table_has_every_codec_error():
    with pytest.raises(KeyError):
        codec_error(len(NUMBERS) + 1)


class LoginRequired(HandshakeError):
    def __init__(self):
        super().__init__(401, "log in", headers={"WWW-Authenticate": "Basic"}, body=b"no")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosed(4000, "enough"),
        ProtocolError("why", 1007),
        PayloadTooBig(),
        BrokerError("why", not_published=True),
        HandshakeError(403, "why", fields=("Origin",), setting="ALLOWED_ORIGINS"),
        LoginRequired(),
        HandshakeRefused("why", 403, ResponseHeaders([("A", "b")]), b"body"),
        InvalidHandshake("why"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_are_copied_and_pickled(error, again):
    error.add_note("a note")
    copied = again(error)
    assert type(copied) is type(error)
    assert (str(copied), repr(copied)) == (str(error), repr(error))
    assert {**vars(copied), "headers": None} == {**vars(error), "headers": None}
    assert list(getattr(copied, "headers", ())) == list(getattr(error, "headers", ()))
