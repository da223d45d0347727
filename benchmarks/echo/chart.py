"""The results as a chart: an SVG whose text stays text, a line for each element."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .summary import Figure, Spread, figures

__all__ = ["draw"]

COLUMNS = 3
WIDTH = 350  # of a panel, in pixels, as all that follows
LABEL = 146  # for the names of servers
BAR, STEP = 11, 15
TOP, BOTTOM, GAP = 34, 24, 14
LETTER = 6  # about the width of one
DUCK, OTHER, FLOOR = "duck", "other", "floor"
STYLE = """
text { font: 10px sans-serif; fill: #222 }
.duck { fill: #d98a00 } .other { fill: #5b7f9e } .floor { fill: #b8b8b8 }
.title { font-weight: bold } .unit, .tick { fill: #666 } .name { text-anchor: end } .tick { text-anchor: middle }
path { stroke: #444; stroke-width: 0.8; fill: none } .grid { stroke: #ddd }
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


def _panel(workload: dict[str, Any], servers: list[dict[str, Any]], found: dict[tuple[str, str], Figure]) -> Panel:
    measured = [(server, found.get((workload["name"], server["name"]))) for server in servers]
    return Panel(workload, [(server, figure.value) for server, figure in measured if figure and figure.value])


def _picture(panels: list[Panel]) -> Iterator[str]:
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    heights = [max(panel.height for panel in row) for row in rows]
    width, height = COLUMNS * (WIDTH + GAP) + GAP, sum(heights) + GAP * (len(rows) + 1)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    yield f"<style>{STYLE}</style>"
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
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
