"""One connection on an event loop."""
