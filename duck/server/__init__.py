"""The embedded server: hosts WebSocket views, and the few pages that belong to them, on asyncio."""

import duck
from duck import _duckframework

if getattr(duck, "__distribution__", None) != "duck-websockets":  # the imports below would fail obscurely
    raise ImportError(_duckframework.EXPLANATION)

from .limits import Limits
from .runner import run
from .server import Server
from .serving import serve

__all__ = ["Limits", "Server", "run", "serve"]
