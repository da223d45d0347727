"""Sockets that listen: addresses, bound sockets, and Unix sockets with their files."""

import asyncio
import errno
import os
import socket
import stat
import sys

import pytest

from duck.server import run, serve
from duck.server.listening import sockets
from duck.server.listening.sockets import UnixListener, url
from duck.urls import path
from duck.views import View

needs_unix_sockets = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")

GET = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


class Page(View):
    def run(self, request, **kwargs):
        return ""


async def test_a_server_listens_on_the_interface_of_an_address_with_a_zone():
    """uvloop drops the zone, and the system then refuses an address that belongs to one interface."""
    interface = socket.if_nameindex()[0][1]
    with pytest.raises(OSError) as caught:
        async with serve([], f"fe80::d0c%{interface}", 0):  # no interface has this address
            pass
    assert caught.value.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    with pytest.raises(socket.gaierror):
        async with serve([], "fe80::d0c%no-interface", 0):
            pass


class Listener:
    """A socket that listens on an address."""

    def __init__(self, *address):
        self._address = address

    def getsockname(self):
        return self._address


def test_the_url_of_a_socket_has_the_zone_of_its_address():
    index, interface = socket.if_nameindex()[0]
    assert url(Listener("fe80::d0c", 80, 0, index), secure=False) == f"ws://[fe80::d0c%25{interface}]:80"
    assert url(Listener("::1", 80, 0, 0), secure=True) == "wss://[::1]:80"
    assert url(Listener("127.0.0.1", 80), secure=False) == "ws://127.0.0.1:80"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_the_url_of_an_abstract_socket_has_no_nul():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("\0duck of the tests")
        assert url(sock, secure=False) == "ws+unix:@duck of the tests"


async def test_a_server_listens_on_an_ipv6_address():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    clients = []

    def view(request):
        clients.append(request.client_address)
        return ""

    async with serve([path("/", view)], "::1", 0) as server:
        assert server.addresses == [f"ws://[::1]:{server.port}"]
        reader, writer = await asyncio.open_connection("::1", server.port)
        name = writer.get_extra_info("sockname")
        writer.write(GET)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        assert clients == [name[:2]]


