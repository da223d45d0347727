"""The base of everything that a route can name: `View`, made once for each request."""

from typing import TYPE_CHECKING, Any

from duck.http.request import HttpRequest

__all__ = ["View"]


class View:
    """Answers one request.

    Attributes:
        request: What is asked.
        kwargs: The URL parameters, by the names in the route's pattern.
    """

    def __init__(self, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        self.kwargs = kwargs

    if TYPE_CHECKING:  # an override names the parameters of its route

        def run(self, *args: Any, **kwargs: Any) -> Any: ...

    else:

        def run(self, request: HttpRequest, **kwargs: Any) -> Any:
            """Answer the request; a subclass may make this a coroutine function.

            A plain function runs on the event loop's thread, so it must not block.

            Args:
                request: What is asked; the same as `self.request`.
                kwargs: The URL parameters; the same as `self.kwargs`.

            Returns:
                An `HttpResponse`, or a str or bytes that become the content of one.
            """
            raise NotImplementedError(f"{type(self).__name__} does not define run()")
