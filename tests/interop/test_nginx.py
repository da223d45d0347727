"""`duck serve` behind a real nginx, which replaces Host and reports the client's Host in other fields."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from duck.contrib.websockets import client

from ..support.programs import NGINX, program
from .serving import serving

APP = """
from duck.contrib.websockets import WebSocketView

class Told(WebSocketView):
    async def on_open(self):
        await self.send_json([*self.request.client_address, self.request.secure, self.request.headers["host"]])
"""

FIELDS = {
    "X-Forwarded": """
        proxy_set_header X-Forwarded-For "$remote_addr:$remote_port";
        proxy_set_header X-Forwarded-Proto https;
        proxy_set_header X-Forwarded-Host $http_host;
    """,
    "Forwarded": """
        proxy_set_header Forwarded '$http_forwarded, for="$remote_addr:$remote_port";proto=https;host="$http_host"';
    """,
}

SERVER = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            {fields}
        }}
    }}
"""


@pytest.fixture(params=FIELDS)
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of nginx."""
    executable = program("nginx")
    app = tmp_path / "told.py"
    app.write_text(APP)
    settings = tmp_path / "nginx.conf"
    with (
        serving(app, "--trusted-proxies", "127.0.0.1") as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        port: int = listener.getsockname()[1]
        inner = SERVER.format(port=port, upstream=server.port, fields=FIELDS[request.param])
        settings.write_text(NGINX.format(folder=tmp_path, server=inner))
        command = [executable, "-p", str(tmp_path), "-c", str(settings)]
        environment = os.environ | {"NGINX": f"{listener.fileno()};"}  # as a new nginx inherits from an old one
        with subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()]) as process:
            try:
                yield port
            finally:
                process.terminate()


def connect(port: int, origin: str, **headers: str) -> websockets.connect:
    return websockets.connect(
        "ws://app.example.org/",
        host="127.0.0.1",
        port=port,
        origin=websockets.Origin(origin),
        additional_headers=headers,
    )


async def test_a_page_of_the_host_that_nginx_was_asked_for_connects(port):
    # The client's own field is ignored.
    async with connect(port, "https://app.example.org", Forwarded='for=192.0.2.1;host="evil.test') as peer:
        told = json.loads(await peer.recv())
        assert told == [*peer.local_address[:2], True, "app.example.org"]


@pytest.mark.parametrize("origin", ["https://evil.test", "http://app.example.org"])
async def test_a_page_of_another_origin_is_refused_behind_nginx(port, origin):
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with connect(port, origin):
            pass
    assert caught.value.response.status_code == 403


async def test_our_client_connects_through_nginx(port):
    async with client.connect(f"ws://127.0.0.1:{port}/", headers={"X-A": "b"}) as ws:
        assert ws.extensions
        assert json.loads(await ws.recv(timeout=10))[0] == "127.0.0.1"
    assert ws.close_code == 1000
