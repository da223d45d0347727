"""HTTP messages: what a view is asked, and what it answers."""

from .request import Headers, HttpRequest
from .response import HttpResponse

__all__ = ["Headers", "HttpRequest", "HttpResponse"]
