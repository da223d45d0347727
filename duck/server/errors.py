"""`ServingError`: the base of errors that `duck serve` reports by a message, without a traceback of this package."""

__all__ = ["ServingError"]


class ServingError(Exception):
    """An application cannot be served; the message says why, and has advice where the user can change that.

    Attributes:
        details: The traceback of an error in the application, from its own first frame on; otherwise empty.
        status: The exit status of `duck serve`.
    """

    status = 2

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
