"""`duck connect URL`: a client for the terminal.

Each line is sent as a text message. The commands `/ping`, `/pong`, `/binary` and `/close` send other frames. A line
with two leading slashes is sent as a message with one. At the end of the input the connection is closed, after the
server has answered a ping that follows the last message.
"""

import argparse
import asyncio
import contextlib
import io
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TextIO

from duck.contrib.websockets import CloseCode, ConnectionClosed, Frame, OpCode
from duck.contrib.websockets.client import WebSocketClient
from duck.contrib.websockets.logging import printable
from duck.contrib.websockets.sansio.payloads import parse_close
from duck.stdio import drop_output

from .connection_options import FAILURES, address_of, connection_options, explain

__all__ = ["run"]

HELP = """a line is sent as a text message; a message that begins with a slash is written with two
/ping [text]            /binary HEX (such as 00 ff)
/pong [text]            /close [code [reason]]"""

_SHOWN = 64  # bytes shown of a binary message
_LAST = b"end of input"
_PATIENCE = 5.0  # seconds for the answer to that ping
_QUIET = 0.2  # seconds for answers to other messages after it
_AHEAD = 100  # lines that are read before the first of them has left
_LONGEST = 1 << 26  # characters of a line


async def run(arguments: argparse.Namespace, lines: TextIO | None = None) -> int:
    """Talks to a server until the connection or the input ends.

    Args:
        arguments: The parsed arguments.
        lines: The input; None for stdin.

    Returns:
        The exit status: 0 after a normal closure, 1 after another end, a failure of the input or output, or an invalid
        command of a script, 2 without a connection.
    """
    try:
        terminal = Terminal(arguments.url, **connection_options(arguments))
        await terminal.open()
    except FAILURES as error:
        print(f"duck: {address_of(arguments)}: {explain(error)}", file=sys.stderr)
        return 2
    given = sys.stdin if lines is None else lines
    if isinstance(given, io.TextIOWrapper):
        given.reconfigure(errors="strict")  # the locale C.UTF-8, as in containers, lets any bytes pass
    terminal.begin(given)
    try:
        code = await terminal.wait_closed()
    except asyncio.CancelledError:  # Ctrl-C
        terminal.terminate()
        await terminal.wait_closed()
        raise
    words = f"closed: {code} {printable(terminal.close_reason)}".rstrip()
    answered = terminal.is_answered or code == CloseCode.ABNORMAL_CLOSURE
    terminal.say(words if answered else f"{words}, not answered by the server")
    return 0 if code in (1000, 1001, 1005) and answered and not terminal.is_failed else 1


