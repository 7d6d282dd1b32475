"""A run is scored as the reference says: what counts into what, and what is a miss."""

import json
from array import array
from dataclasses import replace

import pytest

from headrace.bench.figures.scores import Summary, summarise
from headrace.bench.figures.slo import E2E, FAILED, MET, OPEN, TPOT, TTFT, Slo, Slos
from headrace.bench.record import UNFINISHED, Lag, Record, RunInfo
from tests.unit.bench.virtual_engine import VirtualEngine

SLOS = Slos(Slo(ttft_s=1.0, tpot_s=0.05))
INFO = RunInfo(
    url="http://e", model="m", traffic="t", seed=0, workers=1, started_at=0.0, duration_s=20.0,
    load_s=10.0, offered_rps=1.0,
)  # fmt: skip


def record(index: int = 0, *, ttft_s: float = 0.5, tpot_s: float = 0.01, **given) -> Record:
    """A whole answer of 11 tokens."""
    first_s = index + ttft_s
    last_s = first_s + 10 * tpot_s
    usual = {
        "intended_s": float(index), "sent_s": index + 0.001, "first_token_s": first_s,
        "last_token_s": last_s, "ended_s": last_s, "input_tokens": 100, "output_tokens": 11,
        "status": 200, "itl_s": array("f", [tpot_s] * 10),
    }  # fmt: skip
    return Record(index, **{**usual, **given})


def failed(index: int = 0, error: str = "refused", **given) -> Record:
    ended = {"intended_s": float(index), "sent_s": float(index), "ended_s": index + 0.1}
    return Record(index, **{**ended, "error": error, **given})


def scored(*records: Record, slos: Slos = SLOS, info: RunInfo = INFO) -> Summary:
    return summarise(records, info, slos)


def test_choices_share_the_tokens_of_an_answer():
    """Of eight of 11 tokens each has 10 in the time of the stream."""
    assert record(choices=8, output_tokens=88, tpot_s=0.02).tpot_s == pytest.approx(0.02)
    assert record(choices=8, output_tokens=15).tpot_s is None


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({}, MET),
        ({"ttft_s": 1.001}, TTFT),
        ({"tpot_s": 0.0501}, TPOT),
        ({"ttft_s": 2.0, "tpot_s": 0.06}, TTFT),
        ({"error": "cut"}, FAILED),
        ({"output_tokens": 1, "tpot_s": 9.0, "ended_s": 0.5}, MET),
    ],
)
def test_the_first_target_that_is_missed_counts(given, outcome):
    assert SLOS.of("").outcome(record(**given)) == outcome


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({}, OPEN),
        ({"tpot_s": 0.9}, OPEN),  # it had no time to make up for it
        ({"ttft_s": 1.001}, TTFT),
        ({"first_token_s": None, "last_token_s": None, "ended_s": 0.9}, OPEN),
        ({"first_token_s": None, "last_token_s": None, "ended_s": 1.1}, TTFT),
    ],
)
def test_what_was_interrupted_is_judged_only_if_it_had_missed_a_target(given, outcome):
    assert SLOS.of("").outcome(record(error=UNFINISHED, **given)) == outcome


def test_what_was_interrupted_did_not_fail():
    stopped = [record(place, error=UNFINISHED) for place in (1, 2)]
    late = record(3, error=UNFINISHED, first_token_s=None, ended_s=9.0)
    found = scored(record(0), *stopped, late, info=replace(INFO, interrupted=True))
    scores = found.all
    assert (scores.requests, scores.completed, scores.failed, scores.interrupted) == (4, 1, 0, 3)
    assert (scores.judged, scores.met, scores.missed_ttft, scores.errors) == (2, 1, 1, {})
    assert scores.e2e_s.count == 1
    assert scores.ttft_s.count == 3
    assert "interrupted" in found.verdict.headline
    assert Slo(e2e_s=0.55).outcome(stopped[0]) == E2E


def test_the_end_of_an_answer_can_be_a_target():
    assert Slo(e2e_s=0.55).outcome(record()) == E2E
    assert Slo(e2e_s=0.65).outcome(record()) == MET


def test_an_answer_that_is_not_streamed_has_its_first_token_at_its_end():
    for ended_s, outcome in ((1.5, TTFT), (0.9, MET)):
        whole = record(first_token_s=None, last_token_s=None, ended_s=ended_s)
        assert Slo(ttft_s=1.0).outcome(whole) == outcome


def test_what_failed_is_a_miss_and_what_left_is_neither():
    found = scored(record(0), record(1, ttft_s=3), failed(2), failed(3, "http_429", status=429),
                   record(4, left=True))  # fmt: skip
    scores = found.all
    assert (scores.requests, scores.completed, scores.failed, scores.left) == (5, 2, 2, 1)
    assert (scores.met, scores.missed_ttft) == (1, 1)
    assert scores.goodput_share == 0.25
    assert scores.goodput_rps == pytest.approx(0.1)  # per second of sending
    assert scores.completed_rps == pytest.approx(0.1)  # per second until the last end
    assert scores.errors == {"http_429": 1, "refused": 1}
    assert scores.met + scores.missed_ttft + scores.failed == scores.judged


def test_who_left_counts_into_ttft_alone():
    scores = scored(record(0), record(1, ttft_s=0.7, tpot_s=1.0, left=True)).all
    assert scores.ttft_s.count == 2
    assert (scores.tpot_s.count, scores.e2e_s.count, scores.itl_s.count) == (1, 1, 10)


def test_a_broken_answer_counts_into_ttft_alone():
    scores = scored(record(0, error="cut")).all
    assert (scores.ttft_s.count, scores.tpot_s.count, scores.e2e_s.count) == (1, 0, 0)


def test_latency_counts_from_when_a_request_was_due():
    scores = scored(record(0, ttft_s=2.5, sent_s=2.0)).all
    assert scores.ttft_s.max == 2.5


def test_cached_tokens_are_of_answers_that_tell():
    scores = scored(record(0, cached_tokens=50), record(1, cached_tokens=None)).all
    assert scores.hit_share == 0.5
    assert scored(record(0)).all.hit_share is None


def test_a_refused_prompt_was_not_read():
    scores = scored(record(0), failed(1, "http_429", status=429, input_tokens=100)).all
    assert scores.input_tokens == 100
    assert scores.input_tokens_per_s == 5.0


def test_groups_add_up():
    run = VirtualEngine(
        requests=300,
        classes={"short": (64, 16), "long": (512, 64)},
        tiers=("gold", "batch"),
        failing=0.1,
    ).run(5.0)
    found = summarise(run.records, run.info, SLOS)
    assert list(found.length_classes) == ["long", "short"]
    assert list(found.tiers) == ["batch", "gold"]
    for groups in (found.length_classes, found.tiers):
        for name in ("requests", "met", "failed", "output_tokens"):
            total = sum(getattr(group, name) for group in groups.values())
            assert total == getattr(found.all, name)
    assert found.replicas == {}


def test_a_tier_is_judged_by_its_own_targets():
    slos = Slos(Slo(ttft_s=1.0), {"batch": Slo(ttft_s=30.0)})
    found = scored(record(0, tier="batch", ttft_s=20), record(1, ttft_s=20), slos=slos)
    assert found.tiers["batch"].goodput_share == 1.0
    assert found.tiers[""].goodput_share == 0.0
    assert not found.verdict.met
    assert found.verdict.exit_code == 1


def test_met_needs_the_share_that_is_wanted():
    records = [record(index, ttft_s=2.0 if index == 0 else 0.5) for index in range(100)]
    assert scored(*records).verdict.met  # 99 of 100
    strict = Slos(replace(SLOS.default, share=0.995))
    missed = scored(*records, slos=strict).verdict
    assert not missed.met
    assert missed.headline.startswith("NOT MET: 99.00 % of 100 requests")


