"""Groups on Redis, side by side: `python -m benchmarks.groups`.

Two server processes and a Redis server run on one core, and a load client on another. 200 clients, half of them at each
process, are in one group. Some of them publish: each keeps one message on its way. The client checks that each member
gets each message, and takes the time of each delivery.

The rivals are installed by hand: `pip install uvicorn httptools uvloop channels channels_redis python-socketio`.
"""
