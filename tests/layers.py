"""The layers of `duck`, and the imports between its modules, read from the source.

    python -m tests.layers            prints the graph; fails if an import runs up or in a circle
    python -m tests.layers --modules  and each module with its imports

Imports for type checkers count like all others: they hide a dependency at run time, not from a reader.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import duck

__all__ = ["LAYERS", "Graph", "read"]

ROOT = Path(duck.__file__).parent
WEBSOCKETS = "duck.contrib.websockets"

# From the bottom to the top. An entry is a module, or a folder with all that is in it; a module may import its own
# layer and those below it.
LAYERS = [
    ["duck", "duck.contrib", "duck._duckframework"],
    ["duck.http", "duck.urls", "duck.views"],
    [
        *(f"{WEBSOCKETS}.opcodes", f"{WEBSOCKETS}.state", f"{WEBSOCKETS}.exceptions", f"{WEBSOCKETS}.logging"),
        f"{WEBSOCKETS}.credentials",
    ],
    [f"{WEBSOCKETS}.codec", f"{WEBSOCKETS}._speedups"],
    [f"{WEBSOCKETS}.frame"],
    [f"{WEBSOCKETS}.extensions"],
    [f"{WEBSOCKETS}.sansio"],
    [f"{WEBSOCKETS}.compression"],
    [f"{WEBSOCKETS}.protocol"],
    [f"{WEBSOCKETS}.metrics"],
    [f"{WEBSOCKETS}.groups"],
    [f"{WEBSOCKETS}.hosts"],
    [f"{WEBSOCKETS}.settings"],
    [f"{WEBSOCKETS}.definition"],
    [f"{WEBSOCKETS}.endpoint"],
    [f"{WEBSOCKETS}.client"],
    [f"{WEBSOCKETS}.view"],
    [f"{WEBSOCKETS}.uvicorn", f"{WEBSOCKETS}.__main__", WEBSOCKETS],
    [f"{WEBSOCKETS}.testing", "duck.pytest_plugin"],
    ["duck.stdio", "duck.signal_handlers", "duck.commands"],
    ["duck.server.errors"],
    ["duck.server.application", "duck.server.listening", "duck.server.addresses", "duck.server.limits"],
    ["duck.server.options"],
    ["duck.server.http"],
    ["duck.server.server", "duck.server.shutdown", "duck.server.serving"],
    ["duck.server.process"],
    ["duck.server.workers"],
    ["duck.server.runner", "duck.server.arguments", "duck.server.cli", "duck.server"],
    ["duck.__main__"],
    ["duck.server.__main__"],
]
_LAYER = {entry: number for number, entries in enumerate(LAYERS) for entry in entries}


class Arrow(NamedTuple):
    """One module imports another."""

    source: str
    target: str


class Graph(NamedTuple):
    """The modules of `duck`, and the imports between them.

    Attributes:
        modules: Dotted names.
        arrows: Imports of one module of ours by another, sorted.
    """

    modules: list[str]
    arrows: list[Arrow]

    def running_up(self) -> list[Arrow]:
        """The imports of something that is in a higher layer."""
        return [arrow for arrow in self.arrows if layer(arrow.target) > layer(arrow.source)]

    def circles(self) -> list[list[str]]:
        """The sets of modules each of which reaches all others of its set."""
        reached = {module: self._reached(module) for module in self.modules}
        found = {
            tuple(sorted(other for other in reached[module] if module in reached[other])) for module in self.modules
        }
        return sorted(list(circle) for circle in found if circle)

    def _reached(self, module: str) -> set[str]:
        targets: dict[str, list[str]] = {}
        for arrow in self.arrows:
            targets.setdefault(arrow.source, []).append(arrow.target)
        seen: set[str] = set()
        waiting = list(targets.get(module, ()))
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting.extend(targets.get(other, ()))
        return seen


def entry(module: str) -> str:
    """The entry of LAYERS that a module belongs to."""
    name = module
    while name not in _LAYER:
        name, dot, _ = name.rpartition(".")
        if not dot:
            raise LookupError(f"{module} is in no layer: give it one in {__file__}")
    if module != name and name in (WEBSOCKETS, "duck.server", "duck", "duck.contrib"):
        raise LookupError(f"{module} is in no layer: give it one in {__file__}")
    return name


def layer(module: str) -> int:
    """The number of a module's layer; 0 is the bottom."""
    return _LAYER[entry(module)]


@cache
def read(root: Path = ROOT) -> Graph:
    """Reads the imports of every module under a package's folder."""
    paths = {_name(path, root): path for path in sorted(root.rglob("*.py"))}
    modules = {*paths, *(_name(path, root) for path in root.rglob("*.pyi"))}
    arrows = {
        Arrow(source, target)
        for source, path in paths.items()
        for target in _imports(path, source, modules)
        if target != source
    }
    return Graph(sorted(modules), sorted(arrows))


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, module: str, modules: set[str]) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it the statement stands."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{whole}.{alias.name}"
                if name in modules:
                    yield name
                elif whole in modules:
                    yield whole


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements within a node. Expressions, most of a tree, hold none."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from _statements(child)


def _lines(graph: Graph, modules: bool) -> Iterable[str]:
    counts = Counter((entry(arrow.source), entry(arrow.target)) for arrow in graph.arrows)
    for number in reversed(range(len(LAYERS))):
        for name in LAYERS[number]:
            inside = [module for module in graph.modules if entry(module) == name]
            targets = sorted(target for source, target in counts if source == name and target != name)
            arrows = ", ".join(f"{_short(target)} {counts[name, target]}" for target in targets)
            yield f"{number:2} {_short(name):23} {len(inside):3} modules -> {arrows or 'nothing'}"
            if modules and len(inside) > 1:
                for module in inside:
                    imported = [_short(arrow.target) for arrow in graph.arrows if arrow.source == module]
                    yield f"       {_short(module)}: {', '.join(imported) or 'nothing'}"
    for arrow in graph.running_up():
        yield f"runs up: {arrow.source} -> {arrow.target}"
    for circle in graph.circles():
        yield f"circle of {len(circle)}: {', '.join(map(_short, circle))}"
    yield f"{len(graph.modules)} modules, {len(graph.arrows)} imports between them, {len(counts)} arrows between layers"
    yield f"{len(graph.running_up())} imports run up; {len(graph.circles())} circles"


def _short(name: str) -> str:
    return name.removeprefix(f"{WEBSOCKETS}.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.layers", description=__doc__.splitlines()[0])
    parser.add_argument("--modules", action="store_true", help="show each module, not only layers")
    graph = read()
    print("\n".join(_lines(graph, parser.parse_args().modules)))
    return bool(graph.running_up() or graph.circles())


if __name__ == "__main__":
    sys.exit(main())
