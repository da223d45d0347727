"""HTTP messages: the request of a view and its response."""

from .request import Headers, HttpRequest
from .response import HttpResponse

__all__ = ["Headers", "HttpRequest", "HttpResponse"]
