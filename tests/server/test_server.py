"""The life of a server: its sockets, its list of connections, and its shutdown."""

import asyncio
import errno
import os
import socket
import stat
import sys

import pytest
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from duck.contrib.websockets import WebSocketView
from duck.server import Limits, Server, serve
from duck.server import run as serve_until_signal
from duck.server.listening import sockets
from duck.server.listening.sockets import UnixListener
from duck.urls import path
from duck.views import View

from ..support.handshake import UPGRADE

needs_unix_sockets = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class Page(View):
    def run(self, request, **kwargs):
        return request.path


class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)


async def test_a_server_listens_until_its_end(connect):
    async with serve(Page, port=0) as server:
        assert isinstance(server, Server)
        assert server.addresses == [f"ws://127.0.0.1:{server.port}"]
        (sock,) = server.sockets
        assert sock.getsockname() == ("127.0.0.1", server.port)
        async with connect(server) as client:
            assert (await client.get("/any/path")).body == b"/any/path"
    assert server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_connections_that_come_together_are_accepted_together():
    """uvloop by itself accepts one connection in each iteration."""
    async with serve(Page, port=0) as server:
        await asyncio.sleep(0)
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
        looks = 0
        while len(server._work.protocols) < 4:
            looks += 1
            await asyncio.sleep(0)
        for client in clients:
            client.close()
        assert looks <= 4


async def test_the_address_of_a_tls_server_is_wss(tls):
    async with serve(Page, port=0, ssl=tls.server) as server:
        assert server.addresses == [f"wss://127.0.0.1:{server.port}"]


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
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        assert clients == [name[:2]]


