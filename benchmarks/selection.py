"""The choice of servers, clients and workloads by the names on a command line, and the packages that they require."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, TypeVar

__all__ = ["Packaged", "select"]


class Packaged:
    """A server or a client that requires packages, by their names for pip."""

    packages: tuple[str, ...]

    def versions(self) -> dict[str, str]:
        """The installed versions of its packages."""
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def missing(self) -> str | None:
        """The command that installs missing packages; None if none is missing."""
        missing = [package for package in self.packages if package not in self.versions()]
        return f"not installed: pip install {' '.join(missing)}" if missing else None


class Named(Protocol):
    """A server, a client or a workload."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def select(names: str, among: Iterable[T], kind: str) -> list[T]:
    """Items by their names, in the order of the names.

    Args:
        names: With commas between; "all" for all.
        among: The items to choose from.
        kind: The word for an item in the error.

    Raises:
        ValueError: There is no item of that name.
    """
    by_name = {item.name: item for item in among}
    if names == "all":
        return list(by_name.values())
    wanted = dict.fromkeys(names.split(","))
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise ValueError(f"no {kind} is named {' or '.join(unknown)}, only {', '.join(by_name)}")
    return [by_name[name] for name in wanted]
