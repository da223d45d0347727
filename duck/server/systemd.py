"""What systemd passes to a service, and is told by it."""

import logging
import os
import socket

__all__ = ["notify", "passed_by_systemd"]

logger = logging.getLogger("duck.server")

_FIRST_PASSED = 3


def passed_by_systemd() -> list[socket.socket]:
    """The sockets that systemd, or another that does as it does, has opened for this process; see sd_listen_fds(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # they are not for processes that we start
        os.environ.pop(name, None)
    sockets = [socket.socket(fileno=file) for file in range(_FIRST_PASSED, _FIRST_PASSED + count)]
    for sock in sockets:
        sock.set_inheritable(False)
    return sockets


def notify(state: str) -> None:
    """Tell systemd about the service, if it wants to know: `Type=notify`; see sd_notify(3).

    Args:
        state: `READY=1` or `STOPPING=1`, for example.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("cannot tell %r to systemd: %s", state, error)
