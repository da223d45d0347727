"""The servers that are compared: `python -m benchmarks.echo.servers NAME --port PORT` runs one.

Each module serves two paths on 127.0.0.1 until it is killed: `/` echoes, and on `/broadcast` a message goes to all who
are there. It is written the way its library's own documentation shows, with what that documentation advises for speed,
without compression, and takes messages of 16 MiB.
"""