def test_nothing_to_judge_is_not_met():
    for found in (scored(), scored(record(0, left=True))):
        assert found.verdict.exit_code == 1
        assert "no request to judge" in found.verdict.headline


def test_few_requests_are_said_to_show_little():
    few, enough = (tuple(record(index) for index in range(count)) for count in (380, 381))
    assert scored(*few).verdict.lines == (
        "so few requests (380) do not show 99 %: that takes 381 or more",
    )
    assert scored(*enough).verdict.lines == ()
    assert scored(record(0, ttft_s=9.0)).verdict.lines == ()  # they show well that it is missed


def test_without_a_target_an_answer_is_given():
    verdict = scored(record(0), slos=Slos()).verdict
    assert verdict.headline.startswith("MET: 100.0 % of 1 requests gave a whole answer (")


def test_a_late_generator_is_the_headline():
    late = replace(
        INFO,
        valid=False,
        invalid_reason="the generator was late",
        lag=Lag(0.1, 0.3, 0.4, 0.6, 0.01),
    )
    verdict = scored(record(0), info=late).verdict
    assert verdict.headline == "INVALID RUN: the generator was late"
    assert any("60.0 % of its requests more than 10.0 ms late" in line for line in verdict.lines)
    assert verdict.met
    assert verdict.exit_code == 1


def test_the_document_is_plain_json_without_infinity():
    found = scored(record(0), failed(1)).document()
    document = json.loads(json.dumps(found, allow_nan=False))
    assert document == found
    assert document["schema"] == "headrace-bench/1"
    assert document["slos"]["default"] == {
        "ttft_s": 1.0, "tpot_s": 0.05, "e2e_s": None, "share": 0.99,
    }  # fmt: skip
    assert document["all"]["ttft_s"]["p50"] == 0.5


def test_a_slo_that_asks_for_nothing_possible_is_refused():
    for given in ({"ttft_s": 0.0}, {"share": 1.0}, {"tpot_s": float("nan")}):
        with pytest.raises(ValueError, match="give"):
            Slo(**given)


def test_streams_that_something_holds_back_are_told():
    def told(*tpots_s: float, streamed: bool = True) -> bool:
        given = [record(index, tpot_s=each) for index, each in enumerate(tpots_s)]
        lines = scored(*given, info=replace(INFO, streamed=streamed)).verdict.lines
        return any("came in one piece" in each for each in lines)

    assert told(0.0, 2e-6, 0.01)
    assert not told(0.0, 0.005, 0.01)
    assert not told(0.0, 0.0, streamed=False)
    assert not any("one piece" in each for each in scored(failed(0)).verdict.lines)


def test_a_target_for_ttft_that_is_held_against_the_end_says_so():
    def lines(targets: Slo, *, streamed: bool) -> tuple[str, ...]:
        info = replace(INFO, streamed=streamed)
        return scored(record(0), slos=Slos(targets), info=info).verdict.lines

    assert any("not streamed and have no TTFT" in each for each in lines(Slo(2.0), streamed=False))
    assert lines(Slo(2.0), streamed=True) == lines(Slo(e2e_s=9.0), streamed=False)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"output_of_planned": 0.2}, "answers had 20 % of the tokens planned: the endpoint ends"),
        ({"output_of_planned": 0.2, "natural_ends": True}, ""),
        ({"output_of_planned": 1.5}, "answers had 150 % of the tokens planned: the endpoint does"),
        ({"input_of_planned": 1.2, "tokens_by": "words"}, "--tokenizer FILE sizes them exactly"),
        ({"input_of_planned": 0.98, "output_of_planned": 1.01}, ""),
    ],
)
def test_another_load_than_planned_is_told(known, said):
    lines = scored(record(0), info=replace(INFO, **known)).verdict.lines
    assert any(said in line for line in lines) if said else not any("planned" in x for x in lines)
