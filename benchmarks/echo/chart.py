"""The results as a chart."""

import importlib
from pathlib import Path
from typing import Any

from .summary import Figure, figures

__all__ = ["draw"]

COLUMNS = 3
DUCK, OTHER, FLOOR = "#d98a00", "#5b7f9e", "#b8b8b8"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws a panel of bars for each workload, with the rounds' spread.

    Args:
        path: Where to write; its ending says in which format, such as .svg or .png.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    matplotlib.rcParams |= {"font.size": 8, "svg.hashsalt": "duck", "svg.fonttype": "none"}
    found = figures(results)
    workloads = [workload for workload in results["workloads"] if any(name == workload["name"] for name, _ in found)]
    servers = [server for server in results["servers"] if any(name == server["name"] for _, name in found)]
    rows = -(-len(workloads) // COLUMNS)
    size = (4.4 * COLUMNS, rows * (0.7 + 0.19 * len(servers)))
    drawing, panels = pyplot.subplots(rows, COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for panel in panels.flat[len(workloads) :]:
        panel.axis("off")
    for panel, workload in zip(panels.flat, workloads, strict=False):
        _draw_panel(panel, workload, servers, found)
    drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
    pyplot.close(drawing)


def _draw_panel(
    panel: Any,
    workload: dict[str, Any],
    servers: list[dict[str, Any]],
    found: dict[tuple[str, str], Figure],
) -> None:
    shown = [
        (server, figure.value)
        for server in servers
        if (figure := found.get((workload["name"], server["name"]))) and figure.value
    ]
    medians = [value.median for _, value in shown]
    below = [value.median - value.lowest for _, value in shown]
    above = [value.highest - value.median for _, value in shown]
    panel.barh(
        [server["title"] for server, _ in shown],
        medians,
        xerr=[below, above],
        color=[_color(server["name"]) for server, _ in shown],
        error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
    )
    panel.invert_yaxis()
    better = ", less is better" if workload["lower_is_better"] else ""
    panel.set_title(f"{workload['title']}\n{workload['unit']}{better}", fontsize=8, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.locator_params(axis="x", nbins=4)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _color(name: str) -> str:
    if name.startswith("duck"):
        return DUCK
    return FLOOR if name == "floor" else OTHER
