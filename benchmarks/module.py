"""Runs a module as `python -m` does, with the installed packages in front of those of the checkout.

`python -m benchmarks.module uvicorn --help` is `python -m uvicorn --help`.
"""

import runpy
import sys

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
