"""Support for tests of the `duck` command: the applications in their folder, a client, and commands that fail."""

import sys

from websockets.sync.client import connect

from ..support.commands import command, run_command

ECHO = """
from duck.contrib.websockets import WebSocketView
from duck.urls import path

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

class Stubborn(Echo):
    async def on_receive(self, message, opcode):
        import asyncio
        await self.send(message, opcode)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

urlpatterns = [path("/", Echo), path("/stubborn", Stubborn)]
"""

ONE_VIEW = """
from duck.contrib.websockets import WebSocketView

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)
"""


def echo(address, **options):
    with connect(address, **options) as client:
        client.send("hello")
        return client.recv()


def ignoring(name, *arguments):
    """The words of a `duck` command that starts with an ignored signal."""
    script = (
        f"import os, signal, sys; signal.signal(signal.{name}, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", script, *command(*arguments)]


def fails(folder, *arguments, **options):
    """Returns the error of a command, which must be one line."""
    result = run_command(folder, *arguments, **options)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr
