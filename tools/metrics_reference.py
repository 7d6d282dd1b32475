"""Writes docs/reference/metrics.md from the code: `python -m tools.metrics_reference`."""

from pathlib import Path

from headrace.autoscaler.metrics import GATEWAY_UP
from headrace.autoscaler.metrics import METRICS as SCALING_METRICS
from headrace.gateway.metrics.catalogue import METRICS, Metric
from headrace.gateway.metrics.histogram import ITL_BOUNDS_S, TPOT_BOUNDS_S, TTFT_BOUNDS_S

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "metrics.md"

_HEAD = """\
# Metrics

The control plane (port 9091) serves these at `/metrics`, as OpenMetrics 1.0.0 to whoever asks for
it, else in the text format 0.0.4. Beside them come Prometheus's usual `process_*` metrics.
This page is made from the code: `python -m tools.metrics_reference`.

`model_id` is the model that served the request: the pool's model or a LoRA adapter, never an
alias. An engine's gauges stand under its pool's model. `replica` is empty for what belongs to the
gateway itself.
"""

_SCALING_HEAD = """\
## The scaler's

At `/metrics` of `headrace scaler` (port 9093), or of the gateway that hosts the scaler. Rules that
make one series per pool of them are in `deploy/prometheus`.
"""

_RULES = """\
## One fact, one source, one exporter

- Tokens and latencies are exported by the gateway that relayed the request. So are held requests,
  with an empty `replica`. Engine gauges (`llm_queue_depth` with a replica, `llm_requests_running`,
  `llm_kv_cache_usage_ratio`, `llm_kv_exhaustion_seconds`) and engines' own counters
  (`llm_preemptions_total`,
  `llm_prefix_query_tokens_total`, `llm_prefix_hit_tokens_total`) come from one process: leave
  `telemetry.engine_gauges` on in exactly one of several gateways before the same replicas. Then
  sums over all of them are true: `sum(llm_queue_depth{model_id="llama-3-70b"})` and
  `sum(rate(llm_tokens_processed_total{token_type="output"}[1m]))`.
- Engine gauges come from the last scrape. Once it is older than `telemetry.stale_after`, a pushed
  value of that age or less takes its place, else the gateway's own estimate from its requests in
  flight; `headrace_engine_gauges_estimated` is 1 then. The series of a replica is never dropped
  while it serves. Of a pool declared `traffic: external` the gateway has no estimate; what its
  engines told last, or had pushed, stands there, and what was never told is absent, not 0. KV usage
  is absent only where the size of the
  cache, or the usage of an external engine, was never known; `llm_kv_exhaustion_seconds` also
  while the scrape is stale, since old growth tells nothing.
- Tokens of a pool declared `traffic: external` come from its engines' own counters, TTFT and TPOT
  from its engines' histograms (vLLM, SGLang, TensorRT-LLM; TPOT of TGI), each else from
  `POST /telemetry`. A histogram tells in which bucket a request was; where in it, requests between
  two scrapes are put so that their sum is the engine's. TGI tells how long each request waited,
  but prefill by the batch: that makes a mean, and no distribution to take a percentile from, so
  its external pools have a TTFT only where `ttftMs` is pushed, or their requests pass the gateway.
  The mean is `tgi_request_queue_duration` (sum / count) plus that of
  `tgi_batch_inference_duration{method="prefill"}`, which is low where large batches are slow. For
  every other pool pushed tokens and latencies are not used, and the answer to the sender says so.

## How tokens are counted

- Output tokens are counted while they stream, up to the moment of each scrape: content chunks
  times the tokens per chunk learned from the pool's completed streams, rounded down. The engine's
  usage at the end completes the count. Where the estimate ran ahead, the counter stands still
  until the difference is used up (`headrace_token_debt_tokens`); it never falls. With no request
  running and no debt left it equals the sum of the engines' usage exactly.
- Input tokens are counted when the request ends, from usage. Of endpoints that the gateway knows
  nothing of (rerank, score, pooling, …) what the `usage` of a JSON answer says is all that counts.
- A request that ends early counts what was relayed, at least one token per chunk, under its own
  `outcome`; its input counts, as estimated from the prompt, once content came. A request that is
  not streamed and is aborted counts nothing: nothing of it was relayed.
- A response made in the background (`/v1/responses` with `"background": true`) is answered before
  it has tokens, and goes on when the client of its stream leaves. What it used beyond what was
  counted is counted, once, when somebody looks it up, cancels it or comes back for the rest of its
  stream, through the same gateway. Of one that nobody looks up output is never counted: the gateway
  asks for nothing by itself. Engines' own counters (vLLM's `generation_tokens_total`) have it.
- The percentile gauges are absent while the last minute holds no sample, not 0 or NaN: an idle
  replica then neither lowers an average nor turns it into NaN, and KEDA reads an empty result as
  "not above the threshold" (`ignoreNullValues`, on by default). They are within 1 % of the sample
  at rank ceil(0.95 n), of external pools in the bucket of its engine that holds it; the minute
  slides in steps of 5 s.

## Pushing: `POST /telemetry`

One JSON object or a list of up to 1,000, field names in camel or snake case; a body is taken whole
or not at all. `modelId` is required, everything else is left out where it is not known.

| field | meaning |
|---|---|
| `modelId` | the model or adapter it is about |
| `replica` | the replica, where several serve the model and none has the sender's address |
| `inputTokens`, `outputTokens` | tokens since the sender's last event |
| `ttftMs`, `tpotMs` | latencies of one request, in milliseconds |
| `kvCacheOccupancy` | share of the KV cache in use, 0 to 1 |
| `pendingQueue` | requests waiting in the engine |
| `eventId` | a name for this event: one that was seen from its sender counts once |
| `sender` | who sends; the peer's address if left out |

The answer tells how many were `accepted`, how many were `duplicates`, and which facts were
`ignored` and why. The last 4,096 event ids are remembered for each of the last 256 senders.

## Replicas that come and go

A replica's series start at 0 with its arrival, so that `rate()` sees its first increase, and
vanish with the first scrape after it left. `sum(rate(...[1m]))` still holds what the replica did in
that minute; a plain `sum(...)` of a counter falls. A replica that restarts in place keeps its name
and its counters. One that comes back later under an old name starts at 0, which Prometheus reads
as a counter's restart.

At most `telemetry.max_series` combinations of model, pool and replica are kept (1,000 by default).
More are counted together under `other`, so that sums stay true, and
`headrace_series_overflow_total` rises. Model names that clients make up never become a label.
"""


