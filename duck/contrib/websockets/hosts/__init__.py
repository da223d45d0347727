"""Adapters to the servers that hand over connections."""
