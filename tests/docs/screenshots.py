"""Photographs the examples for the documents.

`python -m tests.docs.screenshots [NAME...]` writes docs/pictures/NAME.png, for all examples or those named.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from ..interop import chromium
from ..interop.scenes import EXAMPLES, SCENES, visiting
from ..interop.serving import serving

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


async def photograph(name: str, devtools: str) -> bytes:
    """The PNG of an example after its scene."""
    with serving(EXAMPLES / f"{name}.py", "--log-level", "warning") as server:
        async with visiting(devtools, server) as visit:
            page = await SCENES[name](visit)
            return await page.photograph()


def main(names: list[str]) -> None:
    """Photograph the examples of these names, or all."""
    executable = chromium.find()
    if executable is None:
        raise SystemExit(f"none of {', '.join(chromium.NAMES)} is on the path")
    with tempfile.TemporaryDirectory() as profile, chromium.launch(executable, Path(profile)) as devtools:
        for name in names or SCENES:
            picture = asyncio.run(photograph(name, devtools))
            file = PICTURES / f"{name}.png"
            file.write_bytes(picture)
            print(f"{file}: {len(picture)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
