"""Clients of the compared libraries: a module for each, with the coroutines `echo`, `receive` and `connect`."""
