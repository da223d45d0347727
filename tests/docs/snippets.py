"""The Python blocks of the documents.

A block whose first line is a comment with a file name, such as `# shout.py`, is that file; the blocks of all pages may
import it. Blocks that begin with ```py have code for other packages, which `test_migrating` runs.
"""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["MODULES", "ROOT", "SNIPPETS", "Snippet", "block", "blocks", "pages", "skip_without_imports"]

ROOT = Path(__file__).parents[2]


class Snippet(NamedTuple):
    """A block.

    Attributes:
        name: The page and the number of the block on it, as part of a file name.
        source: The text.
    """

    name: str
    source: str


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in a language, without their fences."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def _snippets() -> Iterator[Snippet]:
    for page in pages():
        for number, source in enumerate(blocks(page, "python")):
            yield Snippet(f"{page.stem.lower()}_{number}", source)


SNIPPETS = list(_snippets())


def block(word: str) -> str:
    """The only Python block with a word in it."""
    (found,) = {source for _, source in SNIPPETS if word in source}
    return found


MODULES: dict[str, str] = {}
"""The sources of the files, by their names."""
for _, text in SNIPPETS:
    if named := re.match(r"# (\w+\.py)\n", text):
        assert MODULES.setdefault(named[1], text) == text, f"two pages differ in {named[1]}"


def skip_without_imports(source: str) -> None:
    """Skips the running test if a package is missing that a block imports, or a file of the documents behind it."""
    for name in re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE):
        if f"{name}.py" in MODULES:
            skip_without_imports(MODULES[f"{name}.py"])
        elif importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
