"""The `duck` command: serves an application, and tells what is installed."""

import argparse
import importlib
import importlib.metadata
import logging
import os
import sys
from typing import Any, NoReturn

from .limits import Limits
from .proxies import Proxies
from .routes import Routes
from .runner import LOOPS, loop_factory, run
from .target import TargetError, load
from .tls import server_context

__all__ = ["main"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class UsageError(Exception):
    """What was asked for cannot be done; the message says what to do."""


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; those of the process when None.

    Returns:
        The exit status: 0, or 2 for what cannot be done.
    """
    options = _parser().parse_args(argv)
    try:
        if options.command == "serve":
            _serve(options)
            return 0
        info: Any = importlib.import_module("duck.contrib.websockets.__main__")
        return info.main() or 0
    except (TargetError, UsageError) as error:
        print(f"duck: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="duck", description="WebSockets served from Python.")
    parser.add_argument("--version", action="version", version=f"duck-websockets {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="tell what is installed, and whether the codec is compiled")
    serve = commands.add_parser("serve", help="serve an application")
    serve.add_argument(
        "target",
        metavar="TARGET",
        help="a Python file, or module[:attribute]; the attribute is urlpatterns by default, "
        "or else the only View class",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=_port, default=8000, help="port; 0 for a free one (%(default)s)")
    serve.add_argument("--uds", metavar="PATH", help="listen on a Unix socket instead")
    serve.add_argument("--ssl-certfile", metavar="FILE", help="encrypt with this certificate (PEM)")
    serve.add_argument("--ssl-keyfile", metavar="FILE", help="its key, where it is in another file")
    serve.add_argument("--loop", choices=LOOPS, default="auto", help="event loop; auto is uvloop if installed")
    serve.add_argument("--log-level", choices=LOG_LEVELS, default="info", help="what is logged (%(default)s)")
    serve.add_argument(
        "--shutdown-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long connections may take to end (%(default)s)",
    )
    serve.add_argument(
        "--max-connections",
        type=_count,
        metavar="N",
        help="connections that may be open; further ones are answered 503 (what the limit of open files allows)",
    )
    serve.add_argument(
        "--max-connections-per-address",
        type=_count,
        metavar="N",
        help="connections that may be open from one address (no limit)",
    )
    serve.add_argument(
        "--trusted-proxies",
        type=_proxies,
        metavar="A,B",
        default=(),
        help="IP addresses and networks of proxies whose X-Forwarded-For and -Proto are taken for true; unix for "
        "whoever comes by --uds",
    )
    return parser


def _serve(options: argparse.Namespace) -> None:
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    urlpatterns = load(options.target)
    try:
        Routes(urlpatterns)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{options.target}: {error}") from error
    try:
        loop_factory(options.loop)
    except ModuleNotFoundError:
        raise UsageError("uvloop is not installed; install it, or use --loop auto") from None
    ssl = _ssl(options)
    try:
        run(
            urlpatterns,
            options.host,
            options.port,
            uds=options.uds,
            ssl=ssl,
            loop=options.loop,
            shutdown_timeout=options.shutdown_timeout,
            limits=Limits(
                connections=options.max_connections,
                connections_per_address=options.max_connections_per_address,
            ),
            trusted_proxies=options.trusted_proxies,
        )
    except OSError as error:
        where = options.uds or f"{options.host}:{options.port}"
        # asyncio repeats the address in `strerror`; a name that is not known has nothing else.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or error
        other = "--uds" if options.uds else "--host or --port"
        raise UsageError(f"cannot listen on {where}: {reason}; choose another {other}") from error


def _ssl(options: argparse.Namespace) -> Any:
    certfile, keyfile = options.ssl_certfile, options.ssl_keyfile
    if not certfile:
        if keyfile:
            raise UsageError("--ssl-keyfile is of no use without --ssl-certfile; give both")
        return None
    for file in filter(None, (certfile, keyfile)):
        if not os.access(file, os.R_OK):
            raise UsageError(f"cannot read {file}; check the path and who may read it")
    try:
        return server_context(certfile, keyfile)
    except OSError as error:
        files = f"{certfile} with {keyfile}" if keyfile else certfile
        raise UsageError(f"cannot use {files}: {error.args[-1]}; give a certificate and its own key, as PEM") from error


def _version() -> str:
    try:
        return importlib.metadata.version("duck-websockets")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return port


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return count


def _proxies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    try:
        Proxies(names)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return names


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds
