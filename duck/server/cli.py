"""The `duck` command: serves an application, runs the clients of `duck.commands`, and shows installed versions."""

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

from duck.commands.arguments import add_bench_options, add_connection_options
from duck.contrib.websockets import __version__
from duck.contrib.websockets.logging import format_address
from duck.stdio import drop_output, prepare_standard_files

from .application.target import current_folder, load
from .arguments import Parser, add_serve_options, log_options, options
from .errors import ServingError
from .listening.accept import BACKLOG
from .listening.sockets import check_listener
from .listening.tls import Certificates
from .process.exposition import prometheus
from .process.loops import LOOPS, loop_factory
from .process.signals import outlast_signals
from .process.systemd import passed_by_systemd
from .runner import run_target
from .workers.supervisor import supervise
from .workers.worker import Job

__all__ = ["main"]


class UsageError(ServingError):
    """The arguments contradict each other or the system."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments; None for those of the process.

    Returns:
        The exit status: 0; 1 after a failure of the application's lifespan or of the output; 2 for an impossible
        request; 130 after SIGINT, unless the server has begun to start.
    """
    prepare_standard_files()
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "serve":
            _serve(arguments)
            outlast_signals()
            return 0
        return _print_results(arguments)
    except KeyboardInterrupt:  # for example during the import of an application
        return 130
    except ServingError as error:
        sys.stderr.write(error.details)
        print(f"duck: {error}", file=sys.stderr)
        return error.status


def _parser() -> Parser:
    parser = Parser(prog="duck", description="WebSockets served from Python.")
    parser.add_argument("--version", action="version", version=f"duck-websockets {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str, details: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}. {details}")

    serve = command("serve", "serve views and pages", "An ASGI application, such as one of FastAPI, needs uvicorn.")
    add_serve_options(serve)
    connect = command(
        "connect",
        "talk to a WebSocket server, line by line",
        "The exit status is 0 after a normal closure, 1 after any other end, and 2 without a connection.",
    )
    add_connection_options(connect)
    bench = command(
        "bench", "measure the speed of an echo server", "It keeps messages in flight, and compares each echo."
    )
    add_bench_options(bench)
    command("info", "show the version, the codec and the compression library")
    return parser


def _print_results(arguments: argparse.Namespace) -> int:
    """Runs a command that prints results. Returns its exit status; 1 if the output cannot be written."""
    try:
        if arguments.command == "info":
            from duck.contrib.websockets.__main__ import main as show_versions

            status = show_versions()
            sys.stdout.flush()
            return status
        from duck.commands import bench, connect

        run = bench.run if arguments.command == "bench" else connect.run
        with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
            return runner.run(run(arguments))
    except OSError as error:
        drop_output()
        if not isinstance(error, BrokenPipeError):
            print(f"duck: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return 1


def _serve(arguments: argparse.Namespace) -> None:
    logs = log_options(arguments)
    logs.apply()
    _name_groups(arguments.groups)
    if arguments.metrics is not None:
        prometheus()
    workers = arguments.workers > 1 or arguments.worker_timeout > 0 or arguments.reload
    if arguments.loop in LOOPS:  # now, because a file beside the application may hide uvloop, or have the other loop
        loop_factory(arguments.loop)
    target = None if workers else load(arguments.target)
    if arguments.proxy_protocol and not arguments.trusted_proxies:
        raise UsageError("--proxy-protocol needs --trusted-proxies: without it any client could claim any address")
    if arguments.uds_mode is not None and arguments.uds is None:
        raise UsageError("--uds-mode is of no use without --uds: it sets the permissions of that Unix socket only")
    make_context = _certificates(arguments)
    try:
        if target is not None:
            run_target(target, options(arguments), _sockets(arguments), make_context, arguments.loop)
        else:
            job = Job(arguments.target, options(arguments), arguments.loop, make_context, logs)
            folders = [current_folder(), Path(arguments.target).parent.absolute()] if arguments.reload else []
            supervise(job, _sockets(arguments), arguments.workers, list(dict.fromkeys(folders)))
    except OSError as error:
        raise _cannot_listen(arguments, error) from error


def _name_groups(url: str | None) -> None:
    """Sets the environment variable DUCK_GROUPS, for this process and the workers."""
    if url is None:
        return
    from duck.contrib.websockets.groups import Groups

    try:
        Groups(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"--groups: {error}") from None
    os.environ["DUCK_GROUPS"] = url


def _cannot_listen(arguments: argparse.Namespace, error: OSError) -> UsageError:
    where, other = format_address((arguments.host or "*", arguments.port)), "--host or --port"
    if arguments.uds is not None:
        where, other = arguments.uds, "--uds"
    return UsageError(f"cannot listen on {where}: {_reason(error)}; choose another {other}")


def _reason(error: OSError) -> object:
    # asyncio repeats the address in `strerror`; the error of an unknown name has no number.
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or error


def _sockets(arguments: argparse.Namespace) -> list[socket.socket]:
    """Returns the sockets that another process has opened for this one."""
    if arguments.uds is not None:
        if arguments.fd is not None:
            raise UsageError("--uds and --fd each say where to listen; give one of them")
        return []
    if arguments.fd is None:
        return [_passed(file, "pass sockets of ListenStream=, without Accept=yes") for file in passed_by_systemd()]
    return [_passed(arguments.fd, "choose another --fd")]


def _passed(file: int, advice: str) -> socket.socket:
    """Takes over a socket. One that cannot listen ends the command rather than each worker."""
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.socket(fileno=file))
            sock.set_inheritable(False)  # a child process that inherited it could keep the address bound
            check_listener(sock)
            sock.listen(BACKLOG)
        except (OSError, ValueError) as error:
            reason = _reason(error) if isinstance(error, OSError) else error
            raise UsageError(f"cannot listen on file descriptor {file}: {reason}; {advice}") from error
        stack.pop_all()
    return sock


def _certificates(arguments: argparse.Namespace) -> Certificates | None:
    if not arguments.ssl_certfile:
        for option in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"):
            if getattr(arguments, option):
                name = "--" + option.replace("_", "-")
                raise UsageError(f"{name} is of no use without --ssl-certfile; give both")
        return None
    password: str | None = arguments.ssl_keyfile_password
    file = None
    if password is not None and password.startswith("@"):
        file, password = password[1:], None
    certificates = Certificates(
        arguments.ssl_certfile, arguments.ssl_keyfile, password, password_file=file, ca_certs=arguments.ssl_ca_certs
    )
    certificates()  # to end the command rather than each worker
    return certificates
