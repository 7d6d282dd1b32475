"""Whether this package runs compiled, and whether it was built from the sources beside it.

`make compiled` fills an environment beside `src/`. What it runs does not follow an edit there as
the package in `.venv` does, so each command looks.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import headrace

_READ_BY_A_RUN = {".py", ".json"}
_ONE_OF_THEM = "headrace.core.dispatcher"


def is_compiled() -> bool:
    """Whether the modules that a request goes through are compiled.

    The version alone does not tell: another interpreter than the build's passes over them and
    takes the Python files that lie beside them.
    """
    found = find_spec(_ONE_OF_THEM)
    return found is not None and str(found.origin).endswith(tuple(EXTENSION_SUFFIXES))


def changed_sources() -> Path | None:
    """The sources beside the environment that runs, if this was compiled from others. Those that
    may not be read, or are just being replaced, are no reason for a command not to run.
    """
    if headrace.compiled_from is None:
        return None
    sources = Path(sys.prefix).parent / "src" / "headrace"
    try:
        if not sources.is_dir() or digest_of(sources) == headrace.compiled_from:
            return None
    except OSError:
        return None
    return sources


def digest_of(package: Path) -> str:
    """Changes whenever one of the files does that a running Headrace reads."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        # An editor's lock is a link to nowhere (`.#model.py`).
        if path.suffix in _READ_BY_A_RUN and path.is_file():
            content = path.read_bytes()
            name = path.relative_to(package).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
