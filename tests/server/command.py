"""Support for tests of the `duck` command: the applications in their folder, a client, and commands that fail."""

import contextlib
import importlib.util
import json
import subprocess
import sys

from websockets.sync.client import connect

from ..support.commands import command, environment, run_command

LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]

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

SLOW = """
import os, time
os.write(1, b"begun\\n")
while True:
    time.sleep(0.01)
"""
"""An application whose import does not end.

It writes by one system call, because several workers may do so at once. Its sleeps are short, because a signal that
comes just before a sleep does not end it.
"""


def echo(address, **options):
    with connect(address, **options) as client:
        client.send("hello")
        return client.recv()


@contextlib.contextmanager
def begun(folder, words, **options):
    """Runs a command until its application has written "begun", and kills it at the end of the block."""
    with subprocess.Popen(
        words, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def ignoring(name, *arguments):
    """The words of a `duck` command that starts with an ignored signal."""
    script = (
        f"import os, signal, sys; signal.signal(signal.{name}, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", script, *command(*arguments)]


RUN_EACH = """
import json, os, sys
from duck.server.cli import main

statuses = []
for number, arguments in enumerate(json.loads(sys.argv[1])):
    if os.fork() == 0:
        for file in (1, 2):
            os.dup2(os.open(f"output-{number}-{file}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), file)
        sys.exit(main(arguments))
    statuses.append(os.waitstatus_to_exitcode(os.wait()[1]))
print(json.dumps(statuses))
"""


def errors_of_each(folder, *commands):
    """Returns the errors of commands, each of which must end with 2.

    Each is a process of its own; their parent has imported the command, which takes most of the time of a start.
    """
    words = [[str(word) for word in arguments] for arguments in commands]
    result = run_command(folder, words=[sys.executable, "-W", "error", "-c", RUN_EACH, json.dumps(words)])
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == [2] * len(commands)
    assert not any((folder / f"output-{number}-1").read_text() for number in range(len(commands)))
    return [(folder / f"output-{number}-2").read_text() for number in range(len(commands))]


def fails(folder, *arguments, **options):
    """Returns the error of a command, which must be one line."""
    result = run_command(folder, *arguments, **options)
    assert (result.returncode, result.stdout) == (2, ""), result
    return one_line(result.stderr)


def each_fails(folder, *commands):
    """`fails` for several commands."""
    return [one_line(errors) for errors in errors_of_each(folder, *commands)]


def one_line(errors):
    assert errors.endswith("\n")
    assert errors.count("\n") == 1, errors
    return errors
