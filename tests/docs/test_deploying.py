"""The configurations of the guide to deploying, each read by the program that it is for."""

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
import websockets

from duck.server.cli import _parser

from ..interop.serving import serving
from ..support.processes import free_port
from ..support.programs import NGINX, program
from ..support.servers import serving_asgi
from .snippets import ROOT, blocks

GUIDE = ROOT / "docs" / "guides" / "deploying.md"
HOST = "app.example.org"
APP = """
from duck.contrib.websockets import WebSocketView

class Told(WebSocketView):
    async def on_open(self):
        await self.send_json([self.request.client_address[0], self.request.secure, self.request.headers["host"]])
"""


def adapted(language: str, changes: dict[str, str]) -> str:
    """A block of the guide in a language, with changes for the test."""
    (text,) = blocks(GUIDE, language)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A folder with a certificate for HOST and its key as app.pem and app.key; and a context that trusts it."""
    authority, folder = trustme.CA(), tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert(HOST)
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "app.pem")
    issued.private_key_pem.write_to_path(folder / "app.key")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return folder, trust


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that sends each client its address, scheme and host."""
    app = tmp_path_factory.mktemp("app") / "told.py"
    app.write_text(APP)
    with serving(app, "--trusted-proxies", "127.0.0.1", "--health-path", "/healthz") as server:
        yield server.port


@contextmanager
def nginx(folder: Path, certificate: Path, upstream: int, listener: socket.socket) -> Iterator[None]:
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{listener.getsockname()[1]} ssl",
        "/etc/ssl": str(certificate),
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
    }
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, server=adapted("nginx", changes)))
    command = [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    variables = {"NGINX": f"{listener.fileno()};"}  # as a new nginx inherits from an old one
    with running(command, listener, variables):
        yield


@contextmanager
def haproxy(folder: Path, certificate: Path, upstream: int, listener: socket.socket) -> Iterator[None]:
    changes = {
        "bind :443": f"bind fd@{listener.fileno()}",
        "/etc/ssl": str(certificate),
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
    }
    (folder / "haproxy.cfg").write_text("global\n    maxconn 100\n" + adapted("haproxy", changes))
    with running([program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")], listener, {}):
        yield


@contextmanager
def caddy(folder: Path, certificate: Path, upstream: int, listener: socket.socket) -> Iterator[None]:
    port = listener.getsockname()[1]
    listener.close()
    changes = {
        f"{HOST} {{": f"https://{HOST}:{port} {{\n tls {certificate}/app.pem {certificate}/app.key",
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
    }
    options = "{\n admin off\n auto_https disable_redirects\n skip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(options + adapted("caddy", changes))
    command = [program("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    variables = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with running(command, None, variables) as process:
        for line in process.stderr:
            if "serving initial configuration" in line:
                break
        yield


@contextmanager
def running(
    command: list[str], listener: socket.socket | None, variables: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    files = [] if listener is None else [listener.fileno()]
    with subprocess.Popen(
        command,
        env=os.environ | variables,
        pass_fds=files,
        stderr=None if files else subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


async def visit(port: int, trust: ssl.SSLContext) -> None:
    """A page of the public host is accepted, a foreign one is refused, and forged headers are ignored."""

    def connect(origin: str) -> websockets.connect:
        url = f"wss://{HOST}:{port}/"
        forged = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
        return websockets.connect(
            url, host="127.0.0.1", port=port, ssl=trust, origin=origin, additional_headers=forged, proxy=None
        )

    async with connect(f"https://{HOST}:{port}") as peer:
        assert json.loads(await peer.recv()) == ["127.0.0.1", True, f"{HOST}:{port}"]
        await peer.ping()
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with connect("https://evil.test"):
            pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("proxy", [nginx, haproxy, caddy], ids=lambda proxy: proxy.__name__)
def test_a_proxy(proxy: Callable, tmp_path, certificate, upstream):
    folder, trust = certificate
    port = free_port()  # because Caddy takes no socket
    with socket.create_server(("127.0.0.1", port)) as listener, proxy(tmp_path, folder, upstream, listener):
        asyncio.run(visit(port, trust))


def test_uvicorn_behind_nginx(tmp_path, certificate):
    folder, trust = certificate
    names: dict = {}
    exec(APP, names)

    async def scenario():
        async with serving_asgi(names["Told"].as_asgi(), forwarded_allow_ips="127.0.0.1") as server:
            with nginx(tmp_path, folder, server.port, listener):
                await visit(listener.getsockname()[1], trust)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(scenario())


def test_the_deployment_on_kubernetes():
    """The command is valid, and the pod outlives it."""
    yaml = pytest.importorskip("yaml")
    deployment, hook = blocks(GUIDE, "yaml")
    assert yaml.safe_load(textwrap.dedent(hook))["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "10"]
    pod = yaml.safe_load(deployment)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = _parser().parse_args(container["args"][1:])
    assert pod["terminationGracePeriodSeconds"] > options.drain + options.shutdown_timeout
    assert container["readinessProbe"]["httpGet"]["path"] == options.health_path


def test_the_units_of_systemd(tmp_path):
    executable = program("systemd-analyze")
    units = []
    for text in blocks(GUIDE, "ini"):
        unit = tmp_path / re.match(r"# .*/(\S+)\n", text)[1]
        unit.write_text(text.replace("/srv/shout/.venv/bin/duck", "/bin/true"))
        units.append(str(unit))
    assert len(units) == 2
    done = subprocess.run([executable, "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "shout" in line]
    assert said == []
