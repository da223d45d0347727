"""The answers of proxies, and what they get."""

import asyncio
import base64
import sys
from contextlib import suppress

import pytest

from duck.contrib.websockets.client import ProxyError, connect

from ..support.servers import answering
from ..support.views import Echo
from .test_happy_eyeballs import NAME, V4, refusing, resolve_to

OK = b"HTTP/1.1 200 OK\r\n\r\n"


def tunnel(port, *segments):
    """A proxy that answers by several segments of TCP, and then passes on what it reads."""

    async def pump(reader, writer):
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.write_eof()

    async def serve_one(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for segment in segments:
            writer.write(segment)
            for _ in range(10):  # the client reads each one by itself: both ends share the loop
                await asyncio.sleep(0)
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer))
        back.close()

    return answering(serve_one)


@pytest.mark.parametrize(
    "segments",
    [
        [b"HTTP/1.1 200 OK\r\n", b"Via: a proxy\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r", b"\n"],
        [bytes([byte]) for byte in OK],
        [b"HTTP/1.0 200 Connection established\r\n\r\n"],
        [b"HTTP/1.1 204 OK\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + OK],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n", OK],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"],  # without effect
    ],
    ids=repr,
)
async def test_the_whole_head_of_an_answer_is_read(serving, monkeypatch, segments):
    monkeypatch.setitem(sys.modules, "python_socks", None)  # only SOCKS needs it
    async with (
        serving(Echo) as server,
        tunnel(server.port, *segments) as proxy,
        connect(f"ws://127.0.0.1:{server.port}", proxy=proxy.replace("ws", "http")) as ws,
    ):
        await ws.send("quack")
        assert await ws.recv() == "quack"


async def test_a_proxy_may_have_several_addresses(serving, monkeypatch):
    async with serving(Echo) as server, tunnel(server.port, OK) as proxy:
        port = int(proxy.rpartition(":")[2])
        resolve_to((V4, refusing()), (V4, ("127.0.0.1", port)))
        async with connect(f"ws://127.0.0.1:{server.port}", proxy=f"http://{NAME}:{port}") as ws:
            await ws.send("quack")
            assert await ws.recv() == "quack"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "it ended the connection$"),
        (b"HTTP/1.1 200 OK\r\n", "in the middle of its answer"),
        (b"SSH-2.0\r\n\r\n", "not HTTP/1.1: it begins with b'SSH-2.0"),
        (b"HTTP/1.1 0200 OK\r\n\r\n", "the response is not HTTP/1.1"),
        (b"HTTP/1.1 -20 OK\r\n\r\n", "the response is not HTTP/1.1"),
        (b"HTTP/1.1 407\r\n\r\n", "localhost: 407$"),
        (b"HTTP/1.1 502 Bad Gateway\r\nA: b\r\n\r\nsorry", "localhost: 502 Bad Gateway$"),
        (OK + b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "it sent data behind its answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 2**15, "its answer is over 65536 bytes"),
    ],
)
async def test_a_wrong_answer_is_an_error_of_the_proxy(answer, words):
    async def serve_one(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with answering(serve_one) as proxy:
        with pytest.raises(ProxyError, match=f"did not connect to localhost: .*{words}|{words}"):
            await connect("ws://localhost", proxy=proxy.replace("ws", "http"))


async def test_an_answer_that_cannot_be_decoded_is_an_error_of_the_proxy():
    """The address of a SOCKS proxy's end of the connection, as a name."""
    pytest.importorskip("python_socks")

    async def serve_one(reader, writer):
        writer.write(b"\x05\x00" + b"\x05\x00\x00\x03\x01\xff\x00\x00")
        await reader.read()

    async with answering(serve_one) as proxy:
        with pytest.raises(ProxyError, match=r"did not connect to localhost: .*decode"):
            await connect("ws://localhost", proxy=proxy.replace("ws", "socks5"))


async def test_user_and_password_reach_a_proxy_as_utf_8():
    heads = []

    async def serve_one(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))

    async with answering(serve_one) as proxy:
        with pytest.raises(ProxyError):
            await connect("ws://localhost", proxy=proxy.replace("ws://", "http://%C3%A4:%E2%82%AC@"))
    assert b"\r\nProxy-Authorization: Basic " + base64.b64encode("ä:€".encode()) + b"\r\n" in heads[0]


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://a%3Ab:secret@127.0.0.1:1", "has a colon"),
        ("socks5://u:s%C3%A9cret@127.0.0.1:1", "user and password for SOCKS are ASCII"),
        (f"socks5://u:{'s' * 256}@127.0.0.1:1", "user and password for SOCKS are ASCII"),
    ],
)
async def test_credentials_that_no_proxy_can_get_are_invalid(proxy, words):
    with pytest.raises(ValueError, match=words) as caught:
        await connect("ws://localhost", proxy=proxy)
    assert "cret" not in str(caught.value)
