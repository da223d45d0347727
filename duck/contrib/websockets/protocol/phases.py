"""The phases of a connection on its loop.

    CONNECTING -- start ---------------------------------> OPEN
    CONNECTING, OPEN -- nothing is sent any more --------> CLOSING
    CONNECTING, OPEN, CLOSING -- connection_lost --------> LOST
    LOST -- every hook has ended ------------------------> CLOSED

The docstring of `protocol` describes each phase in a table.
"""

import enum

__all__ = ["Phase"]


class Phase(enum.Enum):
    """The progress of a connection; each phase occurs at most once."""

    CONNECTING = enum.auto()  # the handshake has succeeded, but nothing has been received
    OPEN = enum.auto()  # messages go both ways
    CLOSING = enum.auto()  # a close frame has left, or the stream has ended: nothing is sent any more
    LOST = enum.auto()  # the transport is lost, and the last hooks run
    CLOSED = enum.auto()  # every hook has ended