class Terminal(WebSocketClient):
    """Prints received frames, and sends typed lines."""

    MAX_FRAME_SIZE = 1 << 26
    RECEIVE_TIMEOUT = None

    is_failed = False  # whether the input, the output or a command of a script has failed
    is_answered = False  # whether the server has sent a close frame

    async def on_close(self, frame: Frame | None = None) -> None:
        self.is_answered = frame is not None

    def begin(self, lines: TextIO) -> None:
        """Reports the connection, and reads lines in a thread, because reading a terminal blocks."""
        facts = [f"connected to {self.url}"]
        if self.subprotocol:
            facts.append(f"subprotocol {printable(self.subprotocol)}")
        facts += [extension.name for extension in self.extensions]
        self.say(", ".join(facts))
        self.say("/help for help, end of input to close")
        self._is_script = not lines.isatty()
        self._leaving: set[asyncio.Future[None]] = set()  # sends that wait for the server
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(lines, loop), daemon=True).start()

    def say(self, words: str) -> None:
        """Prints a line; closes the connection if the output takes none any more, as with `| head`."""
        try:
            print(words, flush=True)
        except OSError as error:
            drop_output()
            if not isinstance(error, BrokenPipeError):
                self.is_failed = True
                print(f"duck: cannot write the output: {error.strerror or error}", file=sys.stderr)
            self.terminate()

    def _read(self, lines: TextIO, loop: asyncio.AbstractEventLoop) -> None:
        problem = ""
        room = threading.Semaphore(_AHEAD)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            try:
                while line := lines.readline(_LONGEST):
                    if len(line) == _LONGEST:
                        problem = f"a line has more than {_LONGEST} characters"
                        break
                    room.acquire()
                    loop.call_soon_threadsafe(self._pass_on, line.rstrip("\r\n"), room)
            except (OSError, UnicodeDecodeError) as error:
                problem = f"the input cannot be read any further: {error}"
            loop.call_soon_threadsafe(self._finish, loop, problem)

    def _pass_on(self, line: str, room: threading.Semaphore) -> None:
        """Takes a line, and makes room for another one once the server has received enough of those before."""
        sending = self.take_line(line)
        if sending is None:
            room.release()
            return

        def left(task: "asyncio.Future[None]") -> None:
            self._leaving.discard(task)
            room.release()
            if not task.cancelled():
                task.exception()  # a `ConnectionClosed`, which is reported at the end

        task = asyncio.ensure_future(sending)
        self._leaving.add(task)
        task.add_done_callback(left)

    def _finish(self, loop: asyncio.AbstractEventLoop, problem: str) -> None:
        """Handles the end of the input."""
        if problem:
            self.is_failed = True
            print(f"duck: {self.url}: {printable(problem)}", file=sys.stderr)
        self.take_line(f"/ping {_LAST.decode()}")
        loop.call_later(_PATIENCE, self.take_line, "/close")

    def take_line(self, line: str) -> Awaitable[None] | None:
        """Executes or sends a line; returns an awaitable for the frame, if there is one."""
        try:
            if not line.startswith("/"):
                return self.send(line)
            if line.startswith("//"):
                return self.send(line[1:])
            return self._command(line)
        except ConnectionClosed:
            pass  # it is reported at the end
        except ValueError as error:
            self.is_failed |= self._is_script
            self.say(f"! {error}")
        return None

    def _command(self, line: str) -> Awaitable[None] | None:
        name, _, rest = line.partition(" ")
        commands: dict[str, Callable[[str], Awaitable[None] | None]] = {
            "/ping": lambda text: self.send_ping(text.encode() or b"%d" % time.perf_counter_ns()),
            "/pong": lambda text: self.send_pong(text.encode()),
            "/binary": lambda text: self.send_binary(bytes.fromhex(text)),
            "/close": self._close,
            "/help": lambda text: self.say(HELP),
        }
        if name not in commands:
            raise ValueError(f"{printable(name)} is not a command: write /{printable(line)} to send it, or /help")
        return commands[name](rest)

    def _close(self, text: str) -> Awaitable[None]:
        code, _, reason = text.partition(" ")
        if code and not code.isdecimal():
            raise ValueError(f"{code!r} is not a close code: write /close 1000 reason")
        return self.send_close(int(code or 1000), reason)

    async def _receive_loop(self) -> None:
        """Prints every frame, in order."""
        while True:
            frame = await self.read_frame()
            if frame.opcode == OpCode.PONG and frame.payload == _LAST:
                # A server may answer the ping before earlier messages.
                asyncio.get_running_loop().call_later(_QUIET, self.take_line, "/close")
                continue
            self.say(f"< {describe(frame)}")
            if frame.opcode == OpCode.CLOSE:
                return


def describe(frame: Frame) -> str:
    """Describes a frame in one line, without control characters for the terminal."""
    payload = frame.payload
    if frame.opcode == OpCode.TEXT:
        return printable(payload.decode())
    if frame.opcode == OpCode.BINARY:
        more = "..." if len(payload) > _SHOWN else ""
        return f"binary, {len(payload)} bytes: {payload[:_SHOWN].hex(' ')}{more}"
    if frame.opcode == OpCode.CLOSE:
        code, reason = parse_close(payload)
        return f"close {code} {printable(reason)}".rstrip()
    words = printable(payload.decode(errors="backslashreplace"))
    if frame.opcode == OpCode.PONG and payload.isdigit():
        seconds = (time.perf_counter_ns() - int(payload)) / 1e9
        if 0 <= seconds < 3600:
            return f"pong after {seconds * 1000:.1f} ms"
    return f"{frame.opcode.name.lower()} {words}".rstrip()
