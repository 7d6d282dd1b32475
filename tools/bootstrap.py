"""Makes `.venv` from uv.lock with nothing but a Python interpreter.

`python3 tools/bootstrap.py` installs what `headrace up` needs; `--dev` adds the tools of
`make test`, `--extra NAME` an optional part of Headrace. What was asked for once stays. Neither
pip nor the venv module is wanted, which Debian ships apart: uv comes as a hash-pinned wheel. Done
already for this lock file, it returns at once.
"""

from __future__ import annotations  # so that an old Python reaches the version check below

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".headrace-environment"
OLDEST_PYTHON = (3, 11)

UV_VERSION = "0.13.9"
# (system, machine, C library) -> (platform tag of the wheel, its sha256)
UV_WHEELS = {
    ("Linux", "x86_64", "glibc"): (
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    ("Linux", "x86_64", "musl"): (
        "musllinux_1_1_x86_64",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    ("Linux", "aarch64", "glibc"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Linux", "aarch64", "musl"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("Darwin", "x86_64", ""): (
        "macosx_10_12_x86_64",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
    ("Darwin", "arm64", ""): (
        "macosx_11_0_arm64",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
}


def main() -> None:
    """Make or refresh the environment; exit with a message that says what to do otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also install what `make test` needs")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="NAME",
        help="also install what this optional part needs, such as keda or otel",
    )
    options = parser.parse_args()
    dev: bool = options.dev
    asked: list[str] = options.extra
    refuse_old_python()
    if is_current(dev=dev, extras=asked):
        return
    extras = sorted({*asked, *kept_extras()})
    started = time.monotonic()
    say(f"making .venv for {platform.python_implementation()} {platform.python_version()}")
    uv = find_uv()
    first = "" if VENV.exists() else "; the first time this takes a minute or more"
    say(f"installing what uv.lock names{', with the tools for tests' if dev else ''}{first}")
    install(uv, dev=dev, extras=extras)
    holds = " ".join(["dev" if dev or has_dev() else "run", *extras])
    STAMP.write_text(f"{fingerprint()} {holds}\n")
    say(f".venv is ready after {time.monotonic() - started:.0f} s")


def refuse_old_python() -> None:
    """Exit with a message where this interpreter is older than what Headrace is written for."""
    if sys.version_info < OLDEST_PYTHON:
        found = platform.python_version()
        sys.exit(
            f"headrace: Python 3.11 or newer is needed, and {sys.executable} is {found}. "
            "Install one and name it, as in `make PYTHON=python3.12 up`."
        )


def say(message: str) -> None:
    """One line of progress, on stderr so that a program's own output stays clean."""
    print(f"headrace: {message}", file=sys.stderr, flush=True)


def fingerprint() -> str:
    """Changes whenever `.venv` has to be remade: other pins, another place or interpreter."""
    digest = hashlib.sha256(f"{ROOT}\0{os.path.realpath(sys.executable)}\0{sys.version}".encode())
    for name in ("pyproject.toml", "uv.lock", "tools/bootstrap.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_current(*, dev: bool, extras: Sequence[str] = ()) -> bool:
    """Whether `.venv` was made from exactly these files and holds at least what is asked for."""
    if not STAMP.is_file() or not (VENV / "bin" / "headrace").exists():
        return False
    made_from, *holds = STAMP.read_text().split()
    asked = {*extras, *(["dev"] if dev else [])}
    return made_from == fingerprint() and asked.issubset(holds)


def kept_extras() -> list[str]:
    """Those that were asked for before: an environment for KEDA is one after a `git pull`, too."""
    return STAMP.read_text().split()[2:] if STAMP.is_file() else []


def has_dev() -> bool:
    """Installing for `up` keeps the tools for tests where they are there already."""
    return (VENV / "bin" / "pytest").exists()


def find_uv() -> str:
    """Path of the pinned uv, fetched if need be; where it cannot be had, one that is on PATH."""
    sys.path.insert(0, str(ROOT / "src"))
    from headrace.edges.package_index import (  # noqa: PLC0415 - needs a Python that was checked
        PackageIndexError,
        PinnedWheelFile,
        cache_dir,
        fetch_file,
    )

    wheel_key = (platform.system(), platform.machine(), c_library())
    on_path = shutil.which("uv")
    if wheel_key not in UV_WHEELS:
        if on_path:
            return on_path
        sys.exit(f"headrace: no pinned uv for {'/'.join(wheel_key)}: install uv and put it on PATH")
    tag, sha256 = UV_WHEELS[wheel_key]
    pin = PinnedWheelFile(
        project="uv",
        wheel=f"uv-{UV_VERSION}-py3-none-{tag}.whl",
        wheel_sha256=sha256,
        member=f"uv-{UV_VERSION}.data/scripts/uv",
    )
    target = cache_dir() / "uv" / UV_VERSION / "uv"
    if not target.exists():
        say(f"fetching uv {UV_VERSION} (18 MB, hash-pinned) into {target.parent}")
    try:
        uv = fetch_file(pin, target)
    except (PackageIndexError, OSError) as error:
        if on_path:
            say(f"{error}; using {on_path}")
            return on_path
        sys.exit(f"headrace: {error}. An installed uv on PATH would do, too.")
    uv.chmod(0o755)
    return str(uv)


def c_library() -> str:
    """`glibc` or `musl` on Linux, empty elsewhere."""
    if platform.system() != "Linux":
        return ""
    return "glibc" if platform.libc_ver()[0] == "glibc" else "musl"


def install(uv: str, *, dev: bool, extras: Sequence[str] = ()) -> None:
    """Bring `.venv` to the state of uv.lock."""
    named = [word for extra in ("local", *extras) for word in ("--extra", extra)]
    what = [*named, *(["--group", "dev"] if dev else ["--no-default-groups"])]
    mirror = index_setting()
    with shown_if_it_fails():
        if mirror is None:
            run(uv, "sync", "--locked", "--inexact", "--python", sys.executable, *what)
        else:
            install_from_mirror(uv, mirror, what, VENV, "-e", str(ROOT))


def install_wheel(uv: str, wheel: Path, environment: Path) -> None:
    """Bring an environment for use alone to the state of uv.lock, with all extras and this wheel
    in place of the sources.
    """
    what = ["--all-extras", "--no-default-groups"]
    if os.path.realpath(environment / "bin" / "python") != os.path.realpath(sys.executable):
        shutil.rmtree(environment, ignore_errors=True)  # made for another Python
    mirror = index_setting()
    with shown_if_it_fails():
        if mirror is None:
            sync = ("sync", "--locked", "--inexact", "--no-install-project")
            run(uv, *sync, "--python", sys.executable, *what, environment=environment)
            python = str(environment / "bin" / "python")
            to_reinstall = ("--no-deps", "--reinstall", "--python", python)
            run(uv, "pip", "install", *to_reinstall, str(wheel))
        else:
            install_from_mirror(uv, mirror, what, environment, "--reinstall", str(wheel))


@contextmanager
def shown_if_it_fails() -> Iterator[None]:
    """Exit with what uv printed where it fails."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stdout)
        sys.exit(
            f"headrace: {Path(error.cmd[0]).name} {error.cmd[1]} failed as it says above. "
            "`make clean` and another try start from nothing."
        )


def index_setting() -> str | None:
    """A package index that the environment names instead of PyPI, the way pip or uv read it."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def install_from_mirror(
    uv: str, mirror: str, what: list[str], environment: Path, *project: str
) -> None:
    """The same versions and hashes from another index: uv.lock itself names PyPI's addresses.

    `project` is what uv is told to install Headrace itself from.
    """
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "requirements.txt"
        run(uv, "export", "--frozen", "--no-emit-project", "-o", str(pins), *what)
        python = environment / "bin" / "python"
        if not python.exists():
            run(uv, "venv", "--python", sys.executable, str(environment))
        to_venv = ("--python", str(python), "--default-index", mirror)
        run(uv, "pip", "install", "--require-hashes", "-r", str(pins), *to_venv)
        run(uv, "pip", "install", "--no-deps", *project, *to_venv)


def run(*command: str, environment: Path | None = None) -> None:
    """Run uv in the project, without Python downloads and with the system's certificates.

    What it prints is kept for the case that it fails. `environment` is `.venv` unless said.
    """
    env = {
        **os.environ,
        "UV_PROJECT_ENVIRONMENT": str(environment or VENV),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": "true",
    }
    env.pop("VIRTUAL_ENV", None)  # an active environment is not the one to fill
    if bundle := os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE"):
        env.setdefault("SSL_CERT_FILE", bundle)  # the one that uv reads
    subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


if __name__ == "__main__":
    main()
