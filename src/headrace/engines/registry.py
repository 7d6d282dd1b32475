"""The known dialects: name to module, imported when first asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from headrace.engines.dialect import Dialect
from headrace.engines.reading import Answers

DIALECTS = {
    "llamacpp": "headrace.engines.llamacpp",
    "openai": "headrace.engines.openai",
    "sglang": "headrace.engines.sglang",
    "tgi": "headrace.engines.tgi",
    "triton": "headrace.engines.triton",
    "trtllm": "headrace.engines.trtllm",
    "vllm": "headrace.engines.vllm",
}
"""Name as written in a config, and the module that holds its `DIALECT`."""


@cache
def dialect(name: str) -> Dialect:
    """Return the dialect of this name. Raises `ValueError` naming the known ones."""
    if name not in DIALECTS:
        known = ", ".join(sorted(DIALECTS))
        raise ValueError(f"engine {name!r} is not known; use one of: {known}")
    found: Dialect = import_module(DIALECTS[name]).DIALECT
    return found


_METRICS = ("/metrics", "/prometheus/metrics")
_METRIC_PREFIXES = {
    b"nv_inference_": "triton",  # first: it hands on what its vLLM backend calls its metrics
    b"nv_trt_llm_": "triton",
    b"vllm:": "vllm",
    b"llamacpp:": "llamacpp",
    b"sglang:": "sglang",
    b"tgi_": "tgi",
    b"trtllm_": "trtllm",
}
_OWNERS = {
    "vllm": "vllm",
    "llamacpp": "llamacpp",
    "sglang": "sglang",
    "tensorrt_llm": "trtllm",
    "Triton Inference Server": "triton",
}
"""What engines write as the `owned_by` of their models; TGI writes the model's own id."""


def detect(answers: Answers) -> str:
    """Guess the dialect's name from what `/metrics`, `/prometheus/metrics` and `/v1/models` say.

    `openai` when none gives it away: every engine here speaks at least that.
    """
    exported = b"\n".join(answers.get(path, (0, b""))[1] for path in _METRICS)
    for prefix, name in _METRIC_PREFIXES.items():
        if exported.startswith(prefix) or b"\n" + prefix in exported:
            return name
    status, models = answers.get("/v1/models", (0, b""))
    if status == 200:
        try:
            owners = [model.owned_by for model in dialect("openai").models(models)]
        except ValueError:
            return "openai"
        return next((_OWNERS[owner] for owner in owners if owner in _OWNERS), "openai")
    return "openai"