async def test_a_server_listens_on_every_interface_with_one_port():
    """IPv4 and IPv6 have the same port."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with serve(Page, None, 0) as server:
        assert server.addresses == [f"ws://0.0.0.0:{server.port}", f"ws://[::]:{server.port}"]
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, server.port)
            writer.write(GET)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
            await writer.wait_closed()


async def test_bound_sockets_are_served_and_closed(connect):
    bound = socket.create_server(("127.0.0.1", 0))
    async with serve(Page, sockets=[bound]) as server, connect(server) as client:
        assert server.port == bound.getsockname()[1]
        assert (await client.get()).status == 200
    assert bound.fileno() == -1


async def test_sockets_that_cannot_listen_are_an_error_and_closed():
    good, bad = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with socket.socket() as other:
        for sock in (other, bad):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        bad.bind(other.getsockname())
        other.listen()  # so `bad` cannot
        with pytest.raises(OSError):
            async with serve(Page, sockets=[good, bad]):
                pass
    assert good.fileno() == bad.fileno() == -1


@pytest.mark.parametrize("call", ["serve", "run"])
def test_sockets_that_are_no_bound_stream_sockets_are_refused(call):
    """A server for one that is not bound would listen on every interface."""

    async def serve_on(**arguments):
        async with serve(Page, **arguments):
            pass

    def start(**arguments):
        if call == "run":
            run(Page, workers=2, **arguments)
        else:
            asyncio.run(serve_on(**arguments))

    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match=r"cannot listen on <socket.*>: it has no address; bind it first"):
            start(sockets=[unbound])
        with pytest.raises(ValueError, match="neither a TCP socket nor a Unix stream socket"):
            start(sockets=[datagrams])
        with pytest.raises(ValueError, match="uds and sockets each say where to listen"):
            start(sockets=[unbound], uds="duck.sock")


async def test_a_free_port_is_free_at_every_address_of_a_host(monkeypatch):
    """The kernel chooses one that is free at the first address."""
    bind, taken = sockets._bind, []

    def bind_where_free(family, address, shared=False):
        if len(taken) < 3 and family == socket.AF_INET6:
            taken.append(address[1])
            raise OSError(errno.EADDRINUSE, "in use")
        return bind(family, address, shared)

    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    monkeypatch.setattr(sockets, "_bind", bind_where_free)
    async with serve(Page, None, 0) as server:
        assert len(server.addresses) == 2
        assert server.port not in taken


async def test_the_error_of_an_address_in_use_names_it():
    async with serve(Page, port=0) as server:
        with pytest.raises(OSError, match=f"'127.0.0.1:{server.port}'$") as caught:
            async with serve(Page, port=server.port):
                pass
        assert caught.value.errno == errno.EADDRINUSE


async def test_an_address_that_the_machine_lacks_is_skipped_unless_it_is_the_last(monkeypatch):
    """A name may have an IPv6 address on a machine without IPv6."""
    missing, here = (socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET, ("127.0.0.1", 0))
    for found, listening in (([missing, here], 1), ([here, missing], 1), ([missing], 0)):

        async def resolve(host, port, found=found):
            return found

        monkeypatch.setattr(sockets, "_resolve", resolve)
        try:
            async with serve(Page, "both.test", port=0) as server:
                assert len(server.sockets) == listening
        except OSError as error:
            assert (error.errno, listening) == (errno.EADDRNOTAVAIL, 0)


@needs_unix_sockets
async def test_a_unix_socket_is_served_and_removed(connect, ssl, tmp_path):
    place = str(tmp_path / "duck.sock")
    clients = []

    def view(request):
        clients.append(request.client_address)
        return "page"

    async with serve([path("/", view)], uds=place, ssl=ssl) as server:
        assert server.port is None
        assert server.addresses == [f"{'wss' if ssl else 'ws'}+unix:{place}"]
        async with connect(server) as client:
            assert (await client.get()).body == b"page"
    assert clients == [None]
    assert os.listdir(tmp_path) == []


@needs_unix_sockets
def test_the_permissions_of_a_unix_socket_are_given_kept_or_open(run, tmp_path):
    """Every user may connect by default, because a proxy has a user of its own; the umask has no effect."""
    place = tmp_path / "duck.sock"

    async def mode(**options):
        async with serve(Page, uds=str(place), **options):
            return stat.S_IMODE(place.stat().st_mode)

    async def scenario():
        assert await mode() == 0o666
        assert await mode(uds_mode=0o600) == 0o600
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(place))
        place.chmod(0o660)
        assert await mode() == 0o660

    before = os.umask(0o077)
    try:
        run(scenario())
    finally:
        os.umask(before)


@needs_unix_sockets
async def test_the_unix_socket_of_a_dead_server_is_replaced(connect, tmp_path):
    place = str(tmp_path / "duck.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(place)
    async with serve(Page, uds=place) as server, connect(server) as client:
        assert (await client.get()).status == 200


@needs_unix_sockets
async def test_the_path_of_a_unix_socket_may_be_an_object(connect, tmp_path):
    place = tmp_path / "duck.sock"
    async with serve(Page, uds=place) as server, connect(server) as client:
        assert server.addresses == [f"ws+unix:{place}"]
        assert (await client.get()).status == 200
    assert not place.exists()


@needs_unix_sockets
async def test_a_unix_socket_in_use_is_an_error(connect, tmp_path):
    place = str(tmp_path / "duck.sock")
    async with serve(Page, uds=place) as server:
        with pytest.raises(OSError) as caught:
            async with serve(Page, uds=place):
                pass
        assert caught.value.errno == errno.EADDRINUSE
        async with connect(server) as client:
            assert (await client.get()).status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses connections")
def test_the_unix_socket_of_a_server_that_hangs_is_in_use(tmp_path):
    """A connection would wait for room in its backlog."""
    place = str(tmp_path / "duck.sock")
    with socket.socket(socket.AF_UNIX) as hanging, socket.socket(socket.AF_UNIX) as client:
        hanging.bind(place)
        hanging.listen(0)
        client.connect(place)
        with pytest.raises(OSError) as caught:
            UnixListener(place)
    assert caught.value.errno == errno.EADDRINUSE


@needs_unix_sockets
async def test_the_error_of_a_unix_socket_without_a_folder_names_its_path(tmp_path):
    place = str(tmp_path / "absent" / "duck.sock")
    with pytest.raises(FileNotFoundError, match=f"'{place}'$"):
        async with serve(Page, uds=place):
            pass


@needs_unix_sockets
async def test_a_file_is_not_replaced_by_a_unix_socket(tmp_path):
    place = tmp_path / "precious"
    place.write_text("words")
    with pytest.raises(OSError):
        async with serve(Page, uds=str(place)):
            pass
    assert place.read_text() == "words"


@needs_unix_sockets
async def test_the_unix_socket_of_a_successor_is_left_alone(tmp_path):
    place = str(tmp_path / "duck.sock")
    async with serve(Page, uds=place):
        os.rename(place, place + ".old")
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(place)
    assert "duck.sock" in os.listdir(tmp_path)
