"""Fuzzing: `python -m tests.fuzz TARGET --minutes 30`, coverage-guided by atheris; pytest replays what was found.

A target is a module with `check(data)`, which makes of any bytes a case and raises if the case comes out wrong, and
`seeds()`, the inputs to begin with. `targets.py` lists them.
"""
