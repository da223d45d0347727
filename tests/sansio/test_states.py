"""The states of a connection move only along the table in `states`, for any events in any order."""

from hypothesis import example, given
from hypothesis import strategies as st

from duck.contrib.websockets.exceptions import ExtensionError
from duck.contrib.websockets.sansio.connection import Connection
from duck.contrib.websockets.sansio.states import Incoming, Outgoing

SENDING = {
    Outgoing.OPEN: {Outgoing.ENDING, Outgoing.CLOSED},
    Outgoing.ENDING: {Outgoing.CLOSED},
    Outgoing.CLOSED: set(),
}
RECEIVING = {
    Incoming.OPEN: {Incoming.UNANSWERED},
    Incoming.UNANSWERED: {Incoming.ANSWERING, Incoming.CLOSED, Incoming.FAILED},
    Incoming.ANSWERING: {Incoming.UNANSWERED, Incoming.CLOSED, Incoming.FAILED},
    Incoming.CLOSED: {Incoming.UNANSWERED},
    Incoming.FAILED: set(),
}


def respond_later(connection):
    if connection.needs_response and connection.is_writable:
        connection.prepare_response()


EVENTS = {
    "message": lambda connection: connection.receive(b"\x81\x80abcd"),
    "close frame": lambda connection: connection.receive(b"\x88\x80abcd"),
    "invalid close frame": lambda connection: connection.receive(b"\x88\x81abcd\0"),
    "breach": lambda connection: connection.receive(b"\x83\x80abcd"),
    "not decoded": lambda connection: connection.refuse(ExtensionError("wrong")),
    "respond": Connection.respond,
    "respond later": respond_later,
    "close": Connection.close,
    "close later": lambda connection: connection.prepare_close(1000, "") if connection.is_open else None,
    "end of stream": Connection.receive_eof,
}


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=8))
@example(["close later", "close frame", "respond later", "not decoded", "respond", "close"])
@example(["close frame", "respond", "not decoded", "respond"])
def test_states_move_as_their_tables_say(events):
    connection = Connection()
    for event in events:
        outgoing, incoming = connection.outgoing, connection.incoming
        EVENTS[event](connection)
        assert connection.outgoing is outgoing or connection.outgoing in SENDING[outgoing]
        assert connection.incoming is incoming or connection.incoming in RECEIVING[incoming]
        assert connection.outgoing is Outgoing.CLOSED or not (connection.writer.closed or connection.ended)
        assert (connection.incoming is Incoming.FAILED) == (connection.failed is not None)
        assert connection.incoming is not Incoming.CLOSED or connection.received_close is not None
        assert connection.incoming in (Incoming.OPEN, Incoming.UNANSWERED, Incoming.ANSWERING) or connection.is_over
    assert b"".join(map(bytes, connection.take_outgoing())).count(b"\x88") <= 1
