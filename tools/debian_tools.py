"""Brings real programs that the tests need, without root and without installing anything.

A tool is taken from PATH, else from Debian's packages: they are downloaded with apt lists of the
project's own, unpacked below `.cache/tools/` and run from there with LD_LIBRARY_PATH. No package
script runs and no service starts. One more tool is one more line in TOOLS.

`python tools/debian_tools.py prometheus` fetches it if it is not there yet.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "tools"
_LIBRARY_FOLDERS = ("lib", "usr/lib")


class ToolUnavailableError(RuntimeError):
    """A tool is neither on PATH nor to be had from Debian's packages. The message says why."""


@dataclass(frozen=True, slots=True)
class DebianTool:
    """What a tool consists of.

    Attributes:
        packages: Debian packages that hold it; what they depend on comes along.
        binaries: Programs the tests run, as they are called on PATH.
    """

    packages: tuple[str, ...]
    binaries: tuple[str, ...]


TOOLS = {
    "nginx": DebianTool(packages=("nginx",), binaries=("nginx",)),
    "prometheus": DebianTool(packages=("prometheus",), binaries=("prometheus", "promtool")),
}


@dataclass(frozen=True, slots=True)
class Program:
    """One runnable binary.

    Attributes:
        path: The executable.
        env: The environment to start it with.
    """

    path: Path
    env: dict[str, str]


def find(binary: str) -> Program:
    """The program called `binary`, from PATH or fetched before.

    Raises:
        ToolUnavailableError: It is not there. The message names the command that fetches it.
        KeyError: No tool in TOOLS has such a binary.
    """
    if on_path := shutil.which(binary):
        return Program(Path(on_path), dict(os.environ))
    tool = next(name for name, tool in TOOLS.items() if binary in tool.binaries)
    tree = CACHE / tool
    for folder in ("usr/bin", "usr/sbin", "bin", "sbin"):
        if (path := tree / folder / binary).is_file():
            return Program(path, {**os.environ, "LD_LIBRARY_PATH": _library_path(tree)})
    raise ToolUnavailableError(
        f"{binary} is neither on PATH nor below {tree.relative_to(ROOT)}: "
        f"run `python tools/debian_tools.py {tool}` or install it"
    )


def fetch(tool: str) -> None:
    """Make every binary of `tool` findable.

    Raises:
        ToolUnavailableError: Not a Debian or Ubuntu machine, or apt failed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_complete(tool):
            return
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise ToolUnavailableError(f"no apt-get here: put {tool} on PATH by other means")
        print(
            f"headrace: unpacking Debian's {tool} into {CACHE.relative_to(ROOT)}/{tool}", flush=True
        )
        _unpack(tool, _apt_folder())
        if not _is_complete(tool):
            wanted = ", ".join(TOOLS[tool].binaries)
            raise ToolUnavailableError(f"Debian's {tool} does not hold all of {wanted}")


def _is_complete(tool: str) -> bool:
    try:
        for binary in TOOLS[tool].binaries:
            find(binary)
    except ToolUnavailableError:
        return False
    return True


def _apt_folder() -> Path:
    """Lists and caches of our own; what is installed is still read from the system."""
    folder = CACHE / "apt"
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def _unpack(tool: str, apt: Path) -> None:
    """Download the tool's packages and what they need that is not installed; unpack them all."""
    _apt(apt, "update")
    plan = _apt(apt, "install", "--simulate", "--no-install-recommends", *TOOLS[tool].packages)
    packages = [
        f"{name}={version}"
        for name, version in re.findall(r"^Inst (\S+) .*?\((\S+)", plan, re.MULTILINE)
    ]
    downloads = apt / "archives"
    _apt(apt, "download", *packages, cwd=downloads)
    unpacking = CACHE / f".{tool}.unpacking"
    shutil.rmtree(unpacking, ignore_errors=True)
    for archive in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(archive), str(unpacking)])
        archive.unlink()
    shutil.rmtree(CACHE / tool, ignore_errors=True)
    unpacking.rename(CACHE / tool)


def _apt(folder: Path, *arguments: str, cwd: Path | None = None) -> str:
    options = {
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Debug::NoLocking": "true",  # the system's lock is root's, and we change nothing there
        "APT::Sandbox::User": "",  # do not become another user that cannot write here
        "APT::Get::Assume-Yes": "true",
        "Acquire::Languages": "none",
    }
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return _run(["apt-get", "--quiet", *flags, *arguments], cwd=cwd)


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ToolUnavailableError(
            f"{command[0]} {command[-1]} failed: {done.stderr.strip()[-500:]}"
        )
    return done.stdout


def _library_path(tree: Path) -> str:
    """Every folder of the unpacked tree that holds shared libraries."""
    folders = {
        library.parent for folder in _LIBRARY_FOLDERS for library in (tree / folder).rglob("*.so*")
    }
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return ":".join([*map(str, sorted(folders)), *([inherited] if inherited else [])])


def main() -> None:
    """Fetch the tools named on the command line."""
    names = sys.argv[1:]
    if unknown := sorted(set(names) - set(TOOLS)):
        sys.exit(f"no such tool: {', '.join(unknown)}. Known: {', '.join(TOOLS)}")
    for name in names:
        try:
            fetch(name)
        except ToolUnavailableError as error:
            # Not fatal by itself: the tests that need it decide, and in CI they fail.
            print(f"headrace: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
