"""What all tests share: the two codecs, and a word in the header on what is being tested."""

import asyncio
import importlib
import logging
import os
import sys
import warnings
from collections import Counter
from contextlib import suppress
from textwrap import shorten

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that the codec was not built is said in the header
    from duck.contrib.websockets.codec import describe  # with DUCK_REQUIRE_SPEEDUPS=1 that ends the run

from duck.server.runner import loop_factory

pytest.register_assert_rewrite("tests.support")

from .support.fixtures import *  # noqa: E402, F403  the fixtures of all rooms

EAGER = os.environ.get("DUCK_TEST_EAGER", "") not in ("", "0")
"""Whether tasks run from their creation on to their first wait, as some applications have them do (Python 3.12)."""


def pytest_configure():
    with suppress(ImportError):  # benchmarks do without
        from hypothesis import settings

        settings.register_profile("duck", deadline=None)  # a deadline is wall time, and a test machine may be busy
        settings.load_profile("duck")
    if os.environ.get("PYTHONASYNCIODEBUG"):  # then it tells of selectors and slow callbacks, among what tests look for
        logging.getLogger("asyncio").setLevel(logging.ERROR)


def eager_task(loop, coroutine, *, eager_start=None, **options):
    """As asyncio.eager_task_factory, which before Python 3.13.3 does not take the `eager_start` that uvloop passes."""
    return asyncio.Task(coroutine, loop=loop, eager_start=eager_start is not False, **options)


def pytest_report_header():
    gil = "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"
    facts = [f"{name}: {fact}" for name, fact in describe().items()]
    return "duck: " + "; ".join([*facts, f"GIL: {gil}", f"tasks: {'eager' if EAGER else 'ordinary'}"])


@pytest.fixture
def eager_tasks():
    """A factory of tasks that run from their creation on to their first wait."""
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("before Python 3.12 no task starts eagerly")
    return eager_task


@pytest.fixture
def runner(loop_name):
    """What runs coroutines on a loop of that kind; with DUCK_TEST_EAGER=1 its tasks are eager."""
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        if EAGER:
            runner.get_loop().set_task_factory(eager_task)
        yield runner


def pytest_terminal_summary(terminalreporter):
    """A line for each reason to skip tests, with their number."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())
    )
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"{number} skipped: {shorten(reason, 160)}")


@pytest.fixture(scope="session", params=["codec.pure", "_speedups"], ids=["python", "compiled"])
def codec(request):
    """Each of the two codecs; skips the compiled one where it was not built."""
    try:
        return importlib.import_module(f"duck.contrib.websockets.{request.param}")
    except ImportError as error:
        pytest.skip(f"the compiled codec does not load: {error}")
