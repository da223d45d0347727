"""Reports that a server accepts connections: on stdout, and to systemd."""

from collections.abc import Sequence
from urllib.parse import quote

from duck.stdio import announce

from .systemd import notify

__all__ = ["announce_ready"]

# A browser can connect to the addresses for every interface only on some systems.
_OF_THIS_MACHINE = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}


def announce_ready(addresses: Sequence[str], page: str | None) -> None:
    """Prints the addresses, and the URL of a page; notifies systemd.

    Args:
        addresses: The URLs of the listening sockets.
        page: The path of the page; None for none.
    """
    for address in addresses:
        announce(f"listening on {address}")
    address = addresses[0]
    if page is not None and address.startswith(("ws://", "wss://")):
        for every_interface, this_machine in _OF_THIS_MACHINE.items():
            address = address.replace(every_interface, this_machine)
        announce(f"open http{address.removeprefix('ws')}{quote(page)} in a browser")
    notify("READY=1")
