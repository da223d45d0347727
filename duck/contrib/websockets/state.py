"""`State`: the phases of a connection, as a view or a client sees them."""

import enum

__all__ = ["State"]


class State(enum.IntEnum):
    """State of a view or a client."""

    INITIATING = -1  # during the handshake
    CLOSED = 0  # not begun, refused, or ended
    OPEN = 1  # from `on_open` to the end
    INITIATED = 2  # the 101 response has been sent

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):  # those of the enum
            raise AttributeError(f"a State is shared by all connections: set {name!r} on the view or the client itself")
        super().__setattr__(name, value)
