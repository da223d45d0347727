"""`load`: imports the application that a command line names, from a file or a module."""

import importlib
import importlib.util
import os
import sys
import traceback
from contextvars import ContextVar
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from duck.views import View

from ..errors import ServingError
from .routes import UVICORN, Routes, is_asgi

__all__ = ["Target", "TargetError", "current_folder", "is_importing", "load"]

# `importlib` has no file in some frozen programs.
_OURS = (str(Path(__file__).parents[2]) + os.sep, importlib.import_module.__code__.co_filename, "<frozen importlib")


_importing = ContextVar("_importing", default=False)


class Target(NamedTuple):
    """An application.

    Attributes:
        urlpatterns: Its routes, or its only view.
        lifespan: The `lifespan` of its module; None without one.
    """

    urlpatterns: Any
    lifespan: Any


class TargetError(ServingError):
    """A target does not name an application."""


def load(target: str) -> Target:
    """Imports a target, and the `lifespan` of its module.

    Args:
        target: The path of a Python file or the name of a module, and `:attribute` for another attribute than
            `urlpatterns`, or else the only `View` class that the module defines.

    Raises:
        TargetError: The target does not exist, its import fails, or the routes are malformed.
    """
    name, _, attribute = (target, "", "") if target.endswith(".py") else target.rpartition(":")
    if not name:
        name, attribute = target, ""
    before = _importing.set(True)
    try:
        module = _import_file(Path(name)) if name.endswith(".py") else _import_module(name, target)
    finally:
        _importing.reset(before)
    try:
        found = reduce(getattr, attribute.split("."), module) if attribute else _default(module, target)
    except AttributeError:
        raise TargetError(f"{name} has no {attribute!r}; check the name behind the colon") from None
    return _checked(target, found, module)


def current_folder() -> Path:
    """Returns the current folder.

    Raises:
        TargetError: It has been removed, as that of an earlier release of the application.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise TargetError("the current folder has been removed; change to another one") from None


def is_importing() -> bool:
    """Whether a module of a target, whose import is under way, calls this."""
    return _importing.get()


def _checked(target: str, urlpatterns: Any, module: ModuleType) -> Target:
    try:
        Routes(urlpatterns)
    except (TypeError, ValueError) as error:
        raise TargetError(f"{target}: {error}") from error
    return Target(urlpatterns, getattr(module, "lifespan", None))


def _default(module: ModuleType, target: str) -> Any:
    if hasattr(module, "urlpatterns"):
        return module.urlpatterns
    views = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, View) and value.__module__ == module.__name__
    ]
    found = (name for name, value in vars(module).items() if not isinstance(value, type) and is_asgi(value))
    if application := next(found, ""):  # no class, such as `Request` of Starlette, which has the same arguments
        raise TargetError(
            f"{target} has an ASGI application: serve it by {_uvicorn_command(target, application)}, "
            f"or name a view or routes as {target}:attribute"
        )
    if len(views) == 1:
        return views[0]
    raise TargetError(
        f"{target} has no urlpatterns and defines {len(views) or 'no'} views; "
        f"define urlpatterns, or name a view or routes as {target}:attribute"
    )


def _uvicorn_command(target: str, application: str) -> str:
    path = Path(target)
    if path.suffix != ".py":
        return f"uvicorn {target}:{application} --ws {UVICORN}"
    folder = f" --app-dir {path.parent}" if path.parent != Path() else ""
    return f"uvicorn {path.stem}:{application}{folder} --ws {UVICORN}"


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"{path}: no such file; give the path of a Python file, or a module's name")
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        return importlib.import_module(path.stem) if _has_own_name(path) else _import_nameless(path)
    except (Exception, SystemExit) as error:
        raise _failure(str(path), error) from error


def _has_own_name(path: Path) -> bool:
    """Whether the file is the module of its name, which no other one has.

    Child processes of multiprocessing, pickles and other modules of the application import it by that name.
    """
    if "." in path.stem:
        return False
    try:
        spec = importlib.util.find_spec(path.stem)  # of the imported module, if there is one
        return spec is not None and spec.has_location and os.path.samefile(str(spec.origin), path)
    except (ValueError, OSError):  # a module without a spec, or of an archive
        return False


def _import_nameless(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("__duck_target__", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str, target: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")) or Path(name).is_file():
        raise TargetError(f"{target!r} names no module; give the path of a Python file, or a module's name")
    sys.path.insert(0, str(current_folder()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            words = "run this from the folder that holds it, or give the path of a .py file"
            parent, _, attribute = error.name.rpartition(".")
            if parent in sys.modules and hasattr(sys.modules[parent], attribute):
                words = f"did you mean {parent}:{attribute}?"
            raise TargetError(f"{target}: no module {error.name!r}; {words}") from None
        raise _failure(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failure(name, error) from error


def _failure(name: str, error: Exception | SystemExit) -> TargetError:
    """Describes an error in the application: one line with its place there, and its traceback."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    words = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        words, place, line = error.msg, error.filename, error.lineno
    else:
        theirs = [frame for frame in traceback.extract_tb(frames) if not frame.filename.startswith(_OURS)]
        place, line = (theirs[-1].filename, theirs[-1].lineno) if theirs else (None, None)
    if place and "no known parent package" in words:  # of a relative import
        words += f"; serve the file as a module of its package: {Path(place).parent.name}.{Path(place).stem}"
    where = f" ({place}, line {line})" if place else ""
    details = "".join(traceback.format_exception(error.with_traceback(frames))) if where else ""
    return TargetError(f"{name} cannot be imported: {type(error).__name__}: {words}{where}", details)
