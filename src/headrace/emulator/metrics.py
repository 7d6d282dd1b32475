"""What the engine tells on `/metrics`: vLLM's names, in text format 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from headrace.emulator.settings import EngineSettings
from headrace.emulator.timing import Generation, Occupancy

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""OpenMetrics would turn the colon in vLLM's names into an underscore."""

# fmt: off
_TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)
_ITL_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)
_REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)
_CHOICES = (1, 2, 5, 10, 20)
_TOKENS = (
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
)
# fmt: on


_NEVER = (
    "external_prefix_cache_queries_total",
    "external_prefix_cache_hits_total",
    "mm_cache_queries_total",
    "mm_cache_hits_total",
)
"""Counts of what this engine has not: other engines' caches, pictures and sounds."""
_NEVER_FINISHED_BY = {"error": 0, "repetition": 0}
_NO_TRANSFER = {"external_kv_transfer": 0}
_NO_OTHER_TIERS = {"host": 0, "p2p": 0, "disk": 0, "external_unspecified": 0}


class _Histogram:
    """Counts per bucket; rendered cumulatively as Prometheus wants them."""

    __slots__ = ("_bounds", "_counts", "_name", "_total")

    def __init__(self, name: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def lines(self, labels: str) -> Iterable[str]:
        """Render with these labels."""
        yield f"# TYPE {self._name} histogram"
        count = 0
        for bound, added in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            count += added
            shown = bound if isinstance(bound, str) else float(bound)
            yield f'{self._name}_bucket{{{labels},le="{shown}"}} {float(count)}'
        yield f"{self._name}_count{{{labels}}} {float(count)}"
        yield f"{self._name}_sum{{{labels}}} {self._total}"


class EngineMetrics:
    """Counters and histograms of one engine; its gauges are asked for when they are shown."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        model = settings.model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._labels = f'engine="0",model_name="{model}"'
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.finished_by_reason = {"stop": 0, "length": 0, "abort": 0}
        self._ttft = _Histogram("vllm:time_to_first_token_seconds", _TTFT_S)
        self._itl = _Histogram("vllm:inter_token_latency_seconds", _ITL_S)
        self._tpot = _Histogram("vllm:request_time_per_output_token_seconds", _ITL_S)
        self._e2e = _Histogram("vllm:e2e_request_latency_seconds", _REQUEST_S)
        self._prompts = _Histogram("vllm:request_prompt_tokens", _TOKENS)
        self._computed = _Histogram("vllm:request_prefill_kv_computed_tokens", _TOKENS)
        self._outputs = _Histogram("vllm:request_generation_tokens", _TOKENS)
        self._longest = _Histogram("vllm:request_max_num_generation_tokens", _TOKENS)
        self._limits = _Histogram("vllm:request_params_max_tokens", _TOKENS)
        self._choices = _Histogram("vllm:request_params_n", _CHOICES)
        self._queue = _Histogram("vllm:request_queue_time_seconds", _REQUEST_S)
        self._prefill = _Histogram("vllm:request_prefill_time_seconds", _REQUEST_S)
        self._decode = _Histogram("vllm:request_decode_time_seconds", _REQUEST_S)
        self._inference = _Histogram("vllm:request_inference_time_seconds", _REQUEST_S)

    # ------------------------------------------------------------ what happened

    def first_token(self, generation: Generation, now: float) -> None:
        """A prefill is done."""
        self.prompt_tokens += generation.prompt_tokens
        self.cached_tokens += generation.cached_tokens
        self.generation_tokens += 1
        self._ttft.observe(now - generation.submitted_s)

    def next_token(self, gap_s: float) -> None:
        """One more token, so long after the one before it."""
        self.generation_tokens += 1
        self._itl.observe(gap_s)

    def finished(
        self, generation: Generation, first_s: float, now: float, *, most: int, cut: bool
    ) -> None:
        """A choice is whole, of so many tokens at most; `cut` when that ended it."""
        self.finished_by_reason["length" if cut else "stop"] += 1
        self._queue.observe(generation.admitted_s - generation.submitted_s)
        self._prefill.observe(first_s - generation.admitted_s)
        self._decode.observe(now - first_s)
        self._inference.observe(now - generation.admitted_s)
        self._limits.observe(most)
        self._e2e.observe(now - generation.submitted_s)
        self._prompts.observe(generation.prompt_tokens)
        self._computed.observe(generation.prompt_tokens - generation.cached_tokens)
        self._outputs.observe(generation.produced)
        if generation.produced > 1:
            self._tpot.observe((now - first_s) / (generation.produced - 1))

    def answered(self, generation: Generation, choices: int) -> None:
        """An answer of so many choices, all of a length, is whole."""
        self._longest.observe(generation.produced)
        self._choices.observe(choices)

    def aborted(self) -> None:
        """A client left before its answer was whole."""
        self.finished_by_reason["abort"] += 1

    # ------------------------------------------------------------ what is shown

    def render(
        self, occupancy: Occupancy, looked_up: tuple[int, int], sleep_state: Mapping[str, float]
    ) -> bytes:
        """Return the page; `looked_up` is as in `TimingSource`, and `sleep_state` has the values of
        `engine_sleep_state`.
        """
        lines = [*self._gauges(occupancy), *self._counters(occupancy.preemptions, looked_up)]
        lines += self._sleep_state(sleep_state)
        for histogram in (
            self._ttft,
            self._itl,
            self._tpot,
            self._e2e,
            self._prompts,
            self._computed,
            self._outputs,
            self._longest,
            self._limits,
            self._choices,
            self._queue,
            self._prefill,
            self._decode,
            self._inference,
        ):
            lines += histogram.lines(self._labels)
        lines += self._cache_config()
        return ("\n".join(lines) + "\n").encode()

    def _gauges(self, occupancy: Occupancy) -> Iterable[str]:
        waiting = float(occupancy.waiting)
        yield from self._sample("gauge", "num_requests_running", float(occupancy.running))
        yield from self._sample("gauge", "num_requests_waiting", waiting)
        by_reason = "num_requests_waiting_by_reason"
        yield from self._by(by_reason, "reason", {"capacity": waiting, "deferred": 0.0}, "gauge")
        yield from self._sample("gauge", "kv_cache_usage_perc", occupancy.kv_usage_ratio)

    def _sleep_state(self, values: Mapping[str, float]) -> Iterable[str]:
        yield "# TYPE vllm:engine_sleep_state gauge"
        for state, value in values.items():
            yield f'vllm:engine_sleep_state{{{self._labels},sleep_state="{state}"}} {value}'

    def _counters(self, preemptions: int, looked_up: tuple[int, int]) -> Iterable[str]:
        queries, hits = looked_up
        for name, value in (
            ("prompt_tokens_total", self.prompt_tokens),
            ("prompt_tokens_cached_total", self.cached_tokens),
            ("generation_tokens_total", self.generation_tokens),
            ("prefix_cache_queries_total", queries),
            ("prefix_cache_hits_total", hits),
            ("num_preemptions_total", preemptions),
            *((name, 0) for name in _NEVER),
        ):
            yield from self._sample("counter", name, float(value))
        computed = self.prompt_tokens - self.cached_tokens
        sources = {"local_compute": computed, "local_cache_hit": self.cached_tokens}
        yield from self._by("prompt_tokens_by_source_total", "source", sources | _NO_TRANSFER)
        tiers = {"device": hits} | _NO_OTHER_TIERS
        yield from self._by("prompt_tokens_cached_by_source_total", "source", tiers)
        reasons = self.finished_by_reason | _NEVER_FINISHED_BY
        yield from self._by("request_success_total", "finished_reason", reasons)

    def _cache_config(self) -> Iterable[str]:
        settings = self._settings
        labels = (
            f'block_size="{settings.block_tokens}",enable_prefix_caching="True",engine="0",'
            f'num_gpu_blocks="{settings.kv_blocks}"'
        )
        yield "# TYPE vllm:cache_config_info gauge"
        yield f"vllm:cache_config_info{{{labels}}} 1.0"

    def _sample(self, kind: str, name: str, value: float) -> Iterable[str]:
        yield f"# TYPE vllm:{name} {kind}"
        yield f"vllm:{name}{{{self._labels}}} {value}"

    def _by(
        self, name: str, label: str, values: Mapping[str, float], kind: str = "counter"
    ) -> Iterable[str]:
        """A sample for each value of a label."""
        yield f"# TYPE vllm:{name} {kind}"
        for each, value in values.items():
            yield f'vllm:{name}{{{self._labels},{label}="{each}"}} {float(value)}'
