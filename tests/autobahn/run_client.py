"""Runs the Autobahn test suite's fuzzing server, some 500 cases of good and bad WebSocket servers, against the client.

python tests/autobahn/run_client.py [--cases '1.*,2.*' | --cases '*'] [--venv DIR] [--pure]

Environment and exit status are those of `run.py`.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import run as suite

# The suite's server listens on every address by itself.
SERVER = """
import json, sys
from functools import partial
from twisted.internet import reactor
from autobahntestsuite import fuzzing
fuzzing.listenWS = partial(fuzzing.listenWS, interface="127.0.0.1")
fuzzing.startServer(json.load(open(sys.argv[1])), None)
reactor.run()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=suite.CASES, help="ids, with * for anything, and commas between")
    parser.add_argument("--venv", type=Path, default=suite.ROOT / "build/autobahn", help="the suite's environment")
    parser.add_argument("--pure", action="store_true", help="test the pure-Python codec")
    options = parser.parse_args()
    if options.pure and not os.environ.get("DUCK_NO_EXTENSIONS"):
        os.execve(sys.executable, [sys.executable, *sys.argv], suite.environment_for(True))
    try:
        python = suite.environment(options.venv.resolve())
        cases = suite.select(python, options.cases)
        with tempfile.TemporaryDirectory(prefix="autobahn-") as name:
            folder = Path(name)
            with fuzzing_server(python, cases, folder) as url:
                asyncio.run(be_tested(url))
            results = json.loads((folder / "index.json").read_text())["duck"]
            return suite.report({case: results.get(case, suite.MISSING) for case in cases}, folder)
    except suite.CannotRun as error:
        print(f"cannot run the Autobahn suite: {error}", file=sys.stderr)
        return 2


@contextmanager
def fuzzing_server(python: Path, cases: list[str], folder: Path) -> Iterator[str]:
    """Runs the suite's server, and gives its URL."""
    url = f"ws://127.0.0.1:{suite.free_port()}"
    specification = {"url": url, "outdir": str(folder), "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
    file = folder / "specification.json"
    file.write_text(json.dumps(specification))
    command = [python, "-W", "ignore", "-c", SERVER, file]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=suite.clean()) as process:
        try:
            yield url
        finally:
            process.terminate()


async def be_tested(url: str) -> None:
    """Echoes the messages of the server, in each of its cases."""
    from duck.contrib.websockets.client import ConnectionClosed, connect

    for attempt in range(600):
        try:
            async with connect(f"{url}/getCaseCount") as ws:
                count = int(await ws.recv(timeout=60))
            break
        except ConnectionRefusedError:
            if attempt == 599:
                raise suite.CannotRun("its server did not start") from None
            await asyncio.sleep(0.1)
    for number in range(1, count + 1):
        case = f"{url}/runCase?case={number}&agent=duck"
        try:
            async with connect(case, max_size=2**24, ping_interval=None) as ws:
                async for message in ws:
                    await (ws.send_text(message) if isinstance(message, str) else ws.send_binary(message))
        except ConnectionClosed:
            pass
    async with connect(f"{url}/updateReports?agent=duck") as ws:
        await ws.wait_closed()


if __name__ == "__main__":
    sys.exit(main())
