"""`duck serve` as a process of its own."""

import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Server", "serving"]

_ANNOUNCEMENT = "listening on "


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        process: To be told to stop.
        port: Its port on localhost.
        trust: The TLS context of a client; None for a server without TLS.
    """

    process: subprocess.Popen[str]
    port: int
    trust: ssl.SSLContext | None = None

    def url(self, path: str) -> str:
        """The URL of a WebSocket."""
        return f"{'wss' if self.trust else 'ws'}://localhost:{self.port}{path}"

    def page(self, path: str) -> str:
        """The URL of a page."""
        return f"{'https' if self.trust else 'http'}://localhost:{self.port}{path}"


@contextmanager
def serving(target: Path, *options: str, trust: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Runs `duck serve` on a free port; at the end SIGTERM must stop it with status 0.

    Args:
        target: The file with the application.
        options: Of the command.
        trust: As for `Server`.
    """
    # -P, or a source tree in the working directory would precede the installed package.
    command = [sys.executable, "-P", "-m", "duck", "serve", str(target), "--port", "0", *options]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith(_ANNOUNCEMENT):
                process.wait()
                log.seek(0)
                raise RuntimeError(f"duck serve did not start: {line}{log.read()}")
            port = urlsplit(line.removeprefix(_ANNOUNCEMENT).strip()).port
            assert port is not None
            yield Server(process, port, trust)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
