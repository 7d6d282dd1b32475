"""Makes a folder to use as PATH that holds every program of this machine except compilers.

An install step or a start that needs one then fails here and not on somebody's laptop.
"""

import os
import re
import sys
from pathlib import Path

_COMPILER = re.compile(
    r"(.*-)?(cc|c89|c99|c\+\+|gcc|g\+\+|cpp|clang|clang\+\+|cmake|ninja|cargo|rustc)(-[0-9.]+)?"
)


def fill(folder: Path) -> None:
    """Link the programs of PATH into `folder`; of two with one name the first on PATH wins."""
    for source in filter(None, os.environ["PATH"].split(os.pathsep)):
        programs = Path(source).iterdir() if Path(source).is_dir() else ()
        for program in programs:
            link = folder / program.name
            if not _COMPILER.fullmatch(program.name) and not os.path.lexists(link):
                link.symlink_to(program)


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
