"""Writes docs/reference/engines.md from the dialects: `python -m tools.engines_reference`."""

from pathlib import Path

from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.registry import DIALECTS, dialect

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "engines.md"

_HEAD = """\
# Engines

What Headrace reads from each engine, under which names, and how it obtains the tokens a request
used. This page is made from the dialects: `python -m tools.engines_reference`.

`unverified` means that nobody here has run this engine: names and shapes were read from its
published sources, and the tests hold the dialect to those.

The names of a fact are tried in their order, newest first; the first that is there counts. Ranks
behind one address are one sum. A figure that cannot be true (below 0, a share above 1) is as if it
were not told.

| how | meaning |
|---|---|
| told | the engine says it |
| derived | computed from what the engine says, as near as that comes |
| measured at the gateway | the engine does not say it; the traffic Headrace relays does |
| learned | the gateway concludes it from what the engine says of other things |
| not told | nobody knows; what needs it does without |

Tokens, TTFT and TPOT that Headrace exports are measured at the gateway whatever the engine says.
An engine's own counters, and its histograms of TTFT and TPOT where an observation is a request,
serve pools declared `traffic: external`, whose requests do not pass the gateway.
"""

_FACTS = {
    "queue_depth": "requests waiting in the engine",
    "waiting_for_room": "those of them that wait for a full batch or KV cache alone",
    "running": "requests in its batch",
    "kv_usage_ratio": "KV cache in use, 0 to 1",
    "kv_used_tokens": "KV cache in use, tokens",
    "kv_capacity_tokens": "size of the KV cache, tokens",
    "block_size_tokens": "tokens per KV block",
    "max_sequences": "sequences side by side",
    "ttft": "time to first token",
    "tpot": "time per output token",
    "input_tokens_total": "prompt tokens",
    "output_tokens_total": "output tokens",
    "cached_input_tokens_total": "prompt tokens from a cache",
    "prefix_queries_tokens_total": "tokens looked up in the prefix cache",
    "prefix_hits_tokens_total": "tokens found there",
    "preemptions_total": "requests thrown back into the queue",
}
_MEASURED = {
    "queue_depth": "requests in flight beyond the known `max_sequences`",
    "running": "requests in flight",
    "ttft": "from the request to the first content sent on",
    "tpot": "from the stream and its usage",
    "input_tokens_total": "usage of each answer",
    "output_tokens_total": "content while it streams, usage at its end",
    "cached_input_tokens_total": "usage, where it says so",
}
_LIMIT = "the most that run, while requests wait and nothing else can be why"
_ESTIMATE = "tokens in flight / `kv_capacity_tokens`"


def render_page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(dialect(name)) for name in sorted(DIALECTS))])


def _section(known: Dialect) -> str:
    mark = " (unverified)" if known.unverified else ""
    paths = ", ".join(f"`GET {path}`" for path in known.metrics_paths) or "nothing"
    after = "closed by the server" if known.closes_after_stream else "used again"
    other = known.other_health_path
    instead = f", or `GET {other}` where there is no such path" if other else ""
    probes = (
        f"Read: {paths}. Ready when `GET {known.health_path}` answers 200{instead}. A connection "
        f"is {after} after a stream."
    )
    if known.sleep_mode is not None:
        probes += f" It can stand by asleep, if it was started with {known.sleep_mode.needs}."
    return "\n".join(
        [
            f"## `{known.name}`: {known.title}{mark}",
            "",
            f"Rests on {known.evidence}.",
            "",
            probes,
            "",
            "| fact | meaning | how | from |",
            "|---|---|---|---|",
            *(_fact(known, field) for field in _FACTS),
            "",
            "| endpoint | where its usage stands | asked for |",
            "|---|---|---|",
            *(_usage(known, endpoint) for endpoint in known.usage_rules),
            "",
        ]
    )


def _fact(known: Dialect, field: str) -> str:
    mark, source = _source(known, field)
    return f"| `{field}` | {_FACTS[field]} | {mark} | {source} |"


def _source(known: Dialect, field: str) -> tuple[str, str]:
    if field in known.sources:
        names = "; ".join(f"`{name}`" for name in known.sources[field])
        return ("derived" if field in known.derived else "told"), names
    if field == "kv_usage_ratio" and "kv_capacity_tokens" in known.sources:
        return "measured at the gateway", _ESTIMATE
    if field == "max_sequences" and "waiting_for_room" in known.sources:
        return "learned", _LIMIT
    if field in _MEASURED:
        return "measured at the gateway", _MEASURED[field]
    return "not told", ""


def _usage(known: Dialect, endpoint: Endpoint) -> str:
    rule = known.usage_rules[endpoint]
    asked = "`stream_options.include_usage`" if rule.inject_usage else ""
    return f"| {endpoint.value} | {rule.where} | {asked} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render_page(), encoding="utf-8")
