"""The configuration of Sphinx. `sphinx-build -W docs build/docs` builds the documents."""

from typing import Any

from duck.contrib.websockets import WebSocketView, __version__
from duck.contrib.websockets.settings import BY_NAME, SETTINGS, Setting, markdown_table

project = "duck-websockets"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["html_image"]  # forges show it as well
suppress_warnings = ["misc.highlighting_failure"]
default_role = "code"  # docstrings have single backticks around names
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"duck-websockets {version}"
html_copy_source = False


html_show_copyright = False


def _show_settings(app: Any, docname: str, source: list[str]) -> None:
    """Replaces the table of the settings by entries that can be linked to."""
    table = markdown_table(WebSocketView)
    if table in source[0]:
        source[0] = source[0].replace(table, "\n".join(["```{eval-rst}", *_entries(), "```"]))


def _entries() -> list[str]:
    return [_entry(setting) for setting in SETTINGS if hasattr(WebSocketView, setting.name)]


def _entry(setting: Setting) -> str:
    default = getattr(WebSocketView, setting.name)
    unit = f" Unit: {setting.unit}." if setting.unit else ""
    return (
        f".. py:attribute:: duck.contrib.websockets.WebSocketView.{setting.name}\n"
        f"   :value: {default!r}\n\n   {setting.meaning}{unit}\n"
    )


def _skip_setting(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves the settings of a view to their own page; None does not decide."""
    return True if what == "class" and name in BY_NAME else None


def _edit_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Converts drawings, code and Markdown's tables in docstrings, before napoleon reads them."""
    lines[:] = _with_tables(_with_literal_blocks(lines))


_SECTIONS = {"Args:", "Attributes:", "Raises:", "Returns:", "Yields:"}


def _with_literal_blocks(lines: list[str]) -> list[str]:
    found: list[str] = []
    inside = False
    for line in lines:
        if line.startswith("    ") and not inside and found and not found[-1]:
            found += ["::", ""]
            inside = True
        elif line and not line.startswith(" "):
            inside = line in _SECTIONS
        found.append(line)
    return found


def _with_tables(lines: list[str]) -> list[str]:
    found: list[str] = []
    inside = False
    for line in lines:
        is_row = line.startswith("| ")
        if is_row and not inside:
            found += [".. list-table::", "   :header-rows: 1", ""]
        inside = is_row
        if not is_row:
            found.append(line)
        elif not line.startswith("| ---"):
            first, *others = [cell.strip() for cell in line[1:-1].split("|")]
            found += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return found


def setup(app: Any) -> None:
    app.connect("source-read", _show_settings)
    app.connect("autodoc-skip-member", _skip_setting)
    app.connect("autodoc-process-docstring", _edit_docstring, priority=400)
