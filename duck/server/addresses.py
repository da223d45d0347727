"""The parsing of addresses: of clients, and to listen on."""

import ipaddress
import re

__all__ = ["parse_address", "parse_node", "split_address"]

_NODE = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}|_[A-Za-z0-9._-]+))?"  # with a port, or without
    r"|([0-9A-Fa-f:.]+)"  # IPv6 without brackets, as X-Forwarded-For has it
)


def parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parses an IP address; an IPv4-mapped one (`::ffff:192.0.2.1`) becomes IPv4.

    Raises:
        ValueError: The text is not an address.
    """
    address = ipaddress.ip_address(name)
    return getattr(address, "ipv4_mapped", None) or address


def parse_node(text: str) -> tuple[str, int]:
    """Parses an address as written by proxies: `192.0.2.1`, `192.0.2.1:4711`, `[2001:db8::1]:4711`.

    Returns:
        The address and the port; 0 for a missing or hidden port (RFC 7239, section 6).

    Raises:
        ValueError: The text is not an address, such as `unknown` or an obfuscated name (section 6.3).
    """
    node = _NODE.fullmatch(text)
    if node is None:
        raise ValueError(f"{text!r} is not an address with or without a port")
    port = int(node[3]) if node[3] and node[3].isdecimal() else 0
    if port > 65535:
        raise ValueError(f"{text!r} has a port over 65535")
    return str(parse_address(node[1] or node[2] or node[4])), port


def split_address(text: str) -> tuple[str | None, int]:
    """Splits an address to listen on: `127.0.0.1:9100`, `[::1]:9100`, `*:9100`.

    Returns:
        The host, None for every interface; and the port.

    Raises:
        ValueError: The text is not such an address.
    """
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError(f"{text!r} is not an address with a port, such as 127.0.0.1:9100, [::1]:9100 or *:9100")
    return None if host == "*" else host.removeprefix("[").removesuffix("]"), int(port)
