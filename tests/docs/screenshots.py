"""Photographs the examples for the documents.

`python -m tests.docs.screenshots [NAME...]` writes docs/pictures/NAME.png, for all examples or those named.
"""

import asyncio
import math
import random
import sys
from pathlib import Path

from ..interop import chromium
from ..interop.chromium import Page
from ..interop.scenes import EXAMPLES, SCENES, Visit, visiting
from ..interop.serving import serving

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


async def _busy_minute(visit: Visit) -> None:
    """Visitors who come and go, and send messages in waves, until the charts of the dashboard are full."""
    chance = random.Random(7)
    visitors: list[Page] = []
    for second in range(60):
        if len(visitors) < 2 or (second % 3 == 0 and chance.random() < 0.7):
            visitors.append(await visit.open())
        elif second % 3 == 0:
            await visitors.pop(0).evaluate("socket.close()")
        messages = int(300 * (1.2 + math.sin(second / 5)) * chance.uniform(0.7, 1))
        await visitors[-1].evaluate(
            f"for (let i = 0; socket.readyState === 1 && i < {messages}; i++) socket.send('quack')"
        )
        await asyncio.sleep(1)


LATER = {"dashboard": _busy_minute}
"""Events between the scene of an example and its picture."""


async def photograph(name: str, devtools: str) -> bytes:
    """The PNG of an example after its scene."""
    with serving(EXAMPLES / f"{name}.py", "--log-level", "warning") as server:
        async with visiting(devtools, server) as visit:
            page = await SCENES[name](visit)
            if name in LATER:
                await LATER[name](visit)
            return await page.photograph()


def main(names: list[str]) -> None:
    """Photograph the examples of these names, or all."""
    executable = chromium.find()
    if executable is None:
        raise SystemExit(f"none of {', '.join(chromium.NAMES)} is on the path")
    with chromium.launch(executable) as devtools:
        for name in names or SCENES:
            picture = asyncio.run(photograph(name, devtools))
            file = PICTURES / f"{name}.png"
            file.write_bytes(picture)
            print(f"{file}: {len(picture)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
