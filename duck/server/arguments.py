"""The command line of `duck serve`: its options in the groups of the help text, and the parsing of their values."""

import argparse
import sys
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from typing import Any, NoReturn

from duck.commands.arguments import number

from .addresses import split_address
from .http.allowed_hosts import AllowedHosts, checked_origins
from .http.proxies import Proxies
from .limits import Limits
from .options import Options
from .process.log_config import LogOptions
from .process.loops import LOOPS

__all__ = ["Parser", "add_serve_options", "log_options", "options"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, with a reference to the help."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Rejects unknown arguments here, because the parent command would refer to its own help."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Declares the target and all options of `duck serve`."""
    parser.usage = "duck serve [OPTION]... TARGET"
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a Python file or a module; TARGET:ATTRIBUTE serves one attribute of it, "
        "otherwise urlpatterns or the only view is served",
    )
    _add_addresses(parser.add_argument_group("addresses"))
    _add_tls(parser.add_argument_group("TLS"))
    _add_proxies(parser.add_argument_group("proxies"))
    _add_browsers(parser.add_argument_group("browsers"))
    _add_limits(parser.add_argument_group("limits"))
    _add_logging(parser.add_argument_group("logging"))
    _add_metrics(parser.add_argument_group("metrics"))
    _add_process(parser.add_argument_group("process"))
    _add_shutdown(parser.add_argument_group("shutdown"))


def options(arguments: argparse.Namespace) -> Options:
    """Returns the serving options. The `dest` of each argument is the name of its field in `Options` or `Limits`."""
    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    values = {field.name: getattr(arguments, field.name) for field in fields(Options) if field.name != "limits"}
    return Options(**values, limits=limits)


def log_options(arguments: argparse.Namespace) -> LogOptions:
    """Returns the logging options."""
    return LogOptions(arguments.log_level, arguments.access_log, arguments.log_config, of_many=arguments.workers > 1)


def _add_addresses(group: Any) -> None:
    group.add_argument(
        "--host",
        type=_host,
        default="127.0.0.1",
        help="address or name to listen on; * for every interface, by IPv4 and IPv6 (%(default)s)",
    )
    group.add_argument("--port", type=_port, default=8000, help="port; 0 for a free one (%(default)s)")
    group.add_argument("--uds", metavar="PATH", help="listen on a Unix socket instead")
    group.add_argument(
        "--uds-mode",
        type=_mode,
        metavar="MODE",
        help="permissions of that socket, in octal (666, or those of the socket that it replaces)",
    )
    group.add_argument(
        "--fd",
        type=_file,
        metavar="N",
        help="listen on this file descriptor of a bound socket instead; sockets of systemd need no option",
    )


def _add_tls(group: Any) -> None:
    group.description = "SIGHUP reloads the files for new connections."
    group.add_argument("--ssl-certfile", metavar="FILE", help="certificate (PEM); with it the server accepts TLS only")
    group.add_argument("--ssl-keyfile", metavar="FILE", help="key of the certificate, if it is in another file")
    group.add_argument(
        "--ssl-keyfile-password",
        metavar="PASSWORD",
        help="password of the key; @FILE reads it from the first line of a file, so that no list of processes shows it",
    )
    group.add_argument(
        "--ssl-ca-certs", metavar="FILE", help="clients need a certificate of one of these authorities (PEM)"
    )


def _add_proxies(group: Any) -> None:
    group.add_argument(
        "--trusted-proxies",
        type=_proxies,
        metavar="A,B",
        default=(),
        help="addresses and networks of proxies whose X-Forwarded-For, -Proto and -Host, or else Forwarded, are "
        "believed; unix trusts every client of --uds",
    )
    group.add_argument(
        "--proxy-protocol",
        action="store_true",
        help="connections of trusted proxies begin with a header of the PROXY protocol, version 1 or 2",
    )


def _add_browsers(group: Any) -> None:
    group.add_argument(
        "--allowed-origins",
        type=_origins,
        metavar="A,B",
        help="origins whose pages may connect to views without ALLOWED_ORIGINS, such as https://example.org, "
        "https://*.example.org for its subdomains, or *",
    )
    group.add_argument(
        "--allowed-hosts",
        type=_hosts,
        metavar="A,B",
        default=(),
        help="names of the server, such as localhost and *.example.org; requests for other hosts get 421",
    )


def _add_limits(group: Any) -> None:
    defaults = Limits()

    def add(option: str, dest: str, words: str, **kwargs: Any) -> None:
        group.add_argument(option, dest=dest, default=getattr(defaults, dest), help=words, **kwargs)

    seconds: dict[str, Any] = {"type": _seconds, "metavar": "SECONDS"}
    count: dict[str, Any] = {"type": _count, "metavar": "N"}
    size: dict[str, Any] = {"type": _count, "metavar": "BYTES"}
    add(
        "--max-connections",
        "connections",
        "open connections; further ones get 503 (as many as the limit of open files allows)",
        **count,
    )
    add(
        "--max-connections-per-address",
        "connections_per_address",
        "open connections of one address; further ones get 503 (no limit)",
        **count,
    )
    add(
        "--head-timeout",
        "head_timeout",
        "time for a TLS handshake, for the first request, and for the arrival of each request; then 408 (%(default)s)",
        **seconds,
    )
    add("--keep-alive-timeout", "keep_alive_timeout", "wait for the next request (%(default)s)", **seconds)
    add("--linger-timeout", "linger_timeout", "time for a refused client to read the answer (%(default)s)", **seconds)
    add("--head-size", "head_size", "size of the head of a request; beyond it 431 (%(default)s)", **size)
    add("--header-count", "header_count", "header fields of a request; beyond them 431 (%(default)s)", **count)
    add("--body-size", "body_size", "size of the body of a POST request; beyond it 413 (%(default)s)", **size)


def _add_logging(group: Any) -> None:
    group.add_argument("--log-level", type=str.lower, choices=LOG_LEVELS, help="lowest level that is logged (info)")
    group.add_argument(
        "--access-log",
        action=argparse.BooleanOptionalAction,
        help="log a line for each page and each handshake at any log level (no)",
    )
    group.add_argument(
        "--log-config",
        metavar="FILE",
        help="configure logging by a .json or .toml file for logging.config.dictConfig, or an INI file for fileConfig",
    )


def _add_metrics(group: Any) -> None:
    group.add_argument(
        "--metrics",
        type=_address,
        metavar="HOST:PORT",
        help="address that serves the numbers of connections as /metrics for Prometheus; with workers, their sum",
    )


def _add_process(group: Any) -> None:
    group.add_argument(
        "--loop",
        type=_loop,
        metavar="LOOP",
        default="auto",
        help=f"event loop: {', '.join(LOOPS)}, or MODULE:FACTORY; auto is uvloop if installed",
    )
    group.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        default=1,
        help="processes that serve, each with its own event loop, limits and lifespan; SIGHUP replaces them one "
        "after the other, and the new ones import the application anew (%(default)s)",
    )
    group.add_argument(
        "--startup-timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="time for a worker to import the application and to start its lifespan (%(default)s)",
    )
    group.add_argument(
        "--worker-timeout",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="time after which a worker whose event loop is blocked is ended, with its traceback, and replaced; 0 for "
        "no limit (%(default)s)",
    )
    group.add_argument(
        "--groups",
        metavar="URL",
        help="the value of the environment variable DUCK_GROUPS, for an application with "
        "Groups(os.environ.get('DUCK_GROUPS')): redis://HOST:PORT, rediss://, unix://PATH, redis+cluster:// or "
        "redis+sentinel://",
    )
    group.add_argument(
        "--reload",
        action="store_true",
        help="for development: replace the workers when a Python file changes in the current folder or the target's",
    )


def _add_shutdown(group: Any) -> None:
    group.description = "SIGINT or SIGTERM starts the shutdown; another one, a second later, ends the process at once."
    group.add_argument(
        "--drain",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="close WebSockets one after the other over this time, so that clients do not return all at once; "
        "handshakes get 503 meanwhile (%(default)s)",
    )
    group.add_argument(
        "--shutdown-timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="time for handlers and connections to end after --drain, and then for the lifespan (%(default)s)",
    )
    group.add_argument(
        "--shutdown-code",
        type=int,
        choices=(1001, 1012),
        default=1001,
        help="close code for clients; 1012 announces a restart (%(default)s)",
    )
    group.add_argument(
        "--health-path",
        type=_path,
        metavar="PATH",
        help="path of health checks: 200, and 503 once shutdown has begun",
    )


# Parsers of option values; see `number`.

_port = number(int, 0, 65535, "a port, 0 to 65535")
_file = number(int, 0, sys.maxsize, "a file descriptor")
_mode = number(partial(int, base=8), 0, 0o777, "a mode in octal, such as 660")
_count = number(int, 1, sys.maxsize, "a positive whole number")
_seconds = number(float, 0, sys.float_info.max, "a number of seconds")


def _host(text: str) -> str | None:
    if not text:
        raise argparse.ArgumentTypeError("give an address or a name, or * for every interface")
    name = text.removeprefix("[").removesuffix("]")
    if "/" in name or name.count(":") == 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a host: give its address or name alone, and use --port")
    return None if text == "*" else name


def _path(text: str) -> str:
    if not (text.startswith("/") and text.isprintable()) or {*text} & {*"<>?#% "}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path, such as /healthz")
    return text


def _address(text: str) -> str:
    try:
        split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _loop(text: str) -> str:
    if text not in LOOPS and ":" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(LOOPS)}, or MODULE:FACTORY")
    return text


def _names(check: Callable[[Collection[str]], object]) -> Callable[[str], Collection[str]]:
    """Returns a parser of a comma-separated list of names."""

    def read(text: str) -> Collection[str]:
        names = [name.strip() for name in text.split(",")]
        try:
            check(names)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return names

    return read


_proxies = _names(Proxies)
_origins = _names(checked_origins)
_hosts = _names(AllowedHosts)
