"""Runs one server until it is killed."""

import argparse
import ctypes
import importlib
import signal
import sys

from .options import Options

PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.echo.servers", description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "aiofastnet"), default="uvloop")
    parser.add_argument("--variant", default="")
    parser.add_argument("--heartbeat", action="store_true")
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--certfile")
    parser.add_argument("--keyfile")
    options = vars(parser.parse_args())
    module = importlib.import_module(f"{__package__}.{options.pop('module')}")
    module.run(Options(**options))


if __name__ == "__main__":
    if sys.platform == "linux":  # not to outlive the parent process
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    main()
