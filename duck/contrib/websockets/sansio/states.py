"""The states of a connection without I/O, one for each direction.

Sending:

    OPEN -- `prepare_close`, `prepare_response` ---------------> ENDING
    OPEN, ENDING -- a close frame leaves, the stream ends -----> CLOSED

Receiving:

    OPEN -- a close frame is received -------------------------> UNANSWERED
    any but FAILED -- the peer breaks a rule ------------------> UNANSWERED
    UNANSWERED -- `prepare_response` --------------------------> ANSWERING
    UNANSWERED, ANSWERING -- `respond` to a close frame -------> CLOSED
    UNANSWERED, ANSWERING -- `respond` to a breach ------------> FAILED

The end of the stream is not one of these states, because bytes received before it may still wait for their answer.
"""

import enum

__all__ = ["Incoming", "Outgoing"]


class Outgoing(enum.Enum):
    """The state of the sending direction."""

    OPEN = enum.auto()  # messages may be sent
    ENDING = enum.auto()  # queued messages leave, and then a close frame; received messages are dropped
    CLOSED = enum.auto()  # nothing more leaves


class Incoming(enum.Enum):
    """The state of the receiving direction."""

    OPEN = enum.auto()  # messages are received
    UNANSWERED = enum.auto()  # a close frame or a breach of a rule has been received: `respond` is due
    ANSWERING = enum.auto()  # the same; `respond` follows after the queued messages have left
    CLOSED = enum.auto()  # a close frame has been received and answered
    FAILED = enum.auto()  # a breach of a rule has been answered by a close frame
