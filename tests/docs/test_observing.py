"""The recipes for Prometheus, for OpenTelemetry and for logs as JSON."""

import asyncio
import json
import subprocess
import sys

import pytest

from duck.contrib.websockets.client import connect
from duck.contrib.websockets.metrics import Metrics
from duck.server import serve

from .snippets import SNIPPETS, block, blocks, pages

(PAGE,) = [page for page in pages() if page.stem == "observing"]


def test_opentelemetry_exports_the_numbers():
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    (source,) = [source for _, source in SNIPPETS if "def instrument" in source]
    names = {}
    exec(source, names)
    metrics = Metrics()
    metrics.counters.opened += 3
    metrics.counters.note(("close", "1000", "peer"))
    metrics.counters.note(("refused", "origin"), 5)
    reader = export.InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])
    names["instrument"](provider.get_meter("test"), metrics)
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    found = {
        (metric.name, *point.attributes.values()): point.value
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    provider.shutdown()
    assert found["websocket.connections",] == 2
    assert found["websocket.received", "text"] == found["websocket.received.size", "binary"] == 0
    assert found["websocket.refused", "origin"] == 5


async def test_a_page_has_the_numbers_of_the_application_and_of_its_connections(execute):
    pytest.importorskip("prometheus_client")
    page = execute(block("def numbers"))
    async with serve(page["urlpatterns"], port=0, lifespan=page["lifespan"]) as server:
        page["orders"].inc()
        async with connect(f"{server.addresses[0]}/shout/lobby") as ws:
            await ws.send("quack")
            await ws.recv()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            text = (await reader.read()).decode()
            writer.close()
    assert "orders_total 1.0\n" in text
    assert "websocket_connections_open 1.0\n" in text


LOG = """
import logging
from duck.server.process.log_config import LogOptions

LogOptions(file="logging.json").apply()
logging.getLogger("duck.access").info("a %s", "line")
try:
    raise ZeroDivisionError("as asked for")
except ZeroDivisionError:
    logging.getLogger("duck.server").exception("failed")
"""


def test_logs_are_lines_of_json(tmp_path):
    pytest.importorskip("pythonjsonlogger")
    (config,) = blocks(PAGE, "json")
    (tmp_path / "logging.json").write_text(config)
    run = subprocess.run([sys.executable, "-c", LOG], cwd=tmp_path, check=True, capture_output=True, text=True)
    first, second = map(json.loads, run.stderr.splitlines())
    assert {"time", "level", "logger", "pid", "message"} == {*first}
    assert (first["level"], first["logger"], first["message"]) == ("INFO", "duck.access", "a line")
    assert second["level"] == "ERROR" and "ZeroDivisionError: as asked for" in second["exc_info"]


REPORTING = """
import sentry_sdk
from sentry_sdk.transport import Transport


class Events(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        print(event["exception"]["values"][-1]["type"], event["tags"])


sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", transport=Events)

from duck.contrib.websockets.testing import connect
from duck.urls import path
from reported import Reported


class Failing(Reported):
    async def on_receive(self, message, opcode):
        sentry_sdk.set_tag(message.decode(), "set")
        if message == b"fail":
            raise ValueError(message)
        await super().on_receive(message, opcode)


routes = [path("/shout/<room>", Failing)]
with connect(routes, "/shout/tea", raise_errors=False) as tea, connect(routes, "/shout/milk") as milk:
    milk.send("other")
    milk.recv()
    tea.send("fail")
    tea.wait_closed()
"""


def test_sentry_reports_the_exception_of_a_hook_with_the_tags_of_its_connection(folder):
    pytest.importorskip("sentry_sdk")
    (folder / "reported.py").write_text(block("class Reported"))
    script = subprocess.run(
        [sys.executable, "-c", REPORTING], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert script.stdout == "ValueError {'room': 'tea', 'fail': 'set'}\n", script.stderr
