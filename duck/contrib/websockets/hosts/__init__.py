"""The servers that hand over connections."""
