"""The times at which a heartbeat sends pings and gives up a peer, on a virtual clock."""

import itertools

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.protocol.heartbeat import Heartbeat
from duck.contrib.websockets.protocol.loop import clock


class VirtualLoop:
    """A loop whose clock is set by the test."""

    def __init__(self):
        self.now = 1000.0
        self.timers = []
        self.numbers = itertools.count()

    def time(self):
        return self.now

    def call_at(self, when, callback, *args):
        self.timers.append((when, next(self.numbers), callback, args))

    def pass_until(self, end):
        while self.timers and min(self.timers)[0] <= end:
            timer = min(self.timers)
            self.timers.remove(timer)
            self.now = max(timer[0], self.now)
            timer[2](*timer[3])
        self.now = max(end, self.now)


class FakeProtocol:
    """A stand-in for the protocol of a connection, with the settings of a view."""

    counters = None

    def __init__(self, loop, **settings):
        self.loop = loop
        self.endpoint = type("Settings", (WebSocketView,), settings)
        self.alive = self.is_receive_buffer_full = False
        self.pings = []
        self.closed = None

    def take_sign_of_life(self):
        alive, self.alive = self.alive, False
        return alive

    def ping(self, payload):
        self.pings.append(self.loop.now)

    def close(self, code, reason):
        self.closed = self.loop.now, reason


def beating(**settings):
    loop = VirtualLoop()
    protocol = FakeProtocol(loop, **settings)
    Heartbeat(protocol, loop, clock(loop)).start()
    return loop, protocol


@pytest.mark.parametrize("settings", [{}, {"PING_INTERVAL": None}, {"PONG_TIMEOUT": None}, {"MAX_BACKOFF": 1000}])
@pytest.mark.parametrize("limit", [2, 20, 120, 3600])
@pytest.mark.parametrize("part", [0.001, 0.09, 0.11, 0.5, 0.9, 0.999, 3.7])
def test_the_limit_to_silence_counts_from_the_last_byte(settings, limit, part):
    """A limit that counts from the wake of the clock would turn 2 s into up to 4."""
    settings = {"PONG_TIMEOUT": limit, **settings}  # so that the third miss is not the first to end it
    loop, protocol = beating(RECEIVE_TIMEOUT=limit, **settings)
    last = loop.now + part * limit
    while loop.now < last:
        protocol.alive = True
        loop.pass_until(min(loop.now + limit / 20, last))
    protocol.alive = True
    loop.pass_until(last + 2 * limit)
    end, reason = protocol.closed
    assert reason == "nothing received for too long"
    assert limit <= end - last <= 1.1 * limit + 0.05


@pytest.mark.parametrize("noticed", [0, 1, 29, 30])
def test_three_pings_are_missed_after_any_traffic(noticed):
    """Traffic that is noticed at the wake that sends a ping is no answer to it."""
    loop, protocol = beating(PING_INTERVAL=30, PONG_TIMEOUT=10, MAX_BACKOFF=60, RECEIVE_TIMEOUT=None)
    start = loop.now
    loop.pass_until(start + noticed)
    protocol.alive = True
    loop.pass_until(start + 1000)
    assert len(protocol.pings) == 3
    assert protocol.closed[1] == "no pong"
    assert protocol.closed[0] - protocol.pings[-1] == pytest.approx(10, abs=0.1)


def test_unread_data_behind_a_busy_loop_is_no_silence():
    loop, protocol = beating(PING_INTERVAL=None, RECEIVE_TIMEOUT=2)
    start = loop.now
    loop.pass_until(start + 1)
    loop.now = start + 10  # uvloop calls timers before it reads
    loop.pass_until(loop.now)
    assert protocol.closed is None
    protocol.alive = True
    loop.pass_until(start + 11.9)
    assert protocol.closed is None
    loop.pass_until(start + 13)
    assert protocol.closed is not None
