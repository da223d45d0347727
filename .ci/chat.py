"""Runs the command that serves the chat, with a free port, and chats: `python .ci/chat.py COMMAND`."""

import asyncio
import os
import signal
import subprocess
import sys
from urllib.request import urlopen

from websockets.asyncio.client import connect

ANNOUNCEMENT = "listening on "


async def chat(address: str) -> None:
    """Sends a message, which both clients must receive."""
    url = address + "/chat"
    async with connect(url) as alice, connect(url) as bob:
        await alice.send("Hello, Bob")
        heard = [await alice.recv(), await bob.recv()]
        assert heard == ["Hello, Bob", "Hello, Bob"], heard


def main() -> int:
    command = ["bash", "-c", f"{sys.argv[1]} --port 0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="")
                if line.startswith(ANNOUNCEMENT):
                    break
            else:
                return 1
            address = line.removeprefix(ANNOUNCEMENT).strip()
            with urlopen(address.replace("ws:", "http:")) as response:
                page = response.read()
            assert b"<title>Chat</title>" in page, page
            print(f"the page has {len(page)} bytes")
            asyncio.run(chat(address))
            print("both clients have received the message")
        finally:
            # To the shell and its child processes.
            os.killpg(process.pid, signal.SIGINT)
    print(f"stopped with status {process.returncode}")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
