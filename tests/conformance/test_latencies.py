"""How dialects read the distribution of latencies, from captures and published shapes."""

from __future__ import annotations

from math import inf, isfinite

import pytest

from headrace.engines.latencies import Buckets, Latencies
from headrace.engines.reading import Answers
from headrace.engines.registry import DIALECTS, dialect
from headrace.gateway.metrics.external import LatencyTotals
from tests.conformance.captures import metrics

VLLM = "metrics-under-load-14conc-8seqs"


def answered(engine: str, name: str, path: str = "/metrics") -> Answers:
    return {path: (200, metrics(engine, name))}


def told(engine: str, answers: Answers) -> tuple[Buckets, Buckets]:
    """TTFT and TPOT, with the sums and counts that `read` has of the same answers."""
    latencies, reading = dialect(engine).latencies(answers), dialect(engine).read(answers)
    ttft, tpot = latencies
    assert ttft is not None
    assert tpot is not None
    assert reading.ttft is not None
    assert reading.tpot is not None
    assert (ttft.total_s, sum(ttft.counts)) == reading.ttft
    return ttft, tpot


def test_vllms_buckets_add_up_to_its_counts():
    ttft, tpot = told("vllm", answered("vllm", VLLM))
    assert ttft.bounds_s[:3] == (0.001, 0.005, 0.01)
    assert ttft.bounds_s[-1] == inf
    assert len(ttft.bounds_s) == len(ttft.counts) == 23
    reading = dialect("vllm").read(answered("vllm", VLLM))
    assert (tpot.total_s, sum(tpot.counts)) == reading.tpot


def test_vllms_ranks_are_added():
    page = metrics("vllm", VLLM)
    (alone, _), (both, _) = (
        told("vllm", {"/metrics": (200, text)})
        for text in (page, page + page.replace(b'engine="0"', b'engine="1"'))
    )
    assert both.counts == tuple(2 * count for count in alone.counts)
    assert both.total_s == pytest.approx(2 * alone.total_s)


def test_a_histogram_of_tokens_is_none_of_requests():
    page = metrics("vllm", VLLM).replace(b"request_time_per_output_token", b"other")
    assert dialect("vllm").read({"/metrics": (200, page)}).tpot is not None
    assert dialect("vllm").latencies({"/metrics": (200, page)}).tpot is None


def test_sglangs_ttft_is_of_streamed_answers_only():
    answers = answered("sglang", "metrics-dp2-tp2-all-schedulers")
    assert dialect("sglang").latencies(answers).ttft == Buckets((0.5, inf), (28, 2), 6.0)


def test_trtllm_tells_it_on_its_own_path():
    answers = {
        "/metrics": (200, metrics("trtllm", "metrics-steps-dp2")),
        **answered("trtllm", "prometheus-metrics", "/prometheus/metrics"),
    }
    assert dialect("trtllm").latencies(answers).ttft == Buckets((inf,), (40,), 6.0)


def test_tgi_tells_time_per_token_alone():
    latencies = dialect("tgi").latencies(answered("tgi", "metrics-under-load"))
    assert latencies == Latencies(None, Buckets((0.1, inf), (1, 39), 1.0))


@pytest.mark.parametrize("engine", DIALECTS)
@pytest.mark.parametrize("answer", [(503, b"busy"), (200, b"\xff\x00"), (200, b"")])
def test_nothing_is_told_by_what_is_no_answer(engine: str, answer: tuple[int, bytes]):
    answers: Answers = dict.fromkeys(("/metrics", "/prometheus/metrics"), answer)
    assert dialect(engine).latencies(answers) == Latencies()


@pytest.mark.parametrize(
    "rows",
    [
        ['_bucket{le="1"} 5', '_bucket{le="+Inf"} 4', "_sum 2"],
        ['_bucket{le="1"} 5', "_sum 2"],
        ['_bucket{le="1"} 5', '_bucket{le="+Inf"} 5'],
        ['_bucket{le="x"} 5', "_bucket 5", "_sum 2"],
    ],
    ids=["falling", "no end", "no sum", "no bounds"],
)
def test_a_broken_histogram_is_not_told(rows: list[str]):
    page = "".join(f"vllm:time_to_first_token_seconds{row}\n" for row in rows).encode()
    assert dialect("vllm").latencies({"/metrics": (200, page)}).ttft is None


@pytest.mark.parametrize("bound", ["1", "1e300"])
@pytest.mark.parametrize("number", [0.0, 9e18, 1.7e308])
def test_numbers_beyond_all_counting_are_survived(bound: str, number: float):
    """Two models on a page, whose figures add up to no number: the next page is read as well."""
    totals = LatencyTotals()
    for figure in (0.0, number):
        rows = (f'_bucket{{le="{bound}"}}', '_bucket{le="+Inf"}', "_sum")
        page = "".join(f"vllm:time_to_first_token_seconds{row} {figure}\n" for row in rows)
        answers: Answers = {"/metrics": (200, (page * 2).encode())}
        for ttft_s, times in totals.advance(dialect("vllm").latencies(answers).ttft):
            assert isfinite(ttft_s * times)
