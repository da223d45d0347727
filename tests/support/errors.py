"""Errors that views and applications raise in tests."""

__all__ = ["Panic"]


class Panic(BaseException):
    """An error of an extension written in Rust, which is no Exception."""
