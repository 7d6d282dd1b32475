"""The known dialects: name to module, imported when first asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from headrace.engines.dialect import Dialect
from headrace.engines.reading import Answers

DIALECTS = {
    "llamacpp": "headrace.engines.llamacpp",
    "openai": "headrace.engines.openai",
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


_METRIC_PREFIXES = {"vllm": b"vllm:", "llamacpp": b"llamacpp:"}


def detect(answers: Answers) -> str:
    """Guess the dialect's name from what `/metrics` and `/v1/models` answered.

    `openai` when neither gives it away: every engine here speaks at least that.
    """
    _, metrics = answers.get("/metrics", (0, b""))
    for name, prefix in _METRIC_PREFIXES.items():
        if metrics.startswith(prefix) or b"\n" + prefix in metrics:
            return name
    status, models = answers.get("/v1/models", (0, b""))
    if status == 200:
        try:
            owners = {model.owned_by for model in dialect("openai").models(models)}
        except ValueError:
            owners = set[str | None]()
        for name in sorted(DIALECTS):
            if name in owners:
                return name
    return "openai"
