"""Installed programs, for tests with other servers."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["NGINX", "haproxy", "program", "unavailable"]

NGINX = """
daemon off;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    {server}
}}
"""
"""A configuration of nginx with all its files in `folder`; `server` has the rest."""

_HAPROXY = """
global
    maxconn 100
defaults
    mode {mode}
    timeout connect 10s
    timeout client 30s
    timeout server 30s
    timeout tunnel 30s
frontend clients
    bind fd@{listener}
    default_backend servers
backend servers
    server one {server}
"""


def unavailable(name: str, reason: str) -> NoReturn:
    """Skips the test for want of a program; fails it if DUCK_REQUIRE_NAME=1 is set."""
    variable = f"DUCK_REQUIRE_{name}"
    if os.environ.get(variable, "") not in ("", "0"):
        pytest.fail(f"{variable} is set, but {reason}")
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a program; skips the test if it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def haproxy(folder: Path, server: str, *, mode: str = "http") -> Iterator[tuple[str, int]]:
    """Runs HAProxy with its settings in a folder; yields its address.

    Args:
        server: The address of the server behind it, and the options of HAProxy for it.
    """
    executable, settings = program("haproxy"), folder / "haproxy.cfg"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.write_text(_HAPROXY.format(mode=mode, listener=listener.fileno(), server=server))
        with subprocess.Popen([executable, "-db", "-f", str(settings)], pass_fds=[listener.fileno()]) as process:
            try:
                yield listener.getsockname()
            finally:
                process.terminate()
