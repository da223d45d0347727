"""The `duck` command: serves an application, and tells what is installed."""

import argparse
import importlib
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duck.contrib.websockets import __version__
from duck.contrib.websockets.logging import access_logger

from .listen import passed_by_systemd
from .options import Parser, add_serve_options, limits
from .routes import Routes
from .runner import loop_factory, outlast_signals, run
from .target import TargetError, load
from .tls import server_context

__all__ = ["main"]


class UsageError(Exception):
    """What was asked for cannot be done; the message says what to do."""


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
            outlast_signals()
            return 0
        info: Any = importlib.import_module("duck.contrib.websockets.__main__")
        return info.main() or 0
    except (TargetError, UsageError) as error:
        sys.stderr.write(getattr(error, "details", ""))
        print(f"duck: {error}", file=sys.stderr)
        return 2


def _parser() -> Parser:
    parser = Parser(prog="duck", description="WebSockets served from Python.")
    parser.add_argument("--version", action="version", version=f"duck-websockets {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="tell what is installed, and whether the codec is compiled")
    add_serve_options(commands.add_parser("serve", help="serve an application"))
    return parser


def _serve(options: argparse.Namespace) -> None:
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    access_logger.setLevel(logging.INFO if options.access_log else logging.CRITICAL)
    urlpatterns = load(options.target)
    try:
        Routes(urlpatterns)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{options.target}: {error}") from error
    try:
        loop_factory(options.loop)
    except ModuleNotFoundError:
        raise UsageError("uvloop is not installed; install it, or use --loop auto") from None
    if options.proxy_protocol and not options.trusted_proxies:
        raise UsageError("--proxy-protocol needs --trusted-proxies: anybody else could claim to be anybody")
    make_context = _ssl(options)
    try:
        run(
            urlpatterns,
            None if options.host == "*" else options.host,
            options.port,
            uds=options.uds,
            uds_mode=options.uds_mode,
            sockets=_sockets(options),
            ssl=make_context,
            loop=options.loop,
            shutdown_timeout=options.shutdown_timeout,
            shutdown_code=options.shutdown_code,
            limits=limits(options),
            trusted_proxies=options.trusted_proxies,
            proxy_protocol=options.proxy_protocol,
            allowed_hosts=options.allowed_hosts,
            allowed_origins=options.allowed_origins,
        )
    except OSError as error:
        where, other = f"{options.host}:{options.port}", "--host or --port"
        if options.uds is not None:
            where, other = options.uds, "--uds"
        elif options.fd is not None:
            where, other = f"file descriptor {options.fd}", "--fd"
        # asyncio repeats the address in `strerror`; a name that is not known has nothing else.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or error
        raise UsageError(f"cannot listen on {where}: {reason}; choose another {other}") from error


def _sockets(options: argparse.Namespace) -> list[socket.socket]:
    """The sockets that somebody else has opened for us."""
    if options.uds is not None:
        if options.fd is not None:
            raise UsageError("--uds and --fd each say where to listen; give one of them")
        return []
    return passed_by_systemd() if options.fd is None else [socket.socket(fileno=options.fd)]


def _ssl(options: argparse.Namespace) -> Callable[[], ssl.SSLContext] | None:
    certfile, keyfile, ca_certs = options.ssl_certfile, options.ssl_keyfile, options.ssl_ca_certs
    if not certfile:
        for option in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"):
            if getattr(options, option):
                name = "--" + option.replace("_", "-")
                raise UsageError(f"{name} is of no use without --ssl-certfile; give both")
        return None
    password, at, file = (options.ssl_keyfile_password or "").partition("@")
    password_file = file if at and not password else None
    for name in filter(None, (certfile, keyfile, ca_certs, password_file)):
        if not os.access(name, os.R_OK):
            raise UsageError(f"cannot read {name}; check the path and who may read it")

    def make_context() -> ssl.SSLContext:
        password = options.ssl_keyfile_password
        if password_file is not None:
            password = Path(password_file).read_text().partition("\n")[0]
        return server_context(certfile, keyfile, password, ca_certs)

    try:
        make_context()
    except OSError as error:
        files = f"{certfile} with {keyfile}" if keyfile else certfile
        raise UsageError(f"cannot use {files}: {error.args[-1]}; give a certificate and its own key, as PEM") from error
    return make_context
