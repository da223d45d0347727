"""The published, the delivered and the missing messages."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

__all__ = ["Ledger", "Membership"]

LATE = 30.0
"""Seconds after a message in which a member may be told of a gap before it."""

TARDY = 5.0
"""Seconds by which the clients' loop is late in a handshake whose request may miss the server's `head_timeout`."""


@dataclass(slots=True)
class Last:
    """The last message of a publisher that a member has."""

    number: int
    at: float


@dataclass(slots=True)
class Membership:
    """A client's place in a group, which outlives its connections as long as it returns with an id.

    Attributes:
        name: The group.
        owner: The number of the client.
        since: The id of the last message.
        begun: The time at which the client became a member.
        last: The last message of each publisher.
        gaps: The times at which the member was told of gaps.
    """

    name: str
    owner: int
    since: str = "-"
    begun: float = 0.0
    last: dict[str, Last] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Missing:
    """A message that a member has not got although a later one came."""

    place: Membership
    publisher: str
    number: int
    after: float
    before: float


class Ledger:
    """All messages and handshakes of a soak.

    Attributes:
        kills: The times at which workers were killed.
        faults: Violations of the guarantees.
        counts: The number of events of each kind.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.kills: list[float] = []
        self._late: list[tuple[float, float]] = []
        self._refused: list[tuple[str, float, float]] = []
        self._began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self._said: dict[str, set[int]] = defaultdict(set)
        self._first_said: dict[str, float] = {}
        self._group: dict[str, str] = {}
        self._missing: list[Missing] = []

    def publishes(self, publisher: str, group: str) -> None:
        """A publisher sends a message; each has one group."""
        self._group[publisher] = group
        self._first_said.setdefault(publisher, time.monotonic())
        self.counts["published"] += 1

    def said(self, publisher: str, number: int) -> None:
        """The server has confirmed a message."""
        self._said[publisher].add(number)
        self.counts["confirmed"] += 1

    def got(self, place: Membership, id: str, publisher: str, number: int) -> None:
        """A member gets a message."""
        now = time.monotonic()
        self.counts["delivered"] += 1
        place.since = id
        last = place.last.get(publisher)
        if last is None:
            place.last[publisher] = last = Last(number, now)
            if self._first_said[publisher] > place.begun:
                self._expect(place, publisher, range(1, number), place.begun, now)
            return
        if number <= last.number:
            self.fault(f"{place.name}: {publisher} {number} came after {last.number}")
            return
        self._expect(place, publisher, range(last.number + 1, number), last.at, now)
        last.number, last.at = number, now

    def was_late(self, due: float, now: float) -> None:
        """The loop of the clients did something now that was due earlier."""
        if now - due > 0.1:
            self._late.append((due, now))

    def refused(self, reason: str, begun: float) -> None:
        """A handshake that began then has failed now."""
        self._refused.append((reason, begun, time.monotonic()))

    def check_ends(self, places: list[Membership]) -> None:
        """Nothing is on its way any more: each member must have the last message of each publisher of its group."""
        now = time.monotonic()
        by_group: dict[str, list[str]] = defaultdict(list)
        for publisher, group in self._group.items():
            by_group[group].append(publisher)
        for place in places:
            for publisher in by_group[place.name]:
                last = place.last.get(publisher)
                if last is None and self._first_said[publisher] < place.begun:
                    continue
                number, at = (0, place.begun) if last is None else (last.number, last.at)
                rest = [other for other in self._said.get(publisher, ()) if other > number]
                self._expect(place, publisher, rest, at, now)

    def settle(self) -> None:
        """Decides which missing messages and failed handshakes are faults, once all has been told."""
        for reason, begun, failed in self._refused:
            late = sum(now - due for due, now in self._late if begun <= now <= failed)
            if any(begun <= kill <= failed for kill in self.kills):
                self.counts[f"handshakes that failed as a worker was killed: {reason}"] += 1
            elif late > TARDY:
                self.counts[f"handshakes that failed as the clients' loop was late by over {TARDY:g} s: {reason}"] += 1
            else:
                self.counts[f"handshakes that failed for no known reason: {reason}"] += 1
                self.fault(f"{reason} between {begun - self._began:.3f} s and {failed - self._began:.3f} s")
        self._refused.clear()
        for missing in self._missing:
            if missing.number not in self._said.get(missing.publisher, ()):
                self.counts["missing, and not confirmed"] += 1
            elif any(missing.after <= gap <= missing.before + LATE for gap in missing.place.gaps):
                self.counts["missing in a gap that was told"] += 1
            else:
                after, before = (at - self._began for at in (missing.after, missing.before))
                self.fault(
                    f"{missing.place.name}: {missing.publisher} {missing.number} is missing between {after:.3f} s and"
                    f" {before:.3f} s, and no gap was told; client {missing.place.owner}"
                )
        self._missing.clear()

    def _expect(
        self, place: Membership, publisher: str, numbers: "range | list[int]", after: float, now: float
    ) -> None:
        self._missing += [Missing(place, publisher, number, after, now) for number in numbers]

    def fault(self, words: str) -> None:
        """Something has happened that must not."""
        self.counts["faults"] += 1
        if len(self.faults) < 20:
            self.faults.append(words)
