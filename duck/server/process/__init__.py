"""A serving process: its loop, signals, log, metrics and deadline. `until_stopped` runs a server in it."""
