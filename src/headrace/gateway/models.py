"""`/v1/models`: everything that can be asked for by name, merged over the pools."""

from __future__ import annotations

import msgspec

from headrace.core.model import Fleet


def model_list(fleet: Fleet, created: int) -> list[dict[str, object]]:
    """Return OpenAI's model objects: models, then adapters, then aliases, each once by name.

    `created` is when this gateway started, in Unix seconds: engines disagree about theirs.
    `max_model_len` (vLLM's field) is the smallest context any replica of the model reports.
    """
    entries: dict[str, dict[str, object]] = {}
    for pool in fleet.pools.values():
        replicas = pool.replicas.values()
        contexts = [r.max_context_tokens for r in replicas if r.max_context_tokens]
        entry = entries.setdefault(pool.spec.model, _entry(pool.spec.model, created))
        if contexts:
            known = entry.get("max_model_len")
            smallest = min(contexts)
            entry["max_model_len"] = min(known, smallest) if isinstance(known, int) else smallest
    for pool in fleet.pools.values():
        adapters = {name for replica in pool.replicas.values() for name in replica.adapters}
        for name in sorted(adapters):
            entries.setdefault(name, _entry(name, created, parent=pool.spec.model))
    for name, alias in fleet.aliases.items():
        entry = entries.setdefault(name, _entry(name, created))
        entry["targets"] = [target.model for target in alias.targets]
    return list(entries.values())


def render_models(fleet: Fleet, created: int) -> bytes:
    """Return the body of `GET /v1/models`."""
    return msgspec.json.encode({"object": "list", "data": model_list(fleet, created)})


def render_model(fleet: Fleet, created: int, name: str) -> bytes | None:
    """Return the body of `GET /v1/models/{name}`, None if there is no such model."""
    for entry in model_list(fleet, created):
        if entry["id"] == name:
            return msgspec.json.encode(entry)
    return None


def _entry(name: str, created: int, *, parent: str | None = None) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "headrace",
        "parent": parent,
    }
