"""Groups on Redis, side by side: `python -m benchmarks.groups`.

Two server processes and a Redis server run on one core, and the load client of `benchmarks.echo`, in C, on another. 200
clients, half of them at each process, are in one group. Some of them publish: each keeps one message on its way. Each
client checks that it gets every message of every publisher once, and in order where the library keeps it. The CPU time
of the servers, Redis included, is measured beside the deliveries, because it counts also where other work takes part of
a core.

The rivals are installed by hand: `pip install uvicorn httptools uvloop channels channels_redis python-socketio`.
"""
