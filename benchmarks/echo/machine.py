"""The machine of the figures."""

import os
import platform
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import ROOT
from .cores import Cores
from .programs import compiler

__all__ = ["describe"]


def describe(cores: Cores) -> dict[str, Any]:
    """The machine, its system, and the Python that runs the servers."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "server_core": cores.server,
        "client_core": cores.client,
        "virtual": " hypervisor" in _read("/proc/cpuinfo"),
        "governor": _read(f"/sys/devices/system/cpu/cpu{cores.server}/cpufreq/scaling_governor").strip() or None,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}" + ("" if gil else ", without GIL"),
        "openssl": ssl.OPENSSL_VERSION,
        "compiler": _first_line([*compiler(), "--version"]),
        "duck": {"commit": _first_line(["git", "describe", "--always", "--dirty"]), **_codec()},
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def _codec() -> dict[str, str]:
    """The codec, from the output of `python -m duck.contrib.websockets`."""
    code = "import benchmarks.echo; from duck.contrib.websockets.__main__ import main; main()"
    lines = _output([sys.executable, "-W", "ignore", "-c", code]).splitlines()
    facts = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {name: facts[name] for name in ("codec", "simd") if name in facts}


def _first_line(words: list[str]) -> str | None:
    return next(iter(_output(words).splitlines()), None)


def _output(words: list[str]) -> str:
    try:
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text()
    return ""
