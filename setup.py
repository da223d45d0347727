"""Builds the compiled codec, and fits the README for a package index; everything else is in pyproject.toml.

The environment variable DUCK_BUILD_EXTENSION selects the codec of a build:

    unset   the compiled one, or without a working compiler the pure-Python twin
    yes     the compiled one; the build fails if it cannot be compiled (CI, binary wheels)
    no      the pure-Python twin (the py3-none-any wheel)
"""

import os
import re
import sys
import tomllib
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

PACKAGE = "duck/contrib/websockets"
WISHES = {"": "try", "yes": "yes", "no": "no"}
# Without symbols the module has a sixth of its size. Names are those of the linkers.
STRIP = {"linux": ["-Wl,--strip-all"], "darwin": ["-Wl,-x"]}

CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")


def readme():
    """README.md for a package index, which has no files beside it.

    Links to files lead to the project's Source in pyproject.toml; as long as there is none, they are plain text, and
    pictures are left out.
    """
    with open("pyproject.toml", "rb") as file:
        source = tomllib.load(file)["project"]["urls"].get("Source")

    def fit(link):
        picture, words, target = link.groups()
        if source is not None:
            return f"{picture}[{words}]({source}/{'raw' if picture else 'blob'}/HEAD/{target})"
        return "" if picture else words

    # Every second part is code.
    parts = CODE.split(Path("README.md").read_text(encoding="utf-8"))
    return "".join(part if number % 2 else RELATIVE_LINK.sub(fit, part) for number, part in enumerate(parts))


def extensions():
    wish = os.environ.get("DUCK_BUILD_EXTENSION", "")
    if wish not in WISHES:
        raise SystemExit(f"DUCK_BUILD_EXTENSION={wish!r}: set it to yes or no, or unset it")
    if wish == "no":
        return []
    from Cython.Build import cythonize

    built = cythonize(
        [
            Extension(
                "duck.contrib.websockets._speedups",
                [f"{PACKAGE}/_speedups.pyx"],
                depends=sorted(glob(f"{PACKAGE}/codec/*.h") + glob(f"{PACKAGE}/codec/*.pxi")),
                include_dirs=[f"{PACKAGE}/codec"],
                extra_compile_args=[] if sys.platform == "win32" else ["-g0"],
                extra_link_args=STRIP.get(sys.platform, []),
            )
        ],
        language_level=3,
    )
    # cythonize() drops Extension(optional=...), so it is set on the results.
    for extension in built:
        extension.optional = wish != "yes"
    return built


setup(ext_modules=extensions(), long_description=readme(), long_description_content_type="text/markdown")
