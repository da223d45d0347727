"""Builds the compiled codec; everything else is in pyproject.toml.

DUCK_BUILD_EXTENSION says how much the codec matters to whoever builds:

    unset   try; without a working compiler the pure-Python twin is installed
    yes     a failure to compile is a failure to build (CI, binary wheels)
    no      do not try (the py3-none-any wheel)
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup

PACKAGE = "duck/contrib/websockets"
WISHES = {"": "try", "yes": "yes", "no": "no"}
# Without symbols the module has a sixth of its size. Names are those of the linkers.
STRIP = {"linux": ["-Wl,--strip-all"], "darwin": ["-Wl,-x"]}


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
                depends=sorted(glob(f"{PACKAGE}/*.h") + glob(f"{PACKAGE}/*.pxi")),
                include_dirs=[PACKAGE],
                extra_compile_args=[] if sys.platform == "win32" else ["-g0"],
                extra_link_args=STRIP.get(sys.platform, []),
            )
        ],
        language_level=3,
    )
    # cythonize() drops Extension(optional=...), so it is set on what it returns.
    for extension in built:
        extension.optional = wish != "yes"
    return built


setup(ext_modules=extensions())
