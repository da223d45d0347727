"""The states of a connection without I/O, one for each direction.

Sending:

    OPEN -- `prepare_close`, `prepare_response` ---------------> ENDING
    OPEN, ENDING -- a close frame leaves, the stream ends -----> CLOSED

Receiving:

    OPEN -- a close frame comes -------------------------------> UNANSWERED
    any but FAILED -- the peer breaks a rule ------------------> UNANSWERED
    UNANSWERED -- `prepare_response` --------------------------> ANSWERING
    UNANSWERED, ANSWERING -- `respond` to a close frame -------> CLOSED
    UNANSWERED, ANSWERING -- `respond` to a breach ------------> FAILED

The end of the stream is no such state: bytes that came before it may still wait for their answer.
"""

import enum

__all__ = ["Incoming", "Outgoing"]


class Outgoing(enum.Enum):
    """The progress of the sending direction."""

    OPEN = enum.auto()  # messages
    ENDING = enum.auto()  # the rest of what was sent before, and then a close frame; received messages are dropped
    CLOSED = enum.auto()  # nothing


class Incoming(enum.Enum):
    """The progress of the receiving direction."""

    OPEN = enum.auto()  # messages
    UNANSWERED = enum.auto()  # a close frame, or a breach of a rule: `respond` is due
    ANSWERING = enum.auto()  # the same; `respond` follows what was sent before
    CLOSED = enum.auto()  # a close frame, which has been answered
    FAILED = enum.auto()  # a breach of a rule, which the peer has been told
