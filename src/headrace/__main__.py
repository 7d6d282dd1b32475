"""`python -m headrace` is the command `headrace`."""

import sys


def main() -> int:
    """Run the command line. Ctrl-C while it is being loaded ends it as quietly as later."""
    try:
        from headrace.cli import main as run  # noqa: PLC0415 - see above
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
