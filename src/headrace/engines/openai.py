"""Any server that speaks OpenAI's API and about which nothing else is known."""

from __future__ import annotations

from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.reading import Answers, EngineReading
from headrace.engines.usage import UsageRule


def read(_answers: Answers) -> EngineReading:
    """Nothing is exported under a known name, whatever was answered."""
    return EngineReading()


_LAST_CHUNK = UsageRule(where="the last chunk, whose `choices` is empty", inject_usage=True)

DIALECT = Dialect(
    name="openai",
    title="Any OpenAI-compatible server",
    evidence="what OpenAI and Anthropic publish of their APIs",
    unverified=True,
    read=read,
    metrics_paths=(),
    sources={},
    usage_rules={
        Endpoint.CHAT: _LAST_CHUNK,
        Endpoint.COMPLETIONS: _LAST_CHUNK,
        Endpoint.EMBEDDINGS: UsageRule(where="the body"),
        Endpoint.RESPONSES: UsageRule(where="`response.completed` or `response.incomplete`"),
        Endpoint.MESSAGES: UsageRule(
            where="input from `message_start` (with both cache counts), output from `message_delta`"
        ),
    },
    # The API knows no health check; who lists models can be sent requests. Servers of embeddings
    # have no such list, and usually a health check.
    health_path="/v1/models",
    other_health_path="/health",
)
