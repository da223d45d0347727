"""Runs one client until its time is over."""

import argparse
import asyncio
import ctypes
import importlib
import signal
import sys

from .load import Load

PR_SET_PDEATHSIG = 1


async def _run(module: str, mode: str, load: Load) -> None:
    client = importlib.import_module(f"{__package__}.{module}")
    load.begin()
    await getattr(client, mode)(load)
    load.report()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.echo.clients", description=__doc__)
    parser.add_argument("module")
    parser.add_argument("mode", choices=("echo", "receive", "connect"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--warmup", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = vars(parser.parse_args())
    module, mode = options.pop("module"), options.pop("mode")
    uvloop = importlib.import_module("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(module, mode, Load(**options)))


if __name__ == "__main__":
    if sys.platform == "linux":  # not to outlive the parent process
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    main()
