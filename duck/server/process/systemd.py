"""The systemd protocol of a service: passed sockets, and notifications."""

import logging
import os
import socket
import time

__all__ = ["notify", "notify_reloading", "passed_by_systemd"]

logger = logging.getLogger("duck.server")

_FIRST_PASSED = 3


def passed_by_systemd() -> list[int]:
    """Returns the files that systemd, or a compatible manager, has opened for this process; see sd_listen_fds(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # not for child processes
        os.environ.pop(name, None)
    return list(range(_FIRST_PASSED, _FIRST_PASSED + count))


def notify(state: str) -> None:
    """Notifies systemd about the service, if it asks for that (`Type=notify`); see sd_notify(3).

    Args:
        state: For example `READY=1` or `STOPPING=1`.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("cannot notify systemd of %r: %s", state, error)


def notify_reloading() -> None:
    """Notifies systemd that the service reloads; `READY=1` reports the end of it. `Type=notify-reload` needs both."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
