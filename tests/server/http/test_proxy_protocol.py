"""The PROXY protocol: its two headers, and a server behind proxies that send one, a real HAProxy among them."""

import asyncio
import ipaddress
import re
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.server import Limits, serve
from duck.server.http.proxy_protocol import SIGNATURES, Header, parse
from duck.urls import path

from ...support.programs import haproxy

PORTS = st.integers(0, 65535)
PAIRS = st.sampled_from([4, 6]).flatmap(lambda version: st.tuples(*[st.ip_addresses(v=version)] * 2))
TLVS = st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind != 0x20), st.binary(max_size=300)), max_size=3)

GET = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


def version_1(source, destination, ports):
    return f"PROXY TCP{source.version} {source} {destination} {ports[0]} {ports[1]}\r\n".encode()


def version_2(body, family, command=0x21):
    return SIGNATURES[1] + struct.pack("!BBH", command, family, len(body)) + body


def addresses(source, destination, ports):
    return source.packed + destination.packed + struct.pack("!HH", *ports)


def vectors(tlvs):
    return b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs)


def family(source):
    return 0x11 if source.version == 4 else 0x21


ONE, TWO = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2")
HEADERS = [version_1(ONE, TWO, (4711, 80)), version_2(addresses(ONE, TWO, (4711, 80)), 0x11)]


def comes_only_whole(header, rest, expected):
    """Asserts that a header is parsed once it is whole, also with bytes after it, and not before."""
    for size in range(len(header)):
        assert parse(header[:size]) is None
    assert parse(header) == parse(header + rest) == expected


@given(PAIRS, st.tuples(PORTS, PORTS), st.binary())
def test_a_header_of_version_1_is_parsed_once_whole(pair, ports, rest):
    header = version_1(*pair, ports)
    comes_only_whole(header, rest, Header(len(header), (str(pair[0]), ports[0])))


@given(PAIRS, st.tuples(PORTS, PORTS), TLVS, st.booleans(), st.binary())
def test_a_header_of_version_2_is_parsed_once_whole(pair, ports, tlvs, secure, rest):
    if secure:
        tlvs = [*tlvs, (0x20, b"\x01\0\0\0\0")]
    header = version_2(addresses(*pair, ports) + vectors(tlvs), family(pair[0]))
    comes_only_whole(header, rest, Header(len(header), (str(pair[0]), ports[0]), secure))


@given(st.binary(), st.binary())
def test_any_bytes_are_a_header_or_an_error(start, rest):
    for data in (start, *(signature + start + rest for signature in SIGNATURES)):
        try:
            header = parse(data)
        except ValueError:
            continue
        assert header is None or 0 < header.size <= len(data)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        version_2(b"", 0, 0x20),
        version_2(addresses(ONE, TWO, (1, 2)), 0x11, 0x20),
        version_2(b"whatever", 0x00),
    ],
)
def test_a_connection_of_the_proxy_itself_has_no_address(header):
    comes_only_whole(header, b"more", Header(len(header)))


def test_a_client_of_a_unix_socket_has_its_path():
    header = version_2(b"/run/client".ljust(108, b"\0") + bytes(108), 0x31)
    assert parse(header) == Header(len(header), "/run/client")


@pytest.mark.parametrize(
    "header",
    [
        GET,
        b"PROXY \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.300 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        version_2(addresses(ONE, TWO, (1, 2)), 0x11, 0x11),
        version_2(addresses(ONE, TWO, (1, 2)), 0x11, 0x22),
        version_2(addresses(ONE, TWO, (1, 2))[:-1], 0x11),
        version_2(addresses(ONE, TWO, (1, 2)), 0x21),
        version_2(addresses(ONE, TWO, (1, 2)), 0x41),
        version_2(addresses(ONE, TWO, (1, 2)) + b"\x01\0", 0x11),
        version_2(addresses(ONE, TWO, (1, 2)) + b"\x01\0\x05abc", 0x11),
    ],
)
def test_an_invalid_header_is_refused(header):
    with pytest.raises(ValueError):
        parse(header)


# A server


def who(request):
    return f"{request.client_address} {request.secure}"


def serving(**options):
    options = {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True} | options
    return serve([path("/", who)], port=0, **options)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("together", [True, False])
async def test_the_client_in_the_header_is_that_of_the_request(connect, header, together):
    async with serving() as server, connect(server) as client:
        if together:
            client.send(header + GET)
        else:
            client.writer.transport.set_write_buffer_limits(0)
            for at in range(len(header)):
                client.send(header[at : at + 1])
                await client.writer.drain()
                await asyncio.sleep(0)
            client.send(GET)
        assert (await client.response()).body == b"('192.0.2.1', 4711) False"


