"""Attacks on ASGI that have broken other protocols for uvicorn; `test_attacks_on_hosts.py` has the rest."""

import asyncio

import pytest

from duck.contrib.websockets import Frame, OpCode

from .applications import ACCEPT

pytest.importorskip("uvicorn")


async def test_send_raises_when_the_connection_is_lost_while_it_waits(serving_asgi, dial, until):
    """uvicorn #3050: it never ended."""
    errors = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        with pytest.raises(OSError, match="closed") as raised:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65536)})
        errors.append(raised.value)

    async with serving_asgi(app) as server, dial(server, receive_buffer=4096, read_limit=4096) as peer:
        await peer.head()
        (protocol,) = server.state.connections
        await until(lambda: protocol.transport.get_write_buffer_size() > 65536)
        assert not errors
        peer.reset()
        await until(lambda: errors)


async def test_a_refused_client_that_stays_is_disconnected(serving_asgi, dial, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.uvicorn.WebSocketProtocol.LINGER_TIMEOUT", 0.05)

    async def app(scope, receive, send):
        raise AssertionError("there is nothing to answer")

    async with serving_asgi(app) as server, dial(server, headers={"Sec-WebSocket-Version": "12"}) as peer:
        assert (await peer.head())[0] == 426
        await peer.reader.read()
        with pytest.raises(ConnectionError):
            while True:
                peer.write(bytes(1000))
                await peer.writer.drain()
                await asyncio.sleep(0.01)


async def test_subprotocols_on_several_lines_are_one_list(serving_asgi, dial, http):
    """uvicorn #3019."""
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await receive()
        await send({**ACCEPT, "subprotocol": "three"})

    headers = {"Sec-WebSocket-Protocol": "one,two", "sec-websocket-protocol": " three , four"}
    async with serving_asgi(app, http=http) as server, dial(server, headers=headers) as peer:
        status, answer = await peer.head()
        assert (status, answer["sec-websocket-protocol"]) == (101, "three")
    assert scopes[0]["subprotocols"] == ["one", "two", "three", "four"]


async def test_a_subprotocol_that_would_break_out_of_its_line_is_refused(serving_asgi, dial, caplog):
    """websockets 16.1: a value could add lines to the header."""

    async def app(scope, receive, send):
        await receive()
        with pytest.raises(ValueError, match="invalid header"):
            await send({**ACCEPT, "subprotocol": "chat\r\nSet-Cookie: a=b"})
        await send({**ACCEPT, "subprotocol": "chat"})

    async with serving_asgi(app) as server, dial(server, headers={"Sec-WebSocket-Protocol": "chat"}) as peer:
        status, headers = await peer.head()
        assert (status, headers["sec-websocket-protocol"]) == (101, "chat")
        assert "set-cookie" not in headers
    assert not caplog.records


async def test_headers_of_a_denial_are_sent_once(serving_asgi, dial, http):
    """uvicorn #3041."""

    async def app(scope, receive, send):
        await receive()
        headers = [(b"x-name", "caf\xe9".encode("latin-1")), (b"content-length", b"2")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async with serving_asgi(app, http=http) as server, dial(server) as peer:
        head, body = (await peer.reader.read()).split(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        assert (line, body) == (b"HTTP/1.1 401 Unauthorized", b"no")
        names = [field.split(b":")[0].lower() for field in fields]
        assert len(names) == len(set(names)), fields
        assert b"x-name: caf\xe9" in fields


async def test_connections_share_no_scope(serving_asgi, dial, http):
    """Channels CVE-2020-35681: entries of one connection's scope appeared in that of another."""
    seen = []

    async def app(scope, receive, send):
        seen.append((sorted(scope), dict(scope["state"]), len(scope["headers"]), list(scope["subprotocols"])))
        scope["user"] = scope["state"]["user"] = "somebody"
        scope["headers"].append((b"x-user", b"somebody"))
        scope["subprotocols"].append("somebody")
        scope["extensions"].clear()
        await receive()
        await send(ACCEPT)
        await receive()

    async with serving_asgi(app, http=http) as server, dial(server) as one, dial(server) as other:
        await one.head()
        await other.head()
    assert seen[0] == seen[1]


async def test_anything_received_is_a_sign_of_life(serving_asgi, dial):
    """websockets #1318: a peer that was busy with sending was taken for dead. Here no ping is ever answered."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            pass

    async with serving_asgi(app, ws_ping_interval=0.05, ws_ping_timeout=10) as server, dial(server) as peer:
        await peer.head()
        for sign in ("a message", b"another", Frame(OpCode.TEXT, False, b"a part"), Frame(OpCode.PONG)):
            # Before there is a sign of life, there is no next ping.
            assert (await peer.frame()).opcode == OpCode.PING
            peer.send(sign)
        assert (await peer.frame()).opcode == OpCode.PING
