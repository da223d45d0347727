"""The systemd protocol of a service: passed sockets, and notifications."""

import logging
import os
import socket
import time

from ..errors import ServingError

__all__ = ["notify", "notify_reloading", "passed_by_systemd"]

logger = logging.getLogger("duck.server")

_FIRST_PASSED = 3


def passed_by_systemd() -> range:
    """Returns the files that systemd, or a compatible manager, has opened for this process; see sd_listen_fds(3).

    Raises:
        ServingError: The environment has no valid number of them.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    number = os.environ.get("LISTEN_FDS", "0")
    try:
        count = int(number)
    except ValueError:
        count = -1
    if count < 0:
        raise ServingError(f"LISTEN_FDS={number!r} is not a number of passed sockets; correct it, or unset LISTEN_PID")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # not for child processes
        os.environ.pop(name, None)
    return range(_FIRST_PASSED, _FIRST_PASSED + count)


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
        logger.warning("cannot notify systemd of %r by NOTIFY_SOCKET=%s: %s", state, path, error.strerror or error)


def notify_reloading() -> None:
    """Notifies systemd that the service reloads; `READY=1` reports the end of it. `Type=notify-reload` needs both."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
