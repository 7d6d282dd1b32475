"""The load generator against real llama.cpp replicas: lengths, tokens and prefixes as planned."""

import pytest

from headrace.bench.endpoint.target import reach
from headrace.bench.sending.pool import Run, measure
from headrace.bench.settings import BenchSettings
from headrace.traffic.arrival_plan import Arrivals, Process
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Extras, Load, PlannedRequest, SharedPrefix

pytestmark = pytest.mark.live


def run_of(url: str, load: Load, **settings: object) -> Run:
    return measure(reach(BenchSettings(url, **settings)), load)  # type: ignore[arg-type]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_prompts_and_answers_are_as_long_as_planned(llamacpp_replicas, endpoint):
    extras = Extras(shared=SharedPrefix(40, 2))
    load = Load.drawn(
        Arrivals.at(5.0, Process("poisson")),
        parse_lengths("a:60/12,b:200/5"),
        seed=1,
        requests=6,
        extras=extras,
    )
    run = run_of(llamacpp_replicas.urls[0], load, endpoint=endpoint)
    assert {record.error for record in run.records} == {""}
    assert run.info.tokens_by == "/tokenize"
    seen: set[str] = set()
    for record in run.records:
        seen.add(record.length_class)
        planned = {"a": (100, 12), "b": (240, 5)}[record.length_class]
        assert (record.input_tokens, record.output_tokens) == planned
        assert record.tokens_exact
        assert record.ttft_s is not None
        assert record.ttft_s > 0
    assert seen == {"a", "b"}


def test_the_same_blocks_are_cached_and_others_are_not(llamacpp_replicas):
    target = reach(BenchSettings(llamacpp_replicas.urls[1]))
    cached: list[int] = []
    for blocks in ((1, 2, 3, 4), (1, 2, 3, 9), (5, 6, 7, 8)):
        planned = PlannedRequest(0.0, 600, 16, blocks)
        load = Load.of_requests([planned], words="one", seed=8, block_tokens=128)
        (record,) = measure(target, load).records
        assert (record.error, record.input_tokens) == ("", 600)
        cached.append(record.cached_tokens or 0)
    # The template's first marks are common to all of them.
    assert cached[0] < 64
    assert 3 * 128 - 64 <= cached[1] < 4 * 128
    assert cached[2] < 64
