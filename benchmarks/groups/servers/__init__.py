"""The servers that are compared. Each has a WebSocket whose messages go to the members of one group.

Each is written the way its library's own documentation shows. REDIS_URL names the Redis server.
"""
