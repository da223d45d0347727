"""The `duck` command, and `python -m duck` where it is not on the path."""

import os
import signal
import sys

from duck.signal_handlers import handle

__all__ = ["main"]


def main() -> int:
    """Runs the command, and returns its exit status.

    Only the import of the package checks the environment: the codec and the library that it requires, and Duck
    Framework. Such an error says what to do, so it is reported like those of the command line.
    """
    if os.getpid() == 1:
        handle([signal.SIGTERM], _end)
    try:
        from duck.server import cli
    except ImportError as error:
        print(f"duck: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the import takes most of the time of a start
        return 130
    return cli.main()


def _end(signum: int) -> None:
    """Ends process 1 of a container before there is more to stop; the kernel does so for others only."""
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
