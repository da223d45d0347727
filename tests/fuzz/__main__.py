"""Runs one target: `python -m tests.fuzz TARGET --minutes N`, from the root of the checkout.

A target is a module with `check(data)`, which makes a case of any bytes and raises if the case comes out wrong, and
`seeds()`, the inputs to begin with. `targets.py` lists the targets; atheris guides the choice of inputs by coverage.

Inputs that reach new code are kept in `.fuzz/TARGET`, and the next run begins with them. An input that makes the check
raise is written to `tests/fuzz/found/TARGET`, where pytest replays it: commit it with the fix.
"""

import argparse
import hashlib
import sys
from pathlib import Path

from .targets import FOUND, TARGETS, load


def main() -> None:
    """Fuzzes until the time is over, or until a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz one target, guided by coverage.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=5, help="how long (default: %(default)s)")
    parser.add_argument("--largest", type=int, default=2000, metavar="BYTES", help="input (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed, which is there for Linux and Python 3.11 to 3.13: pip install atheris")
    with atheris.instrument_imports(include=["duck"]):
        target = load(arguments.target)
    corpus = Path(".fuzz", arguments.target)
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    found = FOUND / arguments.target
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={arguments.minutes * 60:.0f}",
        f"-max_len={arguments.largest}",
        f"-artifact_prefix={found}/",
        "-timeout=60",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus), str(found)], target.check)
    atheris.Fuzz()


main()
