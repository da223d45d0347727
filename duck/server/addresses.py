"""IP addresses of clients."""

import ipaddress

__all__ = ["parse_address"]


def parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; an IPv4 one that comes in the dress of IPv6 (`::ffff:192.0.2.1`) as what it is.

    Raises:
        ValueError: It is none.
    """
    address = ipaddress.ip_address(name)
    return getattr(address, "ipv4_mapped", None) or address
