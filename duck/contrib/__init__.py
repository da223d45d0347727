"""Packages that can be used without the rest of `duck`."""
