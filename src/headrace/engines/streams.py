"""Which reader reads which endpoint's stream."""

from __future__ import annotations

from headrace.core.model import Endpoint
from headrace.engines.chunks import ChunkReader
from headrace.engines.typed_events import MessagesReader, ResponsesReader
from headrace.engines.usage import StreamReader, UsageRule


def open_reader(
    endpoint: Endpoint, rule: UsageRule, *, injected: bool, prompts: int
) -> StreamReader:
    """Make the reader for one stream of `endpoint`; an unknown protocol is relayed unread."""
    match endpoint:
        case Endpoint.CHAT | Endpoint.COMPLETIONS:
            return ChunkReader(
                injected=injected, usage_per_choice=rule.usage_per_choice, prompts=prompts
            )
        case Endpoint.RESPONSES:
            return ResponsesReader()
        case Endpoint.MESSAGES:
            return MessagesReader()
        case Endpoint.EMBEDDINGS | Endpoint.OTHER:
            return StreamReader()
