"""From a URL to a connection: addresses, redirects, and proxies."""

import asyncio
import base64
import gc
import re
import select
import socket
import ssl
import string
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import HandshakeError, WebSocketView
from duck.contrib.websockets.client import HandshakeRefused, ProxyError, connect
from duck.contrib.websockets.client.address import Address
from duck.contrib.websockets.client.dialing import Opening
from duck.contrib.websockets.client.proxies import proxy_for
from duck.contrib.websockets.sansio.client_handshake import ClientHandshake

from ..support.servers import answering


class Greeting(WebSocketView):
    async def on_open(self):
        await self.send_json(
            [self.request.path, self.request.headers.get("authorization"), self.request.headers.get("x-a")]
        )


@pytest.mark.parametrize(
    ("url", "address", "netloc"),
    [
        ("ws://localhost", (False, "localhost", 80, "/"), "localhost"),
        ("WSS://Example.org:443/a?b=c", (True, "example.org", 443, "/a?b=c"), "example.org"),
        ("ws://[::1]:8000/a%20b/\u00e4?\u00e4", (False, "::1", 8000, "/a%20b/%C3%A4?%C3%A4"), "[::1]:8000"),
        ("https://b\u00fccher.example?q", (True, "xn--bcher-kva.example", 443, "/?q"), "xn--bcher-kva.example"),
        ("ws://u:p@h:1/", (False, "h", 1, "/", ("u", "p")), "h:1"),
        ("ws://u%40@h/", (False, "h", 80, "/", ("u@", "")), "h"),
        (f"ws://{'a.' * 40}example", (False, f"{'a.' * 40}example", 80, "/"), f"{'a.' * 40}example"),
        ("ws://[fe80::1%25eth0]:81/", (False, "fe80::1%eth0", 81, "/"), "[fe80::1]:81"),
    ],
)
def test_a_url_is_parsed_into_an_address(url, address, netloc):
    found = Address.parse(url)
    assert found == Address(*address)
    assert found.netloc == netloc
    assert Address.parse(found.url) == replace(found, credentials=None, host=found.host.partition("%")[0])


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:80", "ftp://h", "ws://", "ws:///a", "ws://h:x", "ws://h:99999", "ws://h/#a", "ws://h/a b"),
        *("ws://[::1]a/", "ws://a[::1]/", "ws://[v1.a]/", "ws://a\\b/", "ws://a%41/", "ws://a|b"),
        *("ws://[::1", "ws://a..b", "ws://.a", f"ws://{'a' * 64}.example", "ws://h/\ud800", "ws://\udcff@h/"),
    ],
)
def test_an_invalid_url_is_refused(url):
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        Address.parse(url)


@given(st.text(st.sampled_from(string.printable + "\u00e4\u20ac\u3002"), max_size=30))
def test_any_text_is_a_valid_address_or_an_error(text):
    for url in (text, f"ws://{text}", f"ws://h/{text}"):
        try:
            address = Address.parse(url)
        except ValueError:
            continue
        assert re.fullmatch(r"/[!-~]*", address.target)
        assert address.host.isascii() and 0 <= address.port < 65536


@pytest.mark.parametrize(
    "url",
    [
        "ws://me:secret @h/",
        "ws://me:se\ncret@h/",
        "ws://me:secret@h:99999/",
        "ftp://me:secret@h",
        "me:secret@h",
        "//me:secret@h",
        "ws://me:se[cret@h/",
        "ws://me:se/cret@h/",
        "ws://me:se/cret@h/#x",
        "ws://me:se?cret@h/",
        "ws://me:se\uff1fcret@h/",
    ],
)
def test_a_password_is_not_in_the_words_of_errors(url):
    with pytest.raises(ValueError, match="me:\\*\\*\\*@h") as caught:
        Address.parse(url)
    assert "cret" not in str(caught.value) and "'se'" not in str(caught.value)


def test_a_user_name_has_no_colon():
    with pytest.raises(ValueError, match="the user name 'a:b' has a colon"):
        Address.parse("ws://a%3Ab:secret@h/")


