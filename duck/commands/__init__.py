"""The commands of `duck` that are clients: `duck connect` and `duck bench`. `duck.server.cli` runs them."""
