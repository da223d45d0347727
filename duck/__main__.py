"""The `duck` command, and `python -m duck` where it is not on the path."""

import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command, and returns its exit status.

    Only the import of the package checks the environment: the codec and the library that it requires, and Duck
    Framework. Such an error says what to do, so it is reported like those of the command line.
    """
    try:
        from duck.server import cli
    except ImportError as error:
        print(f"duck: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the import takes most of the time of a start
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
