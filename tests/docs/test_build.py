"""The documents as Sphinx builds them: without a warning, and with every public name."""

import importlib.util
import subprocess
import sys

import pytest

from .public import PACKAGE, names

VIEW = """
    MAGIC_STRING MAX_BACKOFF MAX_FRAME_SIZE PING_INTERVAL PONG_TIMEOUT RECEIVE_TIMEOUT _heartbeat_loop _receive_loop
    get_sec_accept_key initiate_upgrade_to_ws on_close on_new_frame on_open on_receive read_frame run run_forever
    safe_close send send_binary send_close send_frame send_json send_ping send_pong send_text server sock strictly_async
"""
STATES = ("CLOSED", "INITIATED", "INITIATING", "OPEN")
FIXED = [*(f"{PACKAGE}.WebSocketView.{name}" for name in VIEW.split()), *(f"{PACKAGE}.State.{name}" for name in STATES)]
"""The members that Duck Framework documents of its own package."""


def test_every_public_name_is_in_the_reference(root, tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(root / "docs"), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [page.name for page in tmp_path.rglob("*.html") if "line-block" in page.read_text(encoding="utf-8")]
    assert pages == []  # a table of Markdown in a docstring that is no table in the document
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((tmp_path / "objects.inv").read_bytes(), uri="")
    documented = {name for kind in inventory.data.values() for name in kind}
    assert [name for name in FIXED if name not in documented] == []
    assert [paths[0] for paths, _ in names() if not documented.intersection(paths)] == []
