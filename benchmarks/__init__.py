"""Benchmarks: `pytest benchmarks` for the codec, `python -m benchmarks.echo` for whole servers, `.groups`, `.soak`."""
