"""Environments of their own for other load generators, below `.cache/peers`; made where missing.

`vllm bench` comes with the vLLM that the acceptance tests use (`tools/vllm_env.py`), whose model
folder is the tokenizer of all. Together they take about 7 GB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT
from tools import bootstrap, vllm_env

PEERS = ROOT / ".cache" / "peers"
NEEDED_BYTES = 3 << 30
"""Of free disk, for one environment and its wheels."""
_TORCH = "torch==2.13.0+cpu"
"""guidellm wants a torch: the build for CPUs, where a folder of wheels has it, is a tenth."""


class PeerUnavailableError(RuntimeError):
    """A tool cannot be had here. The message says why."""


def environment(pin: str, *, python: str | None = None, torch: bool = False) -> Path:
    """The folder of an environment with this tool; `python` is a version if it must be another.

    Raises:
        PeerUnavailableError: there is no such interpreter, no room, or it cannot be installed.
    """
    folder = PEERS / pin.replace("==", "-")
    if (folder / "complete").exists():
        return folder
    PEERS.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(PEERS).free < NEEDED_BYTES:
        raise PeerUnavailableError(f"{pin} needs {NEEDED_BYTES >> 30} GB of free disk")
    interpreter = sys.executable if python is None else _interpreter(python)
    uv = bootstrap.find_uv()
    bootstrap.say(f"installing {pin} into {folder.relative_to(ROOT)}")
    wheels, into = _cpu_torch() if torch else [], ("--python", str(folder / "bin" / "python"))
    try:
        for step in (
            ("venv", "--clear", "--python", interpreter, str(folder)),
            ("pip", "install", "--quiet", "--compile-bytecode", *into, *wheels, pin),
        ):
            subprocess.run([uv, *step], check=True)
    except subprocess.CalledProcessError as error:
        raise PeerUnavailableError(f"{pin} could not be installed: {error}") from None
    (folder / "complete").touch()
    return folder


def vllm() -> vllm_env.VllmEnv:
    """The environment of vLLM, with its model folder.

    Raises:
        PeerUnavailableError: it cannot be made here.
    """
    try:
        return vllm_env.make()
    except SystemExit as error:
        raise PeerUnavailableError(str(error)) from None


def size_gb(folder: Path) -> float:
    """What an environment takes on disk."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e9


def _interpreter(version: str) -> str:
    """A Python of this version: on PATH, of pyenv, or one that uv knows."""
    if found := shutil.which(f"python{version}"):
        works = subprocess.run([found, "-c", ""], capture_output=True, check=False)
        if works.returncode == 0:  # pyenv leaves stubs on PATH for versions that are not chosen
            return found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for folder in sorted(pyenv.glob(f"{version}.*"), reverse=True):
        return str(folder / "bin" / "python")
    uv = bootstrap.find_uv()
    line = [uv, "python", "find", "--no-python-downloads", version]
    found_by_uv = subprocess.run(line, capture_output=True, text=True, check=False)
    if found_by_uv.returncode == 0:
        return found_by_uv.stdout.strip()
    raise PeerUnavailableError(f"there is no Python {version} on this machine")


def _cpu_torch() -> list[str]:
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        if list(Path(folder).glob(f"{_TORCH.replace('==', '-')}-*.whl")):
            return [f"--find-links={folder}", _TORCH]
    return []
