"""Builds the compiled codec; everything else is in pyproject.toml.

DUCK_BUILD_EXTENSION says how much the codec matters to whoever builds:

    unset   try; without a working compiler the pure-Python twin is installed
    yes     a failure to compile is a failure to build (CI, binary wheels)
    no      do not try (the py3-none-any wheel)
"""

import os

from setuptools import Extension, setup

PARTS = ("_simd.h", "_simd_tier.h", "_socket.h", "_writer.pxi", "_hotpath.pxi")
PACKAGE = "duck/contrib/websockets"
WISHES = {"": "try", "yes": "yes", "no": "no"}


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
                depends=[f"{PACKAGE}/{name}" for name in PARTS],
                include_dirs=[PACKAGE],
            )
        ],
        language_level=3,
    )
    # cythonize() drops Extension(optional=...), so it is set on what it returns.
    for extension in built:
        extension.optional = wish != "yes"
    return built


setup(ext_modules=extensions())