def test_a_redirect_resolves_against_the_url():
    start = Address.parse("wss://u:p@example.org/a/b?c")
    assert start.redirected("d?e").url == "wss://example.org/a/d?e"
    assert start.redirected("//example.com/").url == "wss://example.com/"
    assert start.redirected("/x#y").credentials == ("u", "p")
    assert start.redirected("https://x:y@example.org/").credentials == ("x", "y")
    assert start.redirected("https://example.org:444/x").credentials is None
    with pytest.raises(ValueError, match="from wss to ws"):
        start.redirected("http://example.org/")
    assert Address.parse("ws://h").redirected("https://h/").url == "wss://h/"
    utf_8 = "/\u00fc\u20ac".encode().decode("latin-1")  # as a header field is read
    assert start.redirected(utf_8).target == "/%C3%BC%E2%82%AC"
    for location in ("/x", "ws://[fe80::1]:81/x"):
        assert Address.parse("ws://[fe80::1%25eth0]:81/").redirected(location).host == "fe80::1%eth0"
    with pytest.raises(ValueError, match="a label of the name"):
        start.redirected("wss://a..b/")


def test_the_password_of_an_address_is_not_in_its_repr():
    assert "pa55" not in repr(Address.parse("ws://duck:pa55@example.org/"))


async def test_a_failure_after_a_cancellation_is_not_reported():
    """The transport closes after a cancelled connect, whose outcome is not awaited."""
    loop, reported = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    opening = Opening(loop, ClientHandshake("/", "localhost"))
    opening.connection_lost(None)
    del opening
    gc.collect()
    assert reported == []


@pytest.mark.parametrize("host", ["localhost.", "[::1%25lo]"])
async def test_the_certificate_needs_neither_the_dot_of_an_absolute_name_nor_a_zone(serving, tls, host):
    async with serving(Greeting, tls=tls) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))  # the system may not resolve the host
        async with connect(f"wss://{host}:{server.port}/a", sock=sock, ssl=tls.client) as ws:
            assert await ws.recv_json() == ["/a", None, None]


async def test_a_redirect_to_another_host_is_verified_by_its_own_name(serving, tls):
    class Redirecting(WebSocketView):
        async def on_handshake(self, handshake):
            raise HandshakeError(302, headers={"Location": f"wss://{self.request.path[1:]}/"})

    async with serving(Redirecting, tls=tls) as server:
        url = f"wss://127.0.0.1:{server.port}"
        host = "127.1"  # resolves to 127.0.0.1, but is not in the certificate
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"{url}/{host}:{server.port}", ssl=tls.client, server_hostname="localhost", proxy=None)


def responding(respond):
    """A server whose response to the one request of each connection is the result of a function of its target."""

    async def serve_one(reader, writer):
        line, *_ = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        writer.write(respond(line.split()[1].decode()))

    return answering(serve_one)


