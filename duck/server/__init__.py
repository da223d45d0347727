"""The embedded server: hosts WebSocket views, and the few pages that belong to them, on asyncio."""

from .limits import Limits
from .runner import run
from .server import Server, serve

__all__ = ["Limits", "Server", "run", "serve"]
