"""One of many clients, which connects again after every end."""

import asyncio
import itertools
import math
import random
import time
from contextlib import suppress

from duck.contrib.websockets import ConnectionClosed
from duck.contrib.websockets.client import ClientConnection, HandshakeFailed, connect

from .ledger import Ledger, Membership

__all__ = ["Client"]

ANSWER = 60.0  # seconds for an answer of the server, across an absence of Redis
RETURN = 1.0  # seconds until a client returns, on average
PLACES = 2  # groups that a client is in
_WRONG = (1002, 1003, 1007, 1008, 1009, 1011)  # close codes that tell of a mistake
FORGETFUL = 0.5  # share of the clients that close their connection and return as new ones


class Client:
    """A client with places in some groups.

    Args:
        number: Of the client.
        url: The server's.
        groups: The names of groups to choose from.
        pace: Seconds between its actions, on average.
        ledger: Records the messages that it gets.
        seed: Decides on the actions, together with the number.

    Attributes:
        doing: Its current activity, for reports.
    """

    def __init__(self, number: int, url: str, groups: list[str], pace: float, ledger: Ledger, seed: int) -> None:
        self._number = number
        self._url = url
        self._groups = groups
        self._pace = pace
        self._ledger = ledger
        self._chance = random.Random(seed * 1_000_003 + number)
        self._lives = itertools.count(1)
        self._numbers: dict[str, itertools.count[int]] = {}
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._forgets = False
        self.doing = ""
        self.places: dict[str, Membership] = {}
        self.stopping = asyncio.Event()
        self.finished = asyncio.Event()

    async def run(self) -> None:
        """Lives on one connection after the other until it is told to finish."""
        while not self.finished.is_set():
            self.doing = "connects"
            begun = time.monotonic()
            try:
                async with connect(self._url, compression=False, proxy=None, open_timeout=ANSWER) as connection:
                    await self._live(connection)
            except (HandshakeFailed, OSError) as error:
                status = getattr(error, "status", None)
                self._ledger.refused(f"status {status}" if status else f"{type(error).__name__}: {error}"[:80], begun)
            self.doing = "is away"
            await (asyncio.sleep(0.2) if self.stopping.is_set() else self._pause(RETURN))

    @property
    def is_home(self) -> bool:
        """Whether it is in all of its groups, and does nothing."""
        return self.doing == "rests"

    async def _live(self, connection: ClientConnection) -> None:
        self._ledger.counts["connections"] += 1
        self._numbers.clear()
        self._life = f"{self._number}.{next(self._lives)}"
        reading = asyncio.create_task(self._read(connection))
        acting = asyncio.create_task(self._act(connection))
        await asyncio.wait({reading, acting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (acting, reading):
            task.cancel()
        await asyncio.wait({reading, acting})
        for task in (acting, reading):
            if not task.cancelled() and (error := task.exception()) and not isinstance(error, ConnectionClosed):
                self._ledger.fault(f"client {self._number}: {error!r}")
        if self._forgets:
            self._forgets = False
            self.places.clear()
        if connection.close_code in _WRONG:
            self._ledger.fault(f"client {self._number}: the server closed with {connection.close_code}")

    async def _act(self, connection: ClientConnection) -> None:
        for place in list(self.places.values()):
            await self._join(connection, place)
        while len(self.places) < PLACES:
            await self._join_another(connection)
        while not self.stopping.is_set():
            self.doing = "pauses"
            await self._pause(self._pace)
            match self._chance.choices(["say", "move", "crash", "close"], [80, 6, 7, 7])[0]:
                case "say":
                    await self._say(connection)
                case "move":
                    await self._leave(connection, self._chance.choice(list(self.places)))
                    await self._join_another(connection)
                case "crash":
                    self._ledger.counts["crashes"] += 1
                    connection.terminate()
                    return
                case _:
                    self._forgets = self._chance.random() < FORGETFUL
                    return
        self.doing = "rests"
        await self.finished.wait()

    async def _join_another(self, connection: ClientConnection) -> None:
        name = self._chance.choice([name for name in self._groups if name not in self.places])
        await self._join(connection, self.places.setdefault(name, Membership(name, self._number)))

    async def _join(self, connection: ClientConnection, place: Membership) -> None:
        fresh = place.since == "-"
        if fresh:
            place.last.clear()
            place.begun = math.inf
        if await self._ask(connection, f"join {place.name} {place.since}", place.name) == "no":
            self._ledger.counts["histories that did not reach back"] += 1
            place.gaps.append(time.monotonic())
        if fresh:
            place.begun = time.monotonic()

    async def _leave(self, connection: ClientConnection, name: str) -> None:
        await self._ask(connection, f"leave {name}", name)
        del self.places[name]
        self._ledger.counts["departures"] += 1

    async def _ask(self, connection: ClientConnection, words: str, name: str) -> str:
        self.doing = f"awaits the answer to {words.split(maxsplit=1)[0]}"
        answer = self._answers[name] = asyncio.get_running_loop().create_future()
        await connection.send(words)
        try:
            async with asyncio.timeout(ANSWER):
                return await answer
        except TimeoutError:
            self._ledger.fault(f"client {self._number}: no answer to {words!r} within {ANSWER:g} s")
            return ""

    async def _say(self, connection: ClientConnection) -> None:
        """Publishes a few messages at once."""
        group = self._chance.choice(list(self.places))
        publisher = f"{self._life}.{group}"
        numbers = self._numbers.setdefault(publisher, itertools.count(1))
        for _ in range(self._chance.randint(1, 3)):
            self._ledger.publishes(publisher, group)
            await connection.send(f"say {group} {publisher} {next(numbers)}")

    async def _read(self, connection: ClientConnection) -> None:
        async for message in connection:
            verb, name, *rest = str(message).split(" ")
            if verb == "m":
                place = self.places.get(name)
                if place is None:
                    self._ledger.fault(f"client {self._number} is not in {name}, and got {message!r}")
                else:
                    self._ledger.got(place, rest[0], rest[1], int(rest[2]))
            elif verb == "said":
                self._ledger.said(name, int(rest[0]))
            elif verb == "lost":
                self._ledger.counts["not taken by the broker"] += 1
            elif verb == "gap":
                self._ledger.counts["gaps told"] += 1
                if name in self.places:
                    self.places[name].gaps.append(time.monotonic())
            elif verb in ("joined", "left"):
                answer = self._answers.pop(name, None)
                if answer is not None and not answer.done():
                    answer.set_result(rest[0] if rest else "")

    async def _pause(self, mean: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._chance.expovariate(1 / mean)):
                await self.stopping.wait()
