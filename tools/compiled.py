"""Builds Headrace with its deciding modules compiled, and an environment that runs it.

    python -m tools.compiled            # what `make compiled` does
    python -m tools.compiled --check    # only whether the modules can be compiled: no C compiler

The sources are compiled by mypyc in a copy, with nothing changed but the constructors of records
(`written_out`); nothing in `src/` changes. It needs a C compiler, the headers of this Python, and
two minutes. The wheel lies in `dist/`; its version ends in `+compiled`, and so does what
`headrace --version` says. `.venv-compiled` has it installed for use, with what uv.lock names;
`.venv` stays as it is, since tests and edits need the sources themselves. Each command that runs
from there says so when the sources have changed since (`headrace.edges.build`).
`SITE` holds the wheel unpacked, to run tests against:

    PYTHONPATH=.cache/compiled/site .venv/bin/pytest tests/unit/core

A module belongs into `MODULES` if requests spend time there. One that defines settings, or data
that msgspec decodes, does not: compiled classes do not keep the types of their fields.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import bootstrap, c_compiler

ROOT = bootstrap.ROOT
FOLDER = ROOT / ".cache" / "compiled"
SITE = FOLDER / "site"
BUILT = FOLDER / "built"
"""What the wheel in `dist/` was built from, and its name."""
DIST = ROOT / "dist"
VENV = ROOT / ".venv-compiled"
STAMP = VENV / ".headrace-environment"
ONLY_SHOWN = ("README.md", "LICENSE")
"""What else is in the wheel, for package indexes."""
CANNOT_BUILD = 2
"""Exit code where this machine lacks what a build needs."""

BUILD_SYSTEM = """[build-system]
requires = ["mypy==2.4.1", "setuptools==80.9.0"]
build-backend = "setuptools.build_meta"

[tool.setuptools.packages.find]
include = ["headrace*"]

[tool.setuptools.package-data]
"*" = ["*"]
"""
SETUP = """import sys
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))
from written_out import in_place

paths = {paths!r}
with in_place(paths):
    modules = mypycify(["--config-file=mypy.ini", *paths], opt_level="2", debug_level="0")
for module in modules:
    module.extra_compile_args += {compiler_options!r}
