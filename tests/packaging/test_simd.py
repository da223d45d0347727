"""The C loops without Python, against loops over single bytes: every tier, on this processor and on emulated ones."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

X86_TIERS = ["words", "sse2", "ssse3", "avx2"]


def compiler(target):
    """The command that compiles for a target; for this machine when None."""
    if target is None:
        found = shutil.which(os.environ.get("CC", "cc"))
        return [found] if found else pytest.skip("there is no C compiler")
    if find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")
    return [sys.executable, "-m", "ziglang", "cc", "-target", target, "-static"]


def emulator(machine):
    """The command that runs another machine's programs."""
    found = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
    return found or pytest.skip(f"qemu-{machine} is not installed")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Compiles simd.c for a target, once."""
    return {}, tmp_path_factory.mktemp("simd")


@pytest.fixture
def tried(programs, root):
    """The tiers that simd.c has tried, compiled for a target and run by a command."""
    built, folder = programs

    def run(target, *command):
        if target not in built:
            program = folder / str(target)
            sources = f"-I{root / 'duck/contrib/websockets/codec'}", root / "tests/packaging/simd.c"
            command_line = [*compiler(target), "-O2", "-Wall", "-Wextra", "-Werror", *sources, "-o", program]
            subprocess.run(command_line, check=True)
            built[target] = program
        process = subprocess.run([*command, built[target]], capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout.split()

    return run


def test_simd_works_on_this_machine(tried):
    assert tried(None)[0] == "words"


@pytest.mark.parametrize(("processor", "tiers"), [("qemu64", 2), ("Nehalem", 3), ("Haswell", 4)])
def test_each_processor_uses_its_tiers(tried, processor, tiers):
    """The instructions of the processor are detected at run time: a missing one would end the program."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("is for Linux on x86-64")
    assert tried(None, emulator("x86_64"), "-cpu", processor) == X86_TIERS[:tiers]


@pytest.mark.parametrize(
    ("machine", "tiers"),
    [("aarch64", ["words", "neon"]), ("s390x", ["words"])],  # the latter has its bytes the other way round
)
def test_other_machines_use_their_tiers(tried, machine, tiers):
    assert tried(f"{machine}-linux-musl", emulator(machine)) == tiers
