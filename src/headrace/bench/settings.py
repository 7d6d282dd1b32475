"""What a run is told, and the bounds it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KEY_VARIABLE = "HEADRACE_API_KEY"
"""Of the environment, with the key of the endpoint."""


class BenchError(Exception):
    """What is wrong with the input or the endpoint, in one line."""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How requests are made, and when a run's figures are not to be trusted."""

    url: str
    """`http(s)://host:port`, with or without `/v1`."""
    model: str = ""
    """Empty: the first one that the endpoint lists."""
    api_key: str = ""
    endpoint: str = "chat"
    """`chat` or `completions`."""
    stream: bool = True
    natural_ends: bool = False
    """Let the model end its answer; else `ignore_eos` makes it as long as planned."""
    extra_body: str = ""
    """A JSON object whose members are added to each request."""
    text_seed: int | None = None
    """Of the prompts' words; None: another one for each target that is reached, so that no prompt
    is in a cache from an earlier run."""
    tokenizer: Path | None = None
    """A `tokenizer.json`; needs the extra `tokenizer`."""
    workers: int | None = None
    """Processes that send; None: as many as the load needs."""
    timeout_s: float = 600.0
    """For one answer, from when it was sent; a stream without end is cut by it."""
    connect_s: float = 10.0
    """For what is asked before the run: models, tokens, the length of a probe."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """Above it an answer is cut: no answer of text is that long."""
    max_event_bytes: int = 1024 * 1024
    """Longest event of a stream that is read."""
    late_after_s: float = 0.010
    """A request sent later than this after its time is late."""
    max_late_share: float = 0.01
    """With more late requests than this share the generator was the bottleneck, and the run is
    marked invalid."""
    idle_s: float = 4.0
    """Connections idle for longer are not used again: uvicorn, under most engines, closes them
    after 5 s."""
