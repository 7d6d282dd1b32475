"""Becomes the command it is given, after it has seen to it that it ends with its parent.

python -m headrace.edges.fleets.command_child PARENT COMMAND [ARGUMENT …]
"""

import os
import sys

from headrace.edges.fleets.parent import die_with_parent


def main() -> None:
    """Never returns: the kernel remembers over exec whose death ends this process."""
    parent, *command = sys.argv[1:]
    die_with_parent(int(parent))
    try:
        os.execvp(command[0], command)  # noqa: S606 - the configuration's own command
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
