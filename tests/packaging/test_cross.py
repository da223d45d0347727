"""The whole codec, compiled for other systems. It takes minutes, and needs ziglang and Cython."""

import subprocess
import sys
import sysconfig

import pytest

pytest.importorskip("ziglang")
pytest.importorskip("Cython")

ELF, MACH_O = b"\x7fELF", b"\xcf\xfa\xed\xfe"

# The first bytes of the object files: COFF with the number of the machine.
TARGETS = {
    "aarch64-linux-gnu": ELF,
    "x86_64-linux-musl": ELF,
    "aarch64-linux-musl": ELF,
    "riscv64-linux-gnu": ELF,
    "x86_64-macos": MACH_O,
    "aarch64-macos": MACH_O,
    "x86_64-windows-gnu": b"\x64\x86",
    "aarch64-windows-gnu": b"\x64\xaa",
}


@pytest.fixture(scope="module")
def source(root, tmp_path_factory):
    """The C source that Cython makes."""
    made = tmp_path_factory.mktemp("cross") / "_speedups.c"
    package = root / "duck/contrib/websockets"
    command = [sys.executable, "-P", "-m", "cython", "-3", package / "_speedups.pyx", "-o", made]
    subprocess.run(command, check=True, cwd=root)
    return made


@pytest.mark.parametrize("target", TARGETS)
def test_the_codec_compiles_for_other_systems(target, source, root):
    made = source.with_name(f"{target}.o")
    folders = [sysconfig.get_path("include"), root / "duck/contrib/websockets/codec"]
    options = ["-O2", "-c", *(f"-I{folder}" for folder in folders)]
    if "windows" in target:
        # Before Python 3.13, Python.h includes the pyconfig.h beside it, whatever the folders.
        options += ["-include", root / "tests/packaging/windows/pyconfig.h"]
    # clang counts a shift in a branch of Cython's that is not taken where `long` has 32 bits.
    options += ["-Wall", "-Werror", "-Wno-shift-count-overflow"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *options, source, "-o", made]
    subprocess.run(command, check=True)
    assert made.read_bytes().startswith(TARGETS[target])
