"""The command line of a llama.cpp replica."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

_SERVER_MODULE = "headrace.edges.fleets.llamacpp_server"


@dataclass(frozen=True, slots=True)
class LlamaCppArguments:
    """What a llama.cpp process serves, and with how much of the machine."""

    model_path: Path
    """GGUF file."""
    model_id: str
    """The id that its `/v1/models` lists."""
    slots: int
    """Sequences it decodes at once; more requests wait inside the engine."""
    context_per_slot_tokens: int
    """Prompt and answer together, for each sequence."""
    threads: int
    """Threads that compute."""
    prompt_cache_mib: int
    """Memory for the KV state of prompts that left their slot."""
    embeddings: bool
    """Whether it answers `/v1/embeddings` too."""

    @property
    def url(self) -> str | None:
        """It takes a free port and says which."""
        return None

    @property
    def health_path(self) -> str:
        """llama.cpp's."""
        return "/health"

    def command_line(self) -> list[str]:
        """The child's command."""
        return [
            *(sys.executable, "-m", _SERVER_MODULE),
            *("--model", str(self.model_path)),
            *("--alias", self.model_id),
            *("--parallel", str(self.slots)),
            *("--ctx", str(self.slots * self.context_per_slot_tokens)),
            *("--threads", str(self.threads)),
            *("--cache-ram-mib", str(self.prompt_cache_mib)),
            *("--parent", str(os.getpid())),
            *(["--embeddings"] if self.embeddings else []),
        ]
