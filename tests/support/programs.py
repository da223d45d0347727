"""Installed programs, for tests with other servers."""

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["NGINX", "program", "unavailable"]

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