def render_page() -> str:
    """The whole page."""
    tables = [
        _table("What every template of the field queries", "llm_"),
        _table("The gateway's own", "headrace_"),
        _scaling_table(),
    ]
    bounds = "\n".join(
        f"- `{name}`: {', '.join(f'{bound:g}' for bound in values)}"
        for name, values in (
            ("llm_ttft_seconds", TTFT_BOUNDS_S),
            ("llm_tpot_seconds", TPOT_BOUNDS_S),
            ("llm_itl_seconds", ITL_BOUNDS_S),
        )
    )
    return "\n".join([_HEAD, *tables, f"Buckets, in seconds:\n\n{bounds}\n", _RULES])


def _table(title: str, prefix: str) -> str:
    rows = [_row(metric) for metric in METRICS if metric.name.startswith(prefix)]
    return "\n".join(
        [f"## {title}", "", "| name | kind | labels | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _scaling_table() -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {_labels('pool', *metric.labels)} | "
        f"{metric.meaning} |"
        for metric in SCALING_METRICS
    ]
    name, meaning = GATEWAY_UP
    rows.append(f"| `{name}` | gauge | {_labels('gateway')} | {meaning} |")
    return "\n".join(
        [_SCALING_HEAD, "| name | kind | labels | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _labels(*labels: str) -> str:
    return ", ".join(f"`{label}`" for label in labels)


def _row(metric: Metric) -> str:
    return f"| `{metric.name}` | {metric.kind} | {_labels(*metric.labels)} | {metric.meaning} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render_page(), encoding="utf-8")
