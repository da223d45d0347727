"""The README's example, served as it is."""

import re
from pathlib import Path

import websockets

from .serving import serving

README = Path(__file__).parents[2] / "README.md"


def test_the_view_in_ten_lines(tmp_path, run):
    match = re.search(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    file = tmp_path / "shout.py"
    file.write_text(match[1])

    async def scenario():
        with serving(file, "--log-level", "warning") as server:
            async with websockets.connect(server.url("/shout/lobby")) as socket:
                await socket.send("quack")
                assert await socket.recv() == "QUACK"

    run(scenario())