@pytest.mark.parametrize("header", HEADERS)
async def test_tls_may_follow_the_header(tls, header):
    loop = asyncio.get_running_loop()
    async with serving(ssl=tls.server) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setblocking(False)
        await loop.sock_sendall(sock, header)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls.client, server_hostname="localhost")
        writer.write(GET)
        assert (await reader.read()).endswith(b"\r\n\r\n('192.0.2.1', 4711) True")
        writer.close()
        await writer.wait_closed()


async def test_the_header_tells_that_the_client_uses_tls(connect):
    header = version_2(addresses(ONE, TWO, (1, 2)) + vectors([(0x20, b"\x01\0\0\0\0")]), 0x11)
    async with serving() as server, connect(server) as client:
        client.send(header + GET)
        assert (await client.response()).body == b"('192.0.2.1', 1) True"


async def test_a_trusted_proxy_that_sends_no_header_is_dropped(connect, until, caplog):
    caplog.set_level("INFO", "duck.server")
    async with serving() as server:
        async with connect(server) as client:
            client.send(GET)
            assert await client.end() == b""
        await until(lambda: not server._work.protocols)
    async with serving(limits=Limits(head_timeout=0.1)) as server:
        async with connect(server) as client:
            client.send(HEADERS[0][:-1])
            assert await client.end() == b""
        async with connect(server) as client:
            client.send(HEADERS[0][:-1])
            client.writer.write_eof()
            assert await client.end() == b""
        await until(lambda: not server._work.protocols and not server._limiter.count)
    dropped = r"127\.0\.0\.1:\d+ dropped: no PROXY protocol header; a trusted proxy must send a header .*"
    assert re.fullmatch(dropped, caplog.messages[0])


async def test_a_silent_proxy_does_not_delay_the_end(connect, until):
    async with serving(shutdown_timeout=1000) as server, connect(server) as client:
        await until(lambda: server._handshakes)
        await server.close()
        assert await client.end() == b""


async def test_connections_of_others_have_no_header(connect):
    async with serving(trusted_proxies=["192.0.2.9"]) as server:
        async with connect(server) as client:
            client.send(GET)
            name = client.writer.get_extra_info("sockname")
            assert (await client.response()).body == f"{name} False".encode()
        async with connect(server) as client:
            client.send(HEADERS[0] + GET)
            assert (await client.response()).status == 400


async def test_clients_behind_the_proxy_count(connect, until):
    async with (
        serving(limits=Limits(connections_per_address=1)) as server,
        connect(server) as one,
        connect(server) as two,
        connect(server) as three,
    ):
        keep = GET.replace(b"close", b"keep-alive")
        one.send(HEADERS[0] + keep)
        assert (await one.response()).status == 200
        two.send(HEADERS[1] + keep)
        assert (await two.response()).status == 503
        three.send(version_1(TWO, ONE, (1, 2)) + keep)
        assert (await three.response()).status == 200
        assert server.stats().refused == {"no_room": 1}
        assert server._turned_away == 1
        two.writer.transport.abort()
        await until(lambda: not server._turned_away)
        assert server._limiter.count == 2


@pytest.mark.parametrize("header", HEADERS)
async def test_a_header_without_the_option_is_logged(connect, caplog, header):
    caplog.set_level("INFO")
    async with serve([path("/", who)], port=0) as server, connect(server) as client:
        client.send(header + GET)
        assert (await client.response()).status == 400
    assert "a header of the PROXY protocol: serve with proxy_protocol" in caplog.text


async def test_the_proxy_protocol_needs_trusted_proxies():
    with pytest.raises(ValueError, match="proxy_protocol needs trusted_proxies"):
        async with serving(trusted_proxies=()):
            pass


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
async def test_haproxy_sends_headers_that_are_understood(either_tls, ssl, tmp_path, option):
    async with serving(ssl=ssl) as server:
        with haproxy(tmp_path, f"127.0.0.1:{server.port} {option}", mode="tcp") as address:
            reader, writer = await asyncio.open_connection(*address, ssl=either_tls and either_tls.client)
            writer.write(GET)
            name = writer.get_extra_info("sockname")
            assert (await reader.read()).endswith(f"\r\n\r\n{name} {ssl is not None}".encode())
            writer.close()
            await writer.wait_closed()
