"""Programs that tests run where they are installed."""

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
"""The settings of an nginx that keeps its files in `folder`, around those of its `server`."""


def program(name: str) -> str:
    """The path of an executable file; skips the test where there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
