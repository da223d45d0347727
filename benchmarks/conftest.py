"""Makes `pytest benchmarks` measure, where tests only run, and says which versions are compared."""

import platform
import warnings
from importlib.metadata import PackageNotFoundError, version

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that the codec was not built is said in the header
    from duck.contrib.websockets.codec import describe

RIVALS = ["websockets", "aiohttp", "wsproto"]

# Options of pytest-benchmark; those of the command line take precedence.
OPTIONS = {
    "enable": True,
    "max_time": 0.15,
    "columns": ["median", "min", "ops", "rounds"],
    "disable_gc": True,
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    given = {argument.split("=")[0] for argument in config.invocation_params.args}
    if "--benchmark-disable" in given:
        return
    for name, value in OPTIONS.items():
        if f"--benchmark-{name.replace('_', '-')}" not in given:
            setattr(config.option, f"benchmark_{name}", value)


def pytest_report_header():
    codec = ", ".join(f"{name}: {fact}" for name, fact in describe().items())
    return [f"duck on {platform.machine()}: {codec}", f"rivals: {', '.join(map(installed, RIVALS))}"]


def installed(rival):
    try:
        return f"{rival} {version(rival)}"
    except PackageNotFoundError:
        return f"{rival} is not installed: skipped"


@pytest.fixture
def load():
    """Imports a module; skips the benchmark where there is none, as without a compiler."""
    return lambda name: pytest.importorskip(name, exc_type=ImportError)


@pytest.fixture
def compare(benchmark):
    """Times `function(*args)` as one row of a group, once a first call has given `expected`.

    `result` turns the result of the function, or its changed arguments, into a comparable value.
    """

    def run(group, name, function, *args, expected, result=lambda given, *args: given):
        assert result(function(*args), *args) == expected
        benchmark.group = group
        benchmark.name = name
        benchmark.extra_info["result"] = "checked"
        benchmark(function, *args)

    return run
