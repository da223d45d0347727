"""The PROXY protocol, versions 1 and 2: a header at the start of a connection, in which a proxy names its client.

The parser does no I/O. `receive` reads the header from a socket without any byte behind it, so that TLS may follow.

(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)
"""

import asyncio
import ipaddress
import re
import socket
import struct
from typing import NamedTuple

from duck.http.request import ClientAddress

__all__ = ["SIGNATURES", "Header", "parse", "receive"]

_SIGNATURE_1 = b"PROXY "
_SIGNATURE_2 = b"\r\n\r\n\x00\r\nQUIT\n"

SIGNATURES = (_SIGNATURE_1, _SIGNATURE_2)
"""The first bytes of a header, in version 1 and 2."""

_LONGEST_1 = 107  # bytes of the header of version 1
_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_VERSIONS = {b"TCP4": 4, b"TCP6": 6}

_START_2 = struct.Struct("!12sBBH")
_ADDRESSES = {1: struct.Struct("!4s4sHH"), 2: struct.Struct("!16s16sHH"), 3: struct.Struct("!108s108s")}
_TLV = struct.Struct("!BH")
_TLV_SSL = 0x20
_LOCAL, _PROXY = 0x20, 0x21

_PART = 4096  # bytes peeked at a time


class Header(NamedTuple):
    """The content of a header.

    Attributes:
        size: Bytes of the header.
        address: The client's address; None for a connection of the proxy itself, such as a health check.
        secure: Whether the client's connection is encrypted; only version 2 reports it.
    """

    size: int
    address: ClientAddress = None
    secure: bool = False


def parse(data: bytes) -> Header | None:
    """Parses the header at the start of some bytes; returns None while it is incomplete.

    Raises:
        ValueError: The bytes do not start with a header.
    """
    if data.startswith(_SIGNATURE_2):
        return _parse_2(data)
    if data.startswith(_SIGNATURE_1):
        return _parse_1(data)
    if any(signature.startswith(data) for signature in SIGNATURES):
        return None
    raise ValueError("no PROXY protocol header")


def _parse_1(data: bytes) -> Header | None:
    size = data.find(b"\n", 0, _LONGEST_1) + 1
    if not size:
        if len(data) < _LONGEST_1:
            return None
        raise ValueError("a PROXY line without end")
    line = data[:size]
    if _UNKNOWN.fullmatch(line):
        return Header(size)
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"malformed PROXY line {line!r}")
    version = _VERSIONS[match[1]]
    addresses = [ipaddress.ip_address(match[number].decode()) for number in (2, 3)]
    ports = [int(match[number]) for number in (4, 5)]
    if any(address.version != version for address in addresses) or max(ports) > 65535:
        raise ValueError(f"malformed PROXY line {line!r}")
    return Header(size, (str(addresses[0]), ports[0]))


def _parse_2(data: bytes) -> Header | None:
    if len(data) < _START_2.size:
        return None
    _, command, family, length = _START_2.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ValueError(f"PROXY header with version and command 0x{command:02x}")
    size = _START_2.size + length
    if len(data) < size:
        return None
    if command == _LOCAL or not family >> 4:
        return Header(size)
    addresses = _ADDRESSES.get(family >> 4)
    if addresses is None or length < addresses.size:
        raise ValueError(f"PROXY header with family 0x{family:02x} and {length} bytes")
    secure = _is_secure(data[_START_2.size + addresses.size : size])
    fields = addresses.unpack_from(data, _START_2.size)
    if len(fields) == 2:  # the paths of Unix sockets
        return Header(size, fields[0].rstrip(b"\x00").decode(errors="replace") or None, secure)
    return Header(size, (str(ipaddress.ip_address(fields[0])), fields[2]), secure)


def _is_secure(extensions: bytes) -> bool:
    """Whether the type-length-value vectors after the addresses report that the client uses TLS."""
    at = 0
    secure = False
    while at < len(extensions):
        if at + _TLV.size > len(extensions):
            raise ValueError("PROXY header with half an extension")
        kind, length = _TLV.unpack_from(extensions, at)
        at += _TLV.size
        if at + length > len(extensions):
            raise ValueError("PROXY header with an extension that does not end")
        if kind == _TLV_SSL and length:
            secure = bool(extensions[at] & 1)
        at += length
    return secure


async def receive(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> Header:
    """Reads the header from a socket, and no byte behind it.

    Raises:
        ValueError: There is no header.
        ConnectionError: The connection has ended before the header.
    """
    sock.setblocking(False)
    received = b""
    while True:
        try:
            seen = sock.recv(_PART, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _until_readable(loop, sock)
            continue
        if not seen:
            raise ConnectionError("the connection ended before the PROXY header")
        header = parse(received + seen)
        received += sock.recv(len(seen) if header is None else header.size - len(received))
        if header is not None:
            return header


async def _until_readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
