"""Installed programs, for tests with other servers."""

import shutil

import pytest

__all__ = ["NGINX", "program"]

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


def program(name: str) -> str:
    """The path of a program; skips the test if it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