setup(ext_modules=modules)
"""
# What else is imported is checked by pyright. No other package is looked into: an isolated build
# has none, and `--check` is to find what that build would.
MYPY = """[mypy]
no_site_packages = True
ignore_missing_imports = True
follow_imports = silent
warn_unreachable = True
"""
COMPILER_OPTIONS = ["-fno-plt", "-fno-semantic-interposition"]
"""What is called of the interpreter is called directly, not by way of a table of stubs: 5 %."""
MODULES = (
    "bench/timing/arrival_log",
    "core/attempts",
    "core/candidates",
    "core/catalog",
    "core/crowding",
    "core/dispatcher",
    "core/events",
    "core/flights",
    "core/health",
    "core/held_queue",
    "core/kv_event_index",
    "core/kv_growth",
    "core/late_waits",
    "core/latency",
    "core/learning",
    "core/length_counter",
    "core/model",
    "core/policies/seconds",
    "core/pool_demand",
    "core/prefix_index",
    "core/prompt_length",
    "core/prompt_marks",
    "core/rejections",
    "core/replica_cache",
    "core/retries",
    "core/roster",
    "core/routing",
    "core/silent_prefills",
    "core/ties",
    "core/usage_belief",
    "core/waiting",
    "core/wakes",
    "edges/http/address",
    "edges/http/chunks",
    "edges/http/client",
    "edges/http/connection",
    "edges/http/heads",
    "edges/http/known_heads",
    "edges/http/late_acks",
    "edges/http/pieces",
    "edges/http/ports",
    "edges/http/request_reader",
    "edges/http/server",
    "edges/http/upstream_connection",
    "engines/answers",
    "engines/booleans",
    "engines/chunks",
    "engines/decoding",
    "engines/dialect",
    "engines/spans",
    "engines/sse",
    "engines/streams",
    "engines/transcripts",
    "engines/typed_events",
    "engines/usage",
    "gateway/attempt",
    "gateway/believed_usage",
    "gateway/call",
    "gateway/engine_request",
    "gateway/exchange",
    "gateway/front",
    "gateway/lost_replicas",
    "gateway/metrics/histogram",
    "gateway/metrics/meter",
    "gateway/metrics/series",
    "gateway/metrics/tokens",
    "gateway/metrics/windows",
    "gateway/notes",
    "gateway/promise",
    "gateway/prompt_blocks",
    "gateway/relay",
    "gateway/server",
    "gateway/steady",
    "gateway/stored",
    "gateway/telemetry",
    "gateway/upstream",
    "gateway/usual_chat",
)
"""Modules that an ordinary request goes through, and those that derive from them."""


def main() -> None:
    """Build and install; exit with one line where this machine cannot."""
    parser = argparse.ArgumentParser(description="Builds Headrace with compiled modules.")
    parser.add_argument("--check", action="store_true", help="only whether it can be built")
    bootstrap.refuse_old_python()
    if parser.parse_args().check:
        check()
        return
    started = time.monotonic()
    wheel = build()
    if is_installed(wheel):
        bootstrap.say(f"{VENV.name}/bin/headrace is built from these sources already")
        return
    bootstrap.say(f"installing it into {VENV.name}, with what uv.lock names")
    install(wheel)
    took = time.monotonic() - started
    bootstrap.say(
        f"{VENV.name}/bin/headrace is ready after {took:.0f} s; restart gateways that run from it"
    )


def build() -> Path:
    """The wheel of these sources for this Python, built unless it is there already.

    Exits with one line where this machine cannot, and with what the compiler said where it fails.
    """
    with _alone():
        return _build()


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time lays out and builds, since the copy is made anew; others wait."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            bootstrap.say("waiting for another process that compiles here")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build() -> Path:
    project = lay_out(FOLDER / "project")
    asked = fingerprint(project)
    if (there := _built(asked)) is not None:
        return there
    if (what := c_compiler.missing()) is not None:
        bootstrap.say(f"cannot compile: {what}. Nothing was changed.")
        sys.exit(CANNOT_BUILD)
    bootstrap.say("compiling; this takes two minutes on an idle machine")
    wheel = _wheel_of(project)
    BUILT.unlink(missing_ok=True)
    shutil.rmtree(SITE, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(SITE)
    BUILT.write_text(f"{asked} {wheel.name}")
    bootstrap.say(f"{wheel.relative_to(ROOT)} is built")
    return wheel


def is_built() -> bool:
    """Whether `build` would find what it makes."""
    with _alone():
        return _built(fingerprint(lay_out(FOLDER / "project"))) is not None


def _built(asked: str) -> Path | None:
    built_from, _, name = BUILT.read_text().partition(" ") if BUILT.is_file() else ("", "", "")
    wheel = DIST / name
    return wheel if built_from == asked and wheel.is_file() and SITE.is_dir() else None


def _wheel_of(project: Path) -> Path:
    uv = bootstrap.find_uv()
    mirror = bootstrap.index_setting()
    index = [] if mirror is None else ["--default-index", mirror]
    command = (uv, "build", "--wheel", "--python", sys.executable, *index, "--out-dir", str(DIST))
    try:
        bootstrap.run(*command, str(project))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.stdout}\nheadrace: the compiled wheel could not be built, see above")
    return max(DIST.glob("headrace-*+compiled-*.whl"), key=lambda each: each.stat().st_mtime)


def install(wheel: Path) -> None:
    """Make `.venv-compiled` run this wheel."""
    STAMP.unlink(missing_ok=True)
    bootstrap.install_wheel(bootstrap.find_uv(), wheel, VENV)
    STAMP.write_text(_digest(wheel.read_bytes(), bootstrap.fingerprint().encode()))


def is_installed(wheel: Path) -> bool:
    """Whether `.venv-compiled` was made from this wheel and these pins."""
    if not STAMP.is_file() or not (VENV / "bin" / "headrace").exists():
        return False
    made_from = _digest(wheel.read_bytes(), bootstrap.fingerprint().encode())
    return STAMP.read_text() == made_from


def check() -> None:
    """Translate the modules to C as the build does, and exit with what is wrong where it fails.

    What has passed once is not looked at again.
    """
    project = lay_out(FOLDER / "checked")
    passed = FOLDER / "passed"
    asked = fingerprint(project)
    if passed.is_file() and passed.read_text() == asked:
        return
    code, said = translated(project)
    if code != 0:
        sys.exit(
            f"{said}headrace: `make compiled` would fail as it says above "
            "(docs/how-to/compiled.md has what compiled modules ask for)"
        )
    passed.write_text(asked)


def translated(project: Path) -> tuple[int, str]:
    """Run what the build runs before the C compiler; the exit code and what is wrong."""
    # Asked for its name alone, setuptools compiles nothing; the modules are translated before that.
    command = (sys.executable, "setup.py", "--quiet", "--name")
    run = subprocess.run(
        command,
        cwd=project,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = (line for line in run.stdout.splitlines() if ": warning: " not in line)
    return run.returncode, "".join(f"{line}\n" for line in said)


def fingerprint(project: Path) -> str:
    """Changes whenever a build of what is laid out there would run otherwise."""
    python = (os.path.realpath(sys.executable), sys.version)
    flags = (os.environ.get(name, "") for name in ("CC", "CFLAGS", "LDFLAGS"))
    parts = [part.encode() for part in (*python, *flags)]
    for path in sorted(project.rglob("*")):
        if path.is_file() and path.name not in ONLY_SHOWN:
            parts += [path.relative_to(project).as_posix().encode(), path.read_bytes()]
    return _digest(*parts)


def source_digest(package: Path) -> str:
    """What a compiled build carries to tell whether the sources beside it are still its own."""
    sys.path.insert(0, str(ROOT / "src"))
    from headrace.edges.build import digest_of  # noqa: PLC0415 - found once its folder is named

    return digest_of(package)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\0".encode() + part)
    return digest.hexdigest()


def lay_out(project: Path) -> Path:
    """Make a folder from which setuptools builds the wheel."""
    shutil.rmtree(project, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", ".#*")  # an editor's locks lead nowhere
    shutil.copytree(ROOT / "src" / "headrace", project / "headrace", ignore=ignored)
    for name in ONLY_SHOWN:
        shutil.copy(ROOT / name, project)
    init = project / "headrace" / "__init__.py"
    said = _marked(r'^(__version__ = "[^"]+)"', init.read_text())
    unsaid, carried = "compiled_from: str | None = ", source_digest(project / "headrace")
    assert f"{unsaid}None\n" in said
    init.write_text(said.replace(f"{unsaid}None", f'{unsaid}"{carried}"'))
    given = (ROOT / "pyproject.toml").read_text()
    described = given[given.index("[project]") : given.index("[dependency-groups]")]
    described = _marked(r'^(version = "[^"]+)"', described)
    (project / "pyproject.toml").write_text(f"{described}{BUILD_SYSTEM}")
    shutil.copy(ROOT / "tools" / "written_out.py", project)
    paths = [f"headrace/{name}.py" for name in MODULES]
    (project / "setup.py").write_text(SETUP.format(paths=paths, compiler_options=COMPILER_OPTIONS))
    (project / "mypy.ini").write_text(MYPY)
    return project


def _marked(version: str, text: str) -> str:
    """The same text with the version in it marked as that of a compiled build."""
    marked, found = re.subn(version, r'\1+compiled"', text, flags=re.MULTILINE)
    assert found == 1, f"{version} was found {found} times"
    return marked


if __name__ == "__main__":
    main()
