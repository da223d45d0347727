"""`python -m duck.server`: the `duck` command by its former name."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
