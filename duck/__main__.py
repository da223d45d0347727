"""The `duck` command, and `python -m duck` where it is not on the path."""

import os
import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command, and returns its exit status.

    Only the import of the package checks the environment: the codec and the library that it requires, and Duck
    Framework. Such an error says what to do, so it is reported like those of the command line.
    """
    is_first = os.getpid() == 1
    if is_first:
        signal.signal(signal.SIGTERM, _end)
    try:
        from duck.server import cli
    except ImportError as error:
        print(f"duck: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the import takes most of the time of a start
        return 130
    if is_first:
        os.register_at_fork(after_in_child=_forget_end)  # behind the hook of the import, which restores `_end`
    return cli.main()


def _end(signum: int, frame: object) -> None:
    """Ends process 1 of a container before there is more to stop; the kernel does so for others only."""
    os._exit(128 + signum)


def _forget_end() -> None:
    """Leaves a forked child process to the kernel, which ends it within a call of C, too."""
    if signal.getsignal(signal.SIGTERM) is _end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
