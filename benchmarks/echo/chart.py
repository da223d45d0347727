"""The results as a chart: an SVG whose text stays text, a line for each element."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .summary import Figure, Spread, figures, ratios

__all__ = ["SERIES", "draw", "draw_ratios"]

COLUMNS = 3
WIDTH = 350  # of a panel, in pixels, as all that follows
LABEL = 146  # for the names of servers
BAR, STEP = 11, 15
TOP, BOTTOM, GAP = 34, 24, 14
LETTER = 6  # about the width of one
SERIES = ["#5b7f9e", "#9dbbd3", "#b8b8b8"]
DUCK, OTHER, FLOOR = "duck", "other", "floor"
STYLE = """
text { font: 10px sans-serif; fill: #222 }
.duck { fill: #d98a00 } .other { fill: #5b7f9e } .floor { fill: #b8b8b8 }
.title { font-weight: bold } .unit, .tick { fill: #666 } .name { text-anchor: end } .tick { text-anchor: middle }
path { stroke: #444; stroke-width: 0.8; fill: none } .grid { stroke: #ddd }
.ours { stroke: #d98a00; stroke-width: 2 }
"""


@dataclass(frozen=True)
class Panel:
    """The bars of one workload."""

    workload: dict[str, Any]
    bars: list[tuple[dict[str, Any], Spread]]

    @property
    def height(self) -> int:
        return TOP + STEP * len(self.bars) + BOTTOM


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws a panel of bars for each workload, with the range of the rounds.

    Args:
        path: The SVG file to write.
    """
    found = figures(results)
    panels = [_panel(workload, results["servers"], found) for workload in results["workloads"]]
    path.write_text("\n".join(_picture([panel for panel in panels if panel.bars])) + "\n", encoding="utf-8")


def draw_ratios(results: dict[str, Any], path: Path, ours: str, others: list[str]) -> None:
    """Draws a panel of bars with the speed of a few servers in each workload, as multiples of one of them.

    Args:
        path: The SVG file to write.
        ours: The server whose speed is 1.
        others: The servers beside it, from top to bottom.
    """
    spreads = ratios(results, ours)
    titles = {server["name"]: server["title"] for server in results["servers"]}
    rows = [
        (
            workload["title"],
            [(name, spreads[workload["name"], name]) for name in others if (workload["name"], name) in spreads],
        )
        for workload in results["workloads"]
        if not workload["lower_is_better"]
    ]
    path.write_text("\n".join(_ratios([row for row in rows if row[1]], titles, ours, others)) + "\n", encoding="utf-8")


def _ratios(
    rows: list[tuple[str, list[tuple[str, Spread]]]], titles: dict[str, str], ours: str, others: list[str]
) -> Iterator[str]:
    label, step = max(len(title) for title, _ in rows) * LETTER, 9
    ticks = _ticks(max(1, *(value.median for _, values in rows for _, value in values)))
    scale = 380 / ticks[-1]
    height = TOP + sum(step * len(values) + 8 for _, values in rows) + BOTTOM
    yield from _opening(label + 380 + 60, height)
    yield f'<text class="title" x="10" y="16">Speed, where {escape(titles[ours])} is 1; more is better</text>'
    for number, name in enumerate(others):
        x = label + 130 * number
        yield f'<rect style="fill: {SERIES[number]}" x="{x}" y="8" width="{BAR}" height="{BAR}"/>'
        yield f'<text x="{x + 16}" y="17">{escape(titles[name])}</text>'
    for tick in ticks:
        x = label + tick * scale
        yield f'<path class="grid" d="M{x:.1f} {TOP - 6}V{height - BOTTOM}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 14}">{tick:g}</text>'
    y = TOP
    for title, values in rows:
        yield f'<text class="name" x="{label - 6}" y="{y + step * len(values) / 2 + 4:.1f}">{escape(title)}</text>'
        for name, value in values:
            style, width = f"fill: {SERIES[others.index(name)]}", value.median * scale
            yield f'<rect style="{style}" x="{label}" y="{y}" width="{width:.1f}" height="{step - 1}"/>'
            yield f'<text class="tick" x="{label + width + 14:.1f}" y="{y + step - 1}">{value.median:.2f}</text>'
            y += step
        y += 8
    yield f'<path class="ours" d="M{label + scale:.1f} {TOP - 6}V{height - BOTTOM}"/>'
    yield "</svg>"


def _opening(width: int, height: int) -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    yield f"<style>{STYLE}</style>"
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'


def _panel(workload: dict[str, Any], servers: list[dict[str, Any]], found: dict[tuple[str, str], Figure]) -> Panel:
    measured = [(server, found.get((workload["name"], server["name"]))) for server in servers]
    return Panel(workload, [(server, figure.value) for server, figure in measured if figure and figure.value])


def _picture(panels: list[Panel]) -> Iterator[str]:
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    heights = [max(panel.height for panel in row) for row in rows]
    width, height = COLUMNS * (WIDTH + GAP) + GAP, sum(heights) + GAP * (len(rows) + 1)
    yield from _opening(width, height)
    top = GAP
    for row, tallest in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            yield f'<g transform="translate({GAP + column * (WIDTH + GAP)} {top})">'
            yield from _drawn(panel)
            yield "</g>"
        top += tallest + GAP
    yield "</svg>"


def _drawn(panel: Panel) -> Iterator[str]:
    workload = panel.workload
    better = ", less is better" if workload["lower_is_better"] else ""
    for number, line in enumerate(_wrapped(workload["title"], WIDTH // LETTER)):
        yield f'<text class="title" y="{10 + 12 * number}">{escape(line)}</text>'
    ticks = _ticks(max(value.highest for _, value in panel.bars))
    scale = (WIDTH - LABEL - 30) / ticks[-1]
    bottom = TOP + STEP * len(panel.bars)
    yield f'<text class="unit" y="{bottom + 12}">{workload["unit"]}{better}</text>'
    for tick in ticks:
        x = LABEL + tick * scale
        yield f'<path class="grid" d="M{x:.1f} {TOP - 3}V{bottom}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 12}">{_short(tick)}</text>'
    for number, (server, value) in enumerate(panel.bars):
        y = TOP + STEP * number
        yield f'<text class="name" x="{LABEL - 4}" y="{y + 9}">{escape(server["title"])}</text>'
        width = f"{value.median * scale:.1f}"
        yield f'<rect class="{_kind(server["name"])}" x="{LABEL}" y="{y}" width="{width}" height="{BAR}"/>'
        lowest, highest = LABEL + value.lowest * scale, LABEL + value.highest * scale
        yield f'<path d="M{lowest:.1f} {y + BAR / 2}H{highest:.1f}"/>'


def _wrapped(words: str, length: int) -> list[str]:
    """One line, or two."""
    if len(words) <= length:
        return [words]
    cut = words.rfind(" ", 0, length)
    return [words[:cut], words[cut + 1 :]]


def _ticks(highest: float) -> list[float]:
    """Round numbers from 0 on, three to five of them, the last of which is not below `highest`."""
    if highest <= 0:
        return [0, 1]
    power = 10 ** math.floor(math.log10(highest))
    step = next(step * power for step in (0.25, 0.5, 1, 2.5, 5) if step * power * 4 >= highest)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def _short(number: float) -> str:
    for unit, factor in (("M", 10**6), ("k", 10**3)):
        if number >= factor:
            return f"{number / factor:g}{unit}"
    return f"{number:g}"


def _kind(name: str) -> str:
    if name.startswith("duck"):
        return DUCK
    return FLOOR if name == "floor" else OTHER
