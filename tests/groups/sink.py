"""A member without a connection."""

import asyncio

__all__ = ["Sink"]


class Sink:
    """A member without a connection, which notes its messages."""

    def __init__(self, loop=None):
        self._home = loop or asyncio.get_running_loop()
        self.messages = []
        self.gaps = []
        self._callbacks = []

    def _send_prepared(self, message):
        self.messages.append(message.payload.decode())
        return True

    def _when_lost(self, callback):
        if callback not in self._callbacks:
            self._callbacks.append(callback)

    def end(self):
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def _missed(self, group):
        self.gaps.append(group)
