"""Which API a path speaks."""

from __future__ import annotations

from headrace.core.model import Endpoint

_ENDPOINTS = {
    b"/v1/chat/completions": Endpoint.CHAT,
    b"/v1/completions": Endpoint.COMPLETIONS,
    b"/v1/embeddings": Endpoint.EMBEDDINGS,
    b"/v1/responses": Endpoint.RESPONSES,
    b"/v1/messages": Endpoint.MESSAGES,
}

AUDIO = frozenset((b"/v1/audio/transcriptions", b"/v1/audio/translations"))
"""What generates text from sound. Of the usage of its answers some is in tokens, some in seconds,
and answers of plain text have none."""

STORED_RESPONSE = b"/v1/responses/"
"""What follows is the id of a stored response, and perhaps an action on it."""


def endpoint_of(path: bytes) -> Endpoint:
    """Return the endpoint of a path under `/v1/`; what is not known passes as OTHER."""
    return _ENDPOINTS.get(path, Endpoint.OTHER)


def stored_response_id(path: bytes) -> str:
    """Return the response id in `/v1/responses/{id}[/action]`, or ""."""
    if not path.startswith(STORED_RESPONSE):
        return ""
    return path[len(STORED_RESPONSE) :].partition(b"/")[0].decode("ascii", "replace")


UNVERSIONED = frozenset(
    (
        b"/tokenize",
        b"/detokenize",
        b"/pooling",
        b"/classify",
        b"/score",
        b"/rerank",
        b"/v2/rerank",
    )
)
"""What vLLM answers clients outside `/v1/`; each of them only reads. All else out there is between
an engine and its operator: sleep, profiles, caches, weights.
"""


def is_engines(path: bytes) -> bool:
    """Whether an engine answers this path, and not the gateway alone."""
    return path.startswith(b"/v1/") or path in UNVERSIONED


ENGINE_ADMIN = frozenset((b"/v1/load_lora_adapter", b"/v1/unload_lora_adapter"))
"""What changes an engine for everybody, and so is not for clients: vLLM's adapter loading."""
