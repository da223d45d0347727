"""websockets, its asyncio server."""

from websockets.asyncio import server

from .options import Options
from .websockets_interface import run_on

__all__ = ["run"]


def run(options: Options) -> None:
    run_on(server, options, compression="deflate" if options.deflate else None)
