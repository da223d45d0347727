"""Times the first minute of a user, in a fresh environment: `python .ci/first_message.py WHEEL`.

It needs the `websockets` library for the client. Prints seconds and sizes.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from websockets.asyncio.client import connect

VIEW = """\
from duck.contrib.websockets import OpCode, WebSocketView

class Echo(WebSocketView):
    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)
"""


async def echo(url: str) -> None:
    """Sends a message, and receives its echo."""
    async with connect(url) as connection:
        await connection.send("Hello")
        heard = await connection.recv()
        assert heard == "Hello", heard


def size(folder: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    wheel = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "venv", with_pip=True)
        (packages,) = home.glob("venv/lib/python*/site-packages")
        (home / "echo.py").write_text(VIEW)
        before = size(packages)
        pip = [home / "venv/bin/pip", "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "download", "--no-cache-dir", "-d", home / "downloaded", wheel], check=True)

        began = time.perf_counter()
        subprocess.run([*pip, "install", "--no-cache-dir", wheel], check=True)
        installed = time.perf_counter()
        command = [home / "venv/bin/duck", "serve", "--port", "0", home / "echo.py"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            try:
                address = server.stdout.readline().removeprefix("listening on ").strip()
                asyncio.run(echo(address))
                ended = time.perf_counter()
            finally:
                server.terminate()

        for archive in sorted((home / "downloaded").iterdir()):
            print(f"{archive.stat().st_size / 1000:7.0f} KB  {archive.name}")
        print(f"{(size(packages) - before) / 1000:7.0f} KB  installed, with the bytecode")
        print(f"{installed - began:7.1f} s   pip install of the wheel, with a download of its dependency")
        print(f"{ended - installed:7.1f} s   from there to the first echo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
