"""What this machine lacks to build extension modules for this Python."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


def missing() -> str | None:
    """One line that names what is missing and the remedy; None where a module can be built."""
    # As setuptools chooses it.
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    compiler = command[0]
    if shutil.which(compiler) is None:
        return (
            f"there is no C compiler ({compiler} is not on PATH). Install one (Debian, Ubuntu: "
            "`apt install gcc python3-dev`; macOS: `xcode-select --install`), or name another, as "
            "in `make CC=clang compiled`"
        )
    folders = [sysconfig.get_path(name) for name in ("include", "platinclude")]
    header = Path(folders[0]) / "Python.h"
    if not header.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (
            f"the C headers of {sys.executable} are missing ({header} does not exist). Install "
            f"them (Debian, Ubuntu: `apt install python{version}-dev`), or name another Python, as "
            "in `make PYTHON=/usr/bin/python3 compiled`"
        )
    if (complaint := _complaint([*command, *(f"-I{folder}" for folder in folders)])) is not None:
        return (
            f"{compiler} does not compile what includes {header}: {complaint}. Install the C "
            "library's headers (Debian, Ubuntu: `apt install libc6-dev`), or name another "
            "compiler, as in `make CC=clang compiled`"
        )
    return None


def _complaint(command: list[str]) -> str | None:
    """What the compiler says of an extension module with nothing in it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        source.write_text("#include <Python.h>\n")
        target = str(source.with_suffix(".o"))
        trial = subprocess.run(
            [*command, "-c", str(source), "-o", target],
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    if trial.returncode == 0:
        return None
    said = [line.strip() for line in trial.stdout.splitlines() if line.strip()]
    return next((line for line in said if "error" in line), f"exit code {trial.returncode}")
