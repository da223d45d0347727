"""`python -m duck.server`: the `duck` command by its former name."""

import sys

from duck.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
