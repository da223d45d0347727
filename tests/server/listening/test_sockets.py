"""Addresses of listening sockets."""

import errno
import socket
import sys

import pytest

from duck.server import serve
from duck.server.listening.sockets import url


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
