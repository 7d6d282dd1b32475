"""What an engine says of an attempt's tokens, as far as it can be true: it is in every sum."""

from __future__ import annotations

from headrace.core.model import Endpoint, Request, Usage
from headrace.core.usage_belief import can_be
from headrace.gateway.metrics.meter import Meter
from headrace.gateway.settings import GatewaySettings


def believed(
    usage: Usage, request: Request, meter: Meter, *, completed: bool, settings: GatewaySettings
) -> Usage | None:
    """The engine's count, None if it cannot be that of this request and its answer."""
    cached_tokens = usage.cached_tokens
    if not 0 <= cached_tokens <= usage.input_tokens:
        # Some add those of each choice to the prompt of one; the rest is as good as ever.
        cached_tokens = max(0, min(cached_tokens, usage.input_tokens))
        usage = Usage(usage.input_tokens, usage.output_tokens, cached_tokens)
    input_tokens = meter.input_tokens_estimate
    if request.endpoint is Endpoint.OTHER:  # whose prompts are not read
        input_tokens = settings.limits.max_body_bytes
    # A stream that broke off may have told its input alone.
    chunks = meter.chunks if completed else 0
    max_tokens = (request.max_output_tokens or 0) * request.sequences
    can = can_be(usage, input_tokens=input_tokens, max_tokens=max_tokens, chunks=chunks)
    return usage if can else None
