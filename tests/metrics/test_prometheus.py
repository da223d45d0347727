"""The metrics for Prometheus: their format, their address, and the sum of several workers."""

import json
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect

from duck.contrib.websockets.metrics import HistogramStats, Metrics, Stats

from ..support.commands import Process, run_command

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from duck.contrib.websockets.metrics.prometheus import Collector, render  # noqa: E402

APPLICATION = """
from duck.contrib.websockets import WebSocketView

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)
"""


def samples(text):
    """The samples of an exposition, by name and labels."""
    families = text_string_to_metric_families(text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_a_collector_reports_the_numbers_of_the_moment():
    metrics = Metrics()
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    registry.register(Collector(metrics))
    metrics.counters.opened += 3
    metrics.counters.note(("close", "1000", "peer"))
    metrics.counters.handlers.observe(0.002)
    metrics.counters.handlers.observe(100.0)
    found = samples(prometheus_client.generate_latest(registry).decode())
    assert found["websocket_connections_open",] == 2
    assert found["websocket_connections_total",] == 3
    assert found["websocket_closes_total", "1000", "peer"] == 1
    assert found["websocket_handler_seconds_bucket", "0.001"] == 0
    assert found["websocket_handler_seconds_bucket", "0.0025"] == 1
    assert found["websocket_handler_seconds_bucket", "+Inf"] == found["websocket_handler_seconds_count",] == 2
    assert found["websocket_handler_seconds_sum",] == pytest.approx(100.002)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector(Metrics()))
    other = Metrics()
    registry.register(Collector(other, namespace="feed"))
    other.counters.opened += 1
    other.counters.handlers.observe(0.002)
    found = samples(prometheus_client.generate_latest(registry).decode())
    assert (found["websocket_connections_total",], found["feed_websocket_connections_total",]) == (3, 1)
    assert found["feed_websocket_handler_seconds_count",] == 1


def test_every_number_is_reported():
    """Each number has another value, and each value is in the text."""
    at = iter(range(1000, 2000))

    def value(kind):
        if isinstance(kind, HistogramStats):
            return HistogramStats(kind.bounds, (next(at),) + (0,) * len(kind.bounds), float(next(at)))
        if isinstance(kind, dict):
            return {key: next(at) for key in kind or ["label"]}
        return next(at)

    empty = Stats()
    values = {name: value(getattr(empty, name)) for name in empty.as_dict() if name != "closed"}
    stats = Stats(**values, closed={"local": {"1001": next(at)}})
    numbers = {*range(1000, next(at))}
    assert numbers <= {int(number) for number in samples(render(stats).decode()).values()}


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_the_address_of_metrics_has_the_sum_of_all_workers(tmp_path):
    (tmp_path / "app.py").write_text(APPLICATION)
    options = ("--port", 0, "--workers", 2, "--metrics", "127.0.0.1:0")
    with Process(tmp_path, "app.py", *options) as server:
        url = re.search(r"metrics at (\S+)", server.until_told("metrics at"))[1]

        def scrape():
            with urllib.request.urlopen(url, timeout=30) as response:
                assert response.headers["Content-Type"].startswith("text/plain; version=")
                return samples(response.read().decode())

        with connect(server.address, proxy=None) as client:
            client.send("hello")
            client.recv(30)
            found = scrape()
            assert found["websocket_connections_open",] == 1
            assert found["websocket_messages_received_total", "text"] == 1
        with connect(server.address, proxy=None):
            pass
        server.process.send_signal(signal.SIGHUP)  # the numbers of replaced workers are kept
        for _ in range(2):
            server.until_told("serves ws://")
        for _ in range(2):
            server.until_told("serves ws://")
        found = scrape()
        assert found["websocket_connections_total",] == 2
        assert found["websocket_connections_open",] == 0
        assert found["websocket_closes_total", "1000", "peer"] == 2
        assert server.stop(signal.SIGTERM)[0] == 0


def test_an_address_that_is_in_use_ends_the_command(tmp_path):
    (tmp_path / "app.py").write_text(APPLICATION)
    with Process(tmp_path, "app.py", "--port", 0, "--metrics", "127.0.0.1:0") as server:
        address = re.search(r"metrics at http://([^/]+)", server.until_told("metrics at"))[1]
        for workers in (1, 2):
            result = run_command(tmp_path, "serve", "app.py", "--port", 0, "--metrics", address, "--workers", workers)
            assert result.returncode == 2
            assert f"cannot serve metrics at {address}" in result.stderr.splitlines()[-1]


DASHBOARD = Path(__file__).parents[2] / "examples/grafana/websockets.json"


@pytest.mark.skipif(not DASHBOARD.is_file(), reason="the examples are not installed")
def test_the_dashboard_shows_existing_metrics_and_labels():
    label = {"label": 1}
    stats = Stats(refused=label, dropped=label, paused=label, closed={"peer": {"1000": 1}})
    labels = {}
    for family in text_string_to_metric_families(render(stats).decode()):
        for one in family.samples:
            labels.setdefault(one.name, set()).update(one.labels)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    shown = set()
    for target in (target for panel in panels for target in panel["targets"]):
        names = set(re.findall(r"websocket_\w+", target["expr"]))
        assert names <= {*labels}, target
        shown |= names
        wanted = {name.strip() for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for name in by.split(",")}
        wanted |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert all(wanted <= labels[name] for name in names), target
    parts = {
        f"{name}{end}"
        for name in ("websocket_handler_seconds", "websocket_ping_round_trip_seconds")
        for end in ("_sum", "_count")
    }
    assert {*labels} - shown <= parts | {"websocket_waiting_peak_messages"}