async def test_a_server_listens_on_every_interface_with_one_port(connect):
    """IPv4 and IPv6 have the same port."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with serve(Page, None, 0) as server:
        assert server.addresses == [f"ws://0.0.0.0:{server.port}", f"ws://[::]:{server.port}"]
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, server.port)
            writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
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
    good, bad = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
    with pytest.raises(OSError):
        async with serve(Page, sockets=[good, bad]):
            pass
    assert good.fileno() == bad.fileno() == -1


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


@pytest.mark.parametrize("workers", [1, 2])
async def test_serving_by_run_in_a_coroutine_is_an_error_with_advice(workers):
    with pytest.raises(RuntimeError, match=r"write async with serve"):
        serve_until_signal(Echo, port=0, workers=workers)


async def test_malformed_routes_are_an_error():
    with pytest.raises(TypeError):
        async with serve(None, port=0):
            pass


@needs_unix_sockets
async def test_a_unix_socket_is_served_and_removed(connect, either_tls, tmp_path):
    place = str(tmp_path / "duck.sock")
    clients = []

    def view(request):
        clients.append(request.client_address)
        return "page"

    ssl = either_tls and either_tls.server
    async with serve([path("/", view)], uds=place, ssl=ssl) as server:
        assert server.port is None
        assert server.addresses == [f"{'wss' if ssl else 'ws'}+unix:{place}"]
        async with connect(server, either_tls) as client:
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


async def test_a_failing_block_closes_the_server():
    with pytest.raises(KeyError):
        async with serve(Page, port=0) as server:
            raise KeyError
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_closing_ends_connections_that_wait(connect, either_tls):
    ssl = either_tls and either_tls.server
    async with (
        serve(Page, port=0, ssl=ssl) as server,
        connect(server, either_tls) as fresh,
        connect(server, either_tls) as idle,
        connect(server, either_tls) as partial,
    ):
        partial.send(GET[:-1])
        assert (await idle.get()).status == 200
        closing = asyncio.create_task(server.close())
        for client in (fresh, idle, partial):
            assert await client.rest() == b""
        await closing


async def test_closing_waits_for_answers(connect, until):
    started, release = asyncio.Event(), asyncio.Event()

    async def view(request):
        started.set()
        await release.wait()
        return "done"

    async with serve([path("/", view)], port=0) as server, connect(server) as client:
        client.send(GET + GET)
        await started.wait()
        closing = asyncio.create_task(server.close())
        await until(lambda: server.closing)
        release.set()
        response = await client.response()
        assert (response.body, response.headers["connection"]) == (b"done", "close")
        assert await client.rest() == b""
        await closing


async def test_closing_cancels_answers_that_take_too_long(connect):
    started = asyncio.Event()
    ended = []

    async def view(request):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request)

    async with serve([path("/", view)], port=0, shutdown_timeout=0.1) as server, connect(server) as client:
        client.send(GET)
        await started.wait()
        await server.close()
        assert len(ended) == 1
        assert await client.end() == b""


async def test_closing_may_be_repeated():
    async with serve(Page, port=0) as server:
        await asyncio.gather(server.close(), server.close())
        await server.close()


async def test_closing_sends_close_frames(either_tls):
    ssl = either_tls and either_tls.server
    async with serve(Echo, port=0, ssl=ssl) as server:
        options = {"ssl": either_tls.client, "server_hostname": "localhost"} if ssl else {}
        clients = [await ws_connect(server.addresses[0], **options) for _ in range(5)]
        for client in clients:
            await client.send("hello")
            assert await client.recv() == "hello"
        assert len(server.connections) == 5
        receiving = [asyncio.create_task(client.recv()) for client in clients]
        await server.close()
        assert not server._work.views
        for client, message in zip(clients, receiving, strict=True):
            with pytest.raises(ConnectionClosedOK):
                await message
            assert (client.close_code, client.close_reason) == (1001, "server shutting down")


async def test_closing_does_not_wait_for_ever_for_websockets(connect):
    async with serve(Echo, port=0, shutdown_timeout=0.1) as server, connect(server) as client:
        client.send(UPGRADE)
        assert (await client.response(head_only=True)).status == 101
        await server.close()
        assert not server._work.views
        assert (await client.rest())[:4] == b"\x88\x16\x03\xe9"


async def test_connections_lists_the_open_views(until):
    deciding, leaving, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Echo):
        async def on_handshake(self, handshake):
            if self.request.query:
                deciding.set()
                await go_on.wait()

        async def on_close(self, frame):
            leaving.set()
            await go_on.wait()

    async with serve(Slow, port=0) as server:
        waiting = asyncio.create_task(ws_connect(f"{server.addresses[0]}/?decide").__aenter__())
        await deciding.wait()
        assert server.connections == []
        async with ws_connect(server.addresses[0]) as client:
            (view,) = server.connections
            assert isinstance(view, Echo)
            assert view.server is server
            await client.send("hello")
            await client.recv()
        await leaving.wait()
        assert server.connections == []
        go_on.set()
        await (await waiting).close()


async def test_a_websocket_is_refused_on_a_page():
    async with serve(Page, port=0) as server:
        with pytest.raises(Exception, match="HTTP 200"):
            await ws_connect(server.addresses[0])


async def test_large_messages_pass_in_many_tls_records(either_tls):
    messages = [bytes([number]) * size for number, size in enumerate((1, 40_000, 700_000, 16, 900_000))]
    ssl = either_tls and either_tls.server
    async with serve(Echo, port=0, ssl=ssl) as server:
        options = {"ssl": either_tls.client, "server_hostname": "localhost"} if ssl else {}
        async with ws_connect(server.addresses[0], **options) as client:
            for _ in range(3):
                sending = [asyncio.create_task(client.send(message)) for message in messages]
                assert [await client.recv() for _ in messages] == messages
                await asyncio.gather(*sending)


async def test_a_tls_handshake_that_does_not_end_is_cut(connect, tls):
    limits = Limits(head_timeout=0.1)
    async with serve(Page, port=0, ssl=tls.server, limits=limits) as server, connect(server) as client:
        assert await client.end() == b""


async def test_plain_http_to_a_tls_port_gets_no_answer(connect, tls):
    async with serve(Page, port=0, ssl=tls.server) as server:
        async with connect(server) as client:
            client.send(GET)
            assert b"HTTP" not in await client.end()
        async with connect(server, tls) as client:
            assert (await client.get()).status == 200


async def test_an_abnormal_end_is_seen():
    ended = asyncio.Event()

    class View(Echo):
        async def on_close(self, frame=None):
            ended.set()

    async with serve(View, port=0) as server:
        client = await ws_connect(server.addresses[0])
        client.transport.abort()
        await ended.wait()
        with pytest.raises(ConnectionClosedError):
            await client.recv()
