"""Detection of Duck Framework in the same environment: both packages are named `duck`, and overwrite each other."""

import os

__all__ = ["EXPLANATION", "is_beside"]

EXPLANATION = (
    "duck-websockets and duckframework are installed in the same environment. Both own the package `duck`, so the one"
    " that was installed last has replaced files of the other. Give each an environment of its own: here, run"
    " `pip uninstall -y duck-websockets duckframework`, and install the one that you want. To use these views inside"
    " Duck Framework, copy the folder duck/contrib/websockets of this package over that of the framework."
)


def is_beside() -> bool:
    """Whether the framework's files are among ours; one access to the file system."""
    return os.path.exists(os.path.join(os.path.dirname(__file__), "settings", "__init__.py"))
