"""Servers of raw bytes that break the rules, do not agree, or do not answer; and the end of the stream."""

import asyncio
import socket

import pytest

from duck.contrib.websockets import CloseCode, Frame, OpCode, PerMessageDeflate, ProtocolError
from duck.contrib.websockets.client import ConnectionClosed, HandshakeRefused, InvalidHandshake, connect
from duck.contrib.websockets.testing import connect as connect_in_memory

from ..support.handshake import agreed
from ..support.servers import answering
from ..support.views import Quiet


async def test_the_server_closes_the_stream_first():
    """RFC 6455, section 7.1.1. The client waits for a bounded time."""
    read = asyncio.Event()

    async def serve_one(reader, writer):
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")))
        await reader.readexactly(8)
        writer.write(b"\x88\x02\x03\xe8")
        with pytest.raises(TimeoutError):  # the stream of the client is still open
            async with asyncio.timeout(0.05):
                await reader.read(1)
        read.set()

    async with answering(serve_one) as url, connect(url) as ws:
        pass
    assert read.is_set()
    assert ws.close_code == CloseCode.NORMAL_CLOSURE


@pytest.mark.in_memory
async def test_a_close_frame_of_the_server_that_comes_late_is_waited_for():
    async with connect_in_memory(Quiet) as ws:
        ws.stop_reading()
        await ws.view.send_close(4001, "bye")
        await ws.send_close()
        await asyncio.sleep(Quiet.CLOSE_TIMEOUT / 2)
        ws.resume_reading()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (4001, "bye")


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_waits_for_the_client_to_end_the_stream_gets_the_end_of_tls(tls):
    """Without it, OpenSSL reports a stream that may have been truncated."""

    def serve_one(listener):
        accepted, _ = listener.accept()
        with tls.server.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False) as stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.recv(4096)
            stream.sendall(agreed(head))
            assert stream.recv(4096)[0] == 0x88
            stream.sendall(b"\x88\x02\x03\xe8")
            return stream.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = asyncio.create_task(asyncio.to_thread(serve_one, listener))
        url = f"wss://localhost:{listener.getsockname()[1]}"
        async with connect(url, ssl=tls.client, close_timeout=2) as ws:  # a check for progress each eighth of it
            pass
        assert await served == b""
    assert ws.close_code == CloseCode.NORMAL_CLOSURE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("is_late", [False, True])
async def test_a_message_that_cannot_be_decoded_is_the_reason_before_a_normal_closure(stream, is_late):
    """The close frame is answered before `recv` decompresses the message; an iteration must not end as a normal one."""
    deflate = PerMessageDeflate("permessage-deflate")
    frames = Frame(OpCode.BINARY, payload=deflate.compress(bytes(5000)), rsv1=True).serialize() + b"\x88\x02\x03\xe8"

    async def serve_one(reader, writer):
        head = agreed(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" + frames)
        await reader.read(100)

    async with (
        answering(serve_one) as url,
        connect(url, max_size=1000, max_stream_size=1000, stream=stream) as ws,
    ):
        if is_late:
            await ws.wait_closed()
        with pytest.raises(ConnectionClosed, match="1009 message too big"):
            async for _ in ws:
                pass
    assert ws.close_code == 1009


BREACHES = {
    "masked": (b"\x81\x81abcdx", 1002),
    "reserved bit": (b"\xc1\x01x", 1002),
    "reserved opcode": (b"\x83\x00", 1002),
    "reserved control opcode": (b"\x8b\x00", 1002),
    "fragmented close": (b"\x08\x00", 1002),
    "fragmented ping": (b"\x09\x00", 1002),
    "long ping": (b"\x89\x7e\x00\x7e" + bytes(126), 1002),
    "long length": (b"\x82\x7e\x00\x01x", 1002),
    "negative length": (b"\x82\x7f" + b"\xff" * 8, 1002),
    "continuation of nothing": (b"\x80\x00", 1002),
    "message in a message": (b"\x01\x00\x81\x00", 1002),
    "no UTF-8": (b"\x81\x01\xff", 1007),
    "too big": (b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01", 1009),
    "close code": (b"\x88\x02\x03\xed", 1002),
    "half a close code": (b"\x88\x01\x03", 1002),
    "close reason": (b"\x88\x03\x03\xe8\xff", 1007),
    "nothing": (b"", 1006),
    "half a frame": (b"\x81\x05ab", 1006),
}


@pytest.mark.parametrize(("data", "code"), BREACHES.values(), ids=BREACHES)
async def test_a_breach_by_the_server_is_answered_with_its_close_code(data, code, log):
    told = []

    async def serve_one(reader, writer):
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")) + b"\x81\x02hi" + data)
        if code == 1006:
            writer.close()
        header = await reader.read(2)
        if header:
            payload = await reader.readexactly(4 + (header[1] & 127))
            told.append(int.from_bytes(payload[4:6]) ^ int.from_bytes(payload[:2]))

    async with answering(serve_one) as url, connect(url) as ws:
        assert await ws.recv() == "hi"
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv(timeout=20)
        assert caught.value.code == code
        assert isinstance(caught.value.__cause__, ProtocolError) == (code != 1006)
    assert ws.close_code == code
    assert told == ([] if code == 1006 else [code])
    assert not log()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_of_the_network_is_the_cause_and_in_the_log(stream, caplog):
    caplog.set_level("INFO", "duck")

    async def serve_one(reader, writer):
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")))
        await reader.read(100)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with answering(serve_one) as url, connect(url, stream=stream) as ws:
        await ws.send("hi")
        for call in ws.recv, lambda: ws.send("again"):
            with pytest.raises(ConnectionClosed, match="1006") as caught:
                await call()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        with pytest.raises(ConnectionClosed) as caught:
            async for _ in ws:
                pass
        assert isinstance(caught.value.__cause__, ConnectionResetError)
    (line,) = [line for line in caplog.messages if "[CLOSE]" in line]
    assert "[CLOSE] 1006 [Errno " in line


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 X\r\nRetry-After: 5\r\nContent-Length: 2\r\n\r\nno", HandshakeRefused),
        (b"HTTP/1.1 503 X\r\n\r\nno", HandshakeRefused),
        (b"HTTP/1.1 101 X\r\n\r\n", InvalidHandshake),
        (b"", InvalidHandshake),
        (b"ssh", InvalidHandshake),
    ],
)
async def test_an_answer_other_than_101_is_an_error_with_its_content(answer, error):
    async def serve_one(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with answering(serve_one) as url:
        with pytest.raises(error) as caught:
            await connect(url)
    if error is HandshakeRefused:
        assert (caught.value.status, caught.value.body) == (503, b"no")


async def test_a_silent_server_is_a_timeout_and_an_absent_one_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(TimeoutError, match=r"was not open within 0\.05 seconds"):
            await connect(f"ws://127.0.0.1:{port}", open_timeout=0.05)
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://127.0.0.1:{port}")
