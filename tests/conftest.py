"""Common parts of all tests: fixtures, loops, and the header that names the tested codec."""

import gc
import inspect
import logging
import os
import signal
import sys
import warnings
from collections import Counter
from contextlib import suppress
from textwrap import shorten

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the header tells of a missing codec
    from duck.contrib.websockets.codec import describe  # raises with DUCK_REQUIRE_SPEEDUPS=1


pytest.register_assert_rewrite("tests.support")

from .support.fixtures import *  # noqa: E402, F403
from .support.fixtures import EAGER  # noqa: E402


def pytest_configure():
    for name in ("FORCE_COLOR", "NOTIFY_SOCKET", "WEB_CONCURRENCY"):  # tests, and the programs that they run, read them
        os.environ.pop(name, None)
    # The proxy of a machine does not lead to the servers of tests. Fixtures that install something need it.
    others = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    os.environ["no_proxy"] = f"{others},localhost,127.0.0.1,::1,several.example,app.example.org"
    with suppress(ImportError):  # benchmarks do not need it
        from hypothesis import HealthCheck, settings

        # Both measure wall time, and a test machine may be busy.
        settings.register_profile("duck", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("duck")
    if sys.flags.dev_mode or os.environ.get("PYTHONASYNCIODEBUG"):
        # asyncio logs selectors and slow callbacks among the records that tests check.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background; the tested commands would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector, name, obj):
    """Requests the fixture `run` for a test that is a coroutine function."""
    if collector.istestfunction(obj, name) and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("run")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs a test that is a coroutine function, on the loop of `run`."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    pyfuncitem.funcargs["run"](test(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}))
    return True


def pytest_generate_tests(metafunc):
    """Runs each test with a loop on both kinds, unless it needs no socket or names its loop."""
    item = metafunc.definition
    named = any("loop_name" in mark.args[0] for mark in item.iter_markers("parametrize"))
    if "loop_name" in metafunc.fixturenames and not named:
        loops = ["virtual"] if item.get_closest_marker("in_memory") else ["asyncio", "uvloop"]
        metafunc.parametrize("loop_name", loops, indirect=True)


def pytest_collection_modifyitems(items):
    for item in items:
        if "runner" in getattr(item, "fixturenames", ()):
            item.add_marker("loop")


def pytest_collection_finish():
    """Restricts the garbage collector to objects that come later: it would spend seconds on those of the collection."""
    with suppress(ImportError):
        from hypothesis import given, strategies

        # The first test makes hypothesis' generator, and looks for references to it, which `gc.freeze` hides.
        given(strategies.none())(lambda nothing: None)()
    gc.collect()
    gc.freeze()


def pytest_report_header():
    gil = "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"
    facts = [f"{name}: {fact}" for name, fact in describe().items()]
    return "duck: " + "; ".join([*facts, f"GIL: {gil}", f"tasks: {'eager' if EAGER else 'ordinary'}"])


def pytest_terminal_summary(terminalreporter):
    """Writes a line for each reason of skipped tests, with their number."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())
    )
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"{number} skipped: {shorten(reason, 160)}")
