"""The end of a connection behind a real HAProxy, which ends both directions of a tunnel when the server ends one."""

import asyncio
import json
import subprocess
from collections.abc import Iterator

import pytest
import websockets

from ..support.programs import haproxy
from .conftest import NODE, Kind
from .serving import Server

SIZE = 16 * 1024 * 1024
ROUNDS = 10


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return Kind(request.param, False)


@pytest.fixture(scope="module")
def refusing(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A URL through HAProxy, where messages of more than 1 MiB are refused."""
    with haproxy(tmp_path_factory.mktemp("haproxy"), f"127.0.0.1:{server.port}") as (host, port):
        yield f"ws://{host}:{port}/fail"


async def test_websockets_reads_a_refusal_while_it_sends(refusing):
    async def send():
        async with websockets.connect(refusing, compression=None) as peer:
            with pytest.raises(websockets.ConnectionClosed):
                await peer.send(bytes(SIZE))
                await peer.recv()
        return peer.close_code

    assert await asyncio.gather(*(send() for _ in range(ROUNDS))) == [1009] * ROUNDS


def test_node_reads_a_refusal_while_it_sends(refusing, ws):
    command = ["node", str(NODE / "refused.mjs"), refusing, str(SIZE), str(ROUNDS)]
    done = subprocess.run(command, cwd=ws, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1009] * ROUNDS