def see_other(location, status=302):
    return f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def test_a_socket_that_is_reset_at_once_is_closed_once():
    """uvloop leaves a closed descriptor in the socket, which would later close another file of the same number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        assert select.select([sock], [], [], 10)[0]
        with pytest.raises(ConnectionResetError):
            await connect("ws://localhost", sock=sock)
        await asyncio.sleep(0)
        assert sock.fileno() == -1


async def test_a_redirect_of_a_given_socket_is_a_refusal():
    async with responding(lambda target: see_other("/a")) as url:
        sock = socket.create_connection(("127.0.0.1", urlsplit(url).port))
        with pytest.raises(HandshakeRefused) as caught:
            await connect("ws://localhost", sock=sock)
        assert caught.value.status == 302


async def test_redirects_are_followed_without_private_fields_for_other_hosts(serving):
    targets = []
    statuses = [301, 302, 303, 307, 308]

    def respond(target):
        targets.append(target)
        location = "/b" if len(targets) < len(statuses) else f"ws://127.0.0.1:{server.port}/end?c"
        return see_other(location, statuses[len(targets) - 1])

    async with serving(Greeting) as server, responding(respond) as url:
        headers = {"Authorization": "x", "X-A": "1"}
        async with connect(f"{url}/a", headers=headers, cookies={"a": "b"}, max_redirects=5) as ws:
            assert await ws.recv() == '["/end", null, "1"]'
            view, _ = await server.views.get()
            assert "cookie" not in view.request.headers
            assert ws.url == f"ws://127.0.0.1:{server.port}/end?c"
        assert targets == ["/a", "/b", "/b", "/b", "/b"]
        for most, words in ((0, "302"), (1, "more than 1 redirects")):
            with pytest.raises(HandshakeRefused, match=words) as caught:
                async with responding(lambda target: see_other("/x")) as url:
                    await connect(f"{url}/a", max_redirects=most)
            assert caught.value.status == 302
        for location in ("mailto:a", "http://[::1"):
            with pytest.raises(HandshakeRefused, match="the redirect of the server cannot be followed"):
                async with responding(lambda target, location=location: see_other(location)) as url:
                    await connect(f"{url}/a")


async def test_a_redirect_may_have_spaces_and_drops_the_host_of_the_first_request(serving):
    class Hosts(WebSocketView):
        async def on_open(self):
            await self.send(f"{self.request.headers['host']} {self.request.path}")

    async with serving(Hosts) as server:
        target = f"ws://127.0.0.1:{server.port}/a b"
        async with (
            responding(lambda _: see_other(target)) as url,
            connect(url, headers={"Host": "inner.example"}) as ws,
        ):
            assert await ws.recv() == f"127.0.0.1:{server.port} /a b"
        async with responding(lambda _: see_other(f"/a\r\nLocation: {target}")) as url:
            with pytest.raises(HandshakeRefused, match="302"):
                await connect(url)


class Tunnel:
    """A proxy of each kind on one port.

    Attributes:
        asked: (kind, requested address) of each connection.
    """

    def __init__(self):
        self.asked = []

    @asynccontextmanager
    async def running(self):
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        try:
            target = await (self._http if (first := await reader.readexactly(1)) == b"C" else self._socks)(
                reader, writer, first
            )
            if target is None:
                return
            self.asked.append(target)
            there, back = await asyncio.open_connection("127.0.0.1", int(target[1].rpartition(":")[2]))
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
            back.close()
        finally:
            writer.close()

    async def _http(self, reader, writer, first):
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        if "Proxy-Authorization" in head and base64.b64encode(b"u:p").decode() not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return None
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        return "http", head.split()[1]

    async def _socks(self, reader, writer, first):
        assert first == b"\x05"
        await reader.readexactly(ord(await reader.readexactly(1)))
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        size = {1: 4}.get(kind) or ord(await reader.readexactly(1))
        host = await reader.readexactly(size)
        port = int.from_bytes(await reader.readexactly(2))
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        return "socks5", f"{host.decode() if kind == 3 else '.'.join(map(str, host))}:{port}"

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()


async def test_a_connection_goes_through_the_given_proxy_or_that_of_the_environment(serving, monkeypatch):
    pytest.importorskip("python_socks")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    tunnel = Tunnel()
    async with serving(Greeting) as server, tunnel.running() as port:
        url = f"ws://127.0.0.1:{server.port}/a"
        for proxy, kind in (
            (f"http://127.0.0.1:{port}", "http"),
            (f"127.0.0.1:{port}", "http"),
            (f"HTTP://127.0.0.1:{port}/", "http"),
            (f"http://u:p@127.0.0.1:{port}", "http"),
            (f"socks5://127.0.0.1:{port}", "socks5"),
            (f"socks5h://127.0.0.1:{port}", "socks5"),
        ):
            async with connect(url, proxy=proxy) as ws:
                assert await ws.recv() == '["/a", null, null]'
            assert tunnel.asked.pop() == (kind, f"127.0.0.1:{server.port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        async with connect(url):
            assert tunnel.asked.pop()[0] == "http"
        async with connect(url, proxy=None):
            assert not tunnel.asked
        with pytest.raises(ProxyError, match="407"):
            await connect(url, proxy=f"http://u:wrong@127.0.0.1:{port}")
    with pytest.raises(ProxyError, match="did not connect to 127"):
        await connect(url, proxy=f"socks5://127.0.0.1:{port}")


async def head_for_a_proxy(url, user=""):
    """The request that a proxy gets for a URL."""
    heads = []

    async def refuse(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())

    async with answering(refuse) as proxy:
        with pytest.raises(ProxyError):
            await connect(url, proxy=proxy.replace("ws://", f"http://{user}"))
    return heads[0]


@pytest.mark.parametrize("user", ["t%40ken@", "t%40ken:@"])
async def test_a_proxy_gets_a_user_without_a_password(user):
    head = await head_for_a_proxy("ws://localhost", user)
    assert f"Proxy-Authorization: Basic {base64.b64encode(b't@ken:').decode()}\r\n" in head


async def test_a_proxy_gets_no_zone_of_an_address():
    assert (await head_for_a_proxy("ws://[fe80::1%25eth0]")).startswith("CONNECT [fe80::1]:80 ")


NO_PROXIES = {
    "garbage": "'garbage' is not the URL of a proxy: it has no port; write one such as http://proxy.example:3128",
    "http://:3128": "it has no host",
    "ftp://proxy:1": "its scheme is not http, socks5, socks5h, socks4 or socks4a",
    "http://user:secret@proxy:65536": r"'http://user:\*\*\*@proxy:65536' is not .*: the port is not a number",
    "http://user:\uff1fsecret@proxy:1": "NFKC",
    "http://[": "Invalid IPv6 URL",
    "http://proxy..example:1": "label",
}


@pytest.mark.parametrize(("proxy", "words"), NO_PROXIES.items())
async def test_a_url_that_names_no_proxy_is_an_error_with_the_url(monkeypatch, proxy, words):
    """The environment may have it, so that its reader knows no such URL."""
    monkeypatch.setenv("ws_proxy", proxy)
    with pytest.raises(ValueError, match=words) as caught:
        await connect("ws://server.example")
    assert "secret" not in str(caught.value)


async def test_the_answer_of_a_proxy_is_quoted_in_part_and_without_control_characters():
    async with responding(lambda target: b"HTTP/1.1 403 \x1b[31m" + b"x" * 9999 + b"\r\n\r\n") as proxy:
        with pytest.raises(ProxyError, match=r"did not connect to localhost: 403 \\x1b\[31mx{1,200}$"):
            await connect("ws://localhost", proxy=proxy.replace("ws", "http"))


def test_the_most_specific_variable_of_the_environment_names_the_proxy(monkeypatch):
    for name in ("http", "https", "all", "no", "ws", "wss", "socks"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    plain, secure = Address.parse("ws://a.example:81"), Address.parse("wss://b.example")
    assert proxy_for(plain) is proxy_for(secure) is None
    monkeypatch.setenv("all_proxy", "http://all")
    monkeypatch.setenv("https_proxy", "http://https")
    assert (proxy_for(plain), proxy_for(secure)) == ("http://all", "http://https")
    monkeypatch.setenv("wss_proxy", "http://wss")
    monkeypatch.setenv("no_proxy", "a.example")
    assert (proxy_for(plain), proxy_for(secure)) == (None, "http://wss")
    for name in ("all", "https", "wss", "no"):
        monkeypatch.delenv(f"{name}_proxy")
    monkeypatch.setenv("HTTP_PROXY", "http://upper")
    assert (proxy_for(plain), proxy_for(secure)) == ("http://upper", None)
    monkeypatch.setenv("REQUEST_METHOD", "GET")  # of a CGI script, whose client sets HTTP_PROXY (CVE-2016-1000110)
    assert proxy_for(plain) is None
    monkeypatch.setenv("http_proxy", "http://lower")
    assert proxy_for(plain) == "http://lower"
