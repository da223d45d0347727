"""`View`, the base of classes that handle requests. The server creates one object for each request."""

from typing import TYPE_CHECKING, Any

from duck.http.request import HttpRequest

__all__ = ["View"]


class View:
    """Handles one request.

    Attributes:
        request: The request.
        kwargs: The parameters of the URL, by their names in the route.
    """

    def __init__(self, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        self.kwargs = kwargs

    if TYPE_CHECKING:  # an override may have the parameters of its route

        def run(self, *args: Any, **kwargs: Any) -> Any: ...

    else:

        def run(self, request: HttpRequest, **kwargs: Any) -> Any:
            """Answers the request. A subclass may make this a coroutine function.

            A plain function runs in the thread of the event loop, so it must not block.

            Args:
                request: The same as `self.request`.
                kwargs: The same as `self.kwargs`.

            Returns:
                An `HttpResponse`; or its content, as str or bytes.
            """
            raise NotImplementedError(f"{type(self).__name__} does not define run()")
