"""Builds Headrace with its deciding modules compiled: a wheel in `dist/` for this interpreter.

    python -m tools.compiled

The sources are compiled by mypyc in a copy, with nothing changed but the constructors of records
(`written_out`); nothing in `src/` changes. It needs a C compiler, the headers of this Python, and
two minutes. The wheel's version ends in `+compiled`, and so does what `headrace --version` says.
`SITE` holds the same unpacked, to run tests against:

    PYTHONPATH=.cache/compiled/site .venv/bin/pytest tests/unit/core

A module belongs into `MODULES` if requests spend time there. One that defines settings, or data
that msgspec decodes, does not: compiled classes do not keep the types of their fields.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tools import bootstrap

ROOT = bootstrap.ROOT
FOLDER = ROOT / ".cache" / "compiled"
SITE = FOLDER / "site"
DIST = ROOT / "dist"

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
# What else is imported is checked by pyright, and not all of it is there in an isolated build.
MYPY = """[mypy]
ignore_missing_imports = True
follow_imports = silent
warn_unreachable = True
"""
COMPILER_OPTIONS = ["-fno-plt", "-fno-semantic-interposition"]
"""What is called of the interpreter is called directly, not by way of a table of stubs: 5 %."""
MODULES = (
    "bench/arrival_log",
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
    "core/misses",
    "core/model",
    "core/policies/seconds",
    "core/pool_demand",
    "core/prefix_index",
    "core/prompt_length",
    "core/prompt_marks",
    "core/rejections",
    "core/replica_cache",
    "core/request_work",
    "core/retries",
    "core/roster",
    "core/routing",
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
    "edges/http/pieces",
    "edges/http/ports",
    "edges/http/request_reader",
    "edges/http/server",
    "edges/http/upstream_connection",
    "engines/answers",
    "engines/dialect",
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
    """Build the wheel and unpack it; exit with the compiler's words where that fails."""
    project = lay_out(FOLDER / "project")
    uv = bootstrap.find_uv()
    mirror = bootstrap.index_setting()
    index = [] if mirror is None else ["--default-index", mirror]
    command = (uv, "build", "--wheel", "--python", sys.executable, *index, "--out-dir", str(DIST))
    print("compiling; this takes two minutes on an idle machine", flush=True)
    try:
        bootstrap.run(*command, str(project))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.stdout}\nheadrace: the compiled wheel could not be built, see above")
    wheel = max(DIST.glob("headrace-*+compiled-*.whl"), key=lambda each: each.stat().st_mtime)
    shutil.rmtree(SITE, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(SITE)
    print(wheel.relative_to(ROOT))


def lay_out(project: Path) -> Path:
    """Make a folder from which setuptools builds the wheel."""
    shutil.rmtree(project, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "src" / "headrace", project / "headrace", ignore=ignored)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    init = project / "headrace" / "__init__.py"
    init.write_text(_marked(r'^(__version__ = "[^"]+)"', init.read_text()))
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
