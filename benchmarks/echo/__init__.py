"""Whole servers, measured side by side: `python -m benchmarks.echo --help`."""
