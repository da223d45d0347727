"""The archives of a release in the folder DUCK_DIST: they contain the needed files only."""

import os
import re
import struct
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest

DIST = Path(os.environ.get("DUCK_DIST") or "no such folder")
WHEELS = sorted(DIST.glob("*.whl"))
SOURCES = sorted(DIST.glob("*.tar.gz"))

MOST_OF_CODEC = 240_000  # bytes, compressed
MOST_OF_MODULE = 2_600  # bytes, compressed, as the mean of all modules, with their entries in the lists of the wheel
COMPILED = {".so", ".pyd"}
MADE = {".pyc", ".so", ".pyd"}  # in a checkout, but not part of it
SYMBOLS = 2  # SHT_SYMTAB: the section that `strip` removes

pytestmark = pytest.mark.skipif("DUCK_DIST" not in os.environ, reason="DUCK_DIST names no folder with archives")


@pytest.fixture(params=WHEELS, ids=lambda path: path.name)
def wheel(request):
    with zipfile.ZipFile(request.param) as archive:
        yield archive


@pytest.fixture
def version(root):
    with open(root / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["version"]


def checkout(root, folder):
    """The files of a folder, relative to the root."""
    files = (path.relative_to(root) for path in (root / folder).rglob("*") if path.is_file())
    return {
        str(PurePosixPath(path))
        for path in files
        if path.suffix not in MADE
        and path.name != "_speedups.c"
        and not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    }


def is_pure(wheel):
    return wheel.filename.endswith("-py3-none-any.whl")


def compiled(wheel):
    return [name for name in wheel.namelist() if PurePosixPath(name).suffix in COMPILED]


def test_a_release_has_wheels_and_a_source_archive():
    assert len(SOURCES) == 1
    assert WHEELS


def test_wheels_contain_the_package_only(wheel, root, version):
    modules = {name for name in checkout(root, "duck") if name.endswith((".py", ".pyi", "py.typed"))}
    info = f"duck_websockets-{version}.dist-info/"
    names = {name for name in wheel.namelist() if not name.startswith(info) and not name.endswith("/")}
    assert names - set(compiled(wheel)) == modules
    assert {"duck/py.typed", "duck/contrib/websockets/_speedups.pyi"} <= modules
    assert f"{info}licenses/LICENSE" in wheel.namelist()


def test_wheels_contain_at_most_one_codec(wheel):
    modules = [PurePosixPath(name) for name in compiled(wheel)]
    if is_pure(wheel):
        assert modules == []
        return
    assert [str(module.parent) for module in modules] == ["duck/contrib/websockets"]
    assert modules[0].name.startswith("_speedups.")


def test_wheels_are_small(wheel):
    codec = sum(wheel.getinfo(name).compress_size for name in compiled(wheel))
    modules = [name for name in wheel.namelist() if name.endswith(".py")]
    assert codec < MOST_OF_CODEC
    assert Path(wheel.filename).stat().st_size - codec < MOST_OF_MODULE * len(modules)


def test_codecs_are_stripped(wheel):
    """Symbols and debugging information would be most of the file."""
    for name in compiled(wheel):
        module = wheel.read(name)
        if module.startswith(b"\x7fELF\x02\x01"):  # 64 bits, little-endian
            assert SYMBOLS not in section_types(module)
        assert b".debug_info" not in module


def section_types(elf):
    """The types of the sections of an ELF file."""
    start, size, count = struct.unpack_from("<Q", elf, 0x28)[0], *struct.unpack_from("<HH", elf, 0x3A)
    return [struct.unpack_from("<I", elf, start + size * i + 4)[0] for i in range(count)]


def test_wheels_have_the_right_metadata(wheel, version):
    metadata = HeaderParser().parsestr(wheel.read(f"duck_websockets-{version}.dist-info/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("duck-websockets", version)
    assert metadata["Requires-Python"] == ">=3.11"
    said = HeaderParser().parsestr(wheel.read(f"duck_websockets-{version}.dist-info/WHEEL").decode())
    assert said["Root-Is-Purelib"] == ("true" if is_pure(wheel) else "false")


def test_wheels_describe_the_project_where_no_files_lie_beside(wheel, version):
    """A package index shows the README alone: a link to a file, or a picture, would lead nowhere."""
    metadata = HeaderParser().parsestr(wheel.read(f"duck_websockets-{version}.dist-info/METADATA").decode())
    assert metadata.get_all("Project-URL")
    assert metadata["Description-Content-Type"] == "text/markdown"
    description = metadata.get_payload()
    assert description.lstrip().startswith("# duck-websockets")
    prose = re.sub(r"^```.*?^```$", "", description, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\]\((?!https?:|#)[^)]*\)", prose) == []
    assert "CHANGELOG.md" in prose


def test_the_source_archive_is_the_checkout(root, version):
    """The archive has the files for builds and tests, and no generated ones."""
    top = f"duck_websockets-{version}/"
    with tarfile.open(SOURCES[0]) as archive:
        names = {member.name.removeprefix(top) for member in archive if member.isfile()}
    made = {name for name in names if name.startswith("duck_websockets.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    files = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md", "pyproject.toml", "setup.py"}
    assert names - made == files.union(
        *(checkout(root, folder) for folder in ("benchmarks", "docs", "duck", "examples", "tests"))
    )
