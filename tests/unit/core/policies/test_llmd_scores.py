"""llm-d's weighted scores: queue 2, KV 2, prefix 3; precise: prefix 2, the others 1."""

import pytest

from headrace.core.llmd_scores import kv_scores, queue_scores, token_load_score
from tests.unit.core.policies.bench import Bench, State, scraped

STATES = {
    "a": State(report=scraped(0, 0.5), hit=5),
    "b": State(report=scraped(4, 0.1)),
    "c": State(report=scraped(1, 0.9), hit=10),
}
# Of 10 blocks. queue: (4 - q) / 4; kv: 1 - usage; prefix: hit / 10.
SCORES = {"a": (1.0, 0.5, 0.5), "b": (0.0, 0.9, 0.0), "c": (0.75, 0.1, 0.9)}


@pytest.mark.parametrize(
    ("policy", "weights"),
    [
        ("llmd_default", (2, 2, 3)),
        ("llmd_precise", (1, 1, 2)),
        ("llmd_default:queue_weight=0,kv_weight=0,prefix_weight=1", (0, 0, 1)),
    ],
)
def test_the_weighted_sum(policy, weights):
    bench = Bench(policy, **STATES)
    # The last token is prefilled anew, so that of 640 cached tokens 639 are hit: 9 full blocks.
    expected = {
        name: -sum(weight * score for weight, score in zip(weights, scores, strict=True))
        for name, scores in SCORES.items()
    }
    assert bench.costs(640) == pytest.approx(expected)
    assert bench.price(640)[0].replica == min(expected, key=lambda name: expected[name])


def test_the_words_and_the_terms():
    bench = Bench("llmd_default", **STATES)
    assert bench.reason(640) == ("replica a: score 4.5, prefill 320 of 640 tokens; 0.1 more than c")
    terms = bench.terms("a", 640)
    assert [(name, term.value) for name, term in terms.items()] == [
        ("queue and KV cache", pytest.approx(-3.0)),
        ("prefix", pytest.approx(-1.5)),
    ]


def test_equal_queues_score_1_and_who_was_not_scraped_0():
    replicas = Bench(
        "llmd_default",
        a=State(report=scraped(3, 0.25)),
        b=State(report=scraped(3)),
        c=State(),
    ).replicas
    assert queue_scores(replicas) == [1.0, 1.0, 0.0]
    assert kv_scores(replicas) == [0.75, 0.0, 0.0]
    assert queue_scores(replicas[2:]) == [0.0]


def test_who_was_not_scraped_has_no_part_in_the_range():
    replicas = Bench(
        "llmd_default",
        a=State(report=scraped(10)),
        b=State(report=scraped(2)),
        c=State(report=scraped(4)),
        d=State(),
    ).replicas
    assert queue_scores(replicas) == [0.0, 1.0, 0.75, 0.0]


def test_usage_beyond_its_range_is_clamped():
    replicas = Bench("llmd_default", a=State(report=scraped(kv=1.2))).replicas
    assert kv_scores(replicas) == [0.0]


def test_token_load():
    assert token_load_score(0) == 1.0
    assert token_load_score(1_048_576) == 0.75
    assert token_load_score(9_999_999) == 0.0


def test_equals_are_drawn_and_the_draw_repeats():
    names = [f"r{number}" for number in range(6)]
    first = Bench("llmd_default", **{name: State() for name in names})
    again = Bench("llmd_default", **{name: State() for name in names})
    picks = [first.pick(640) for _ in range(300)]
    assert [again.pick(640) for _ in range(300)] == picks
    assert set(picks) == set(names)
    assert max(map(picks.count, names)) < 2 * min(map(picks.count, names))
    assert first.reason(640).endswith("would cost the same but was not drawn")


def test_a_prompt_shorter_than_a_block_has_no_prefix_score():
    bench = Bench("llmd_default", a=State(report=scraped(0, 0.0)), b=State(report=scraped(1, 0.0)))
    assert bench.costs(10) == pytest.approx({"a": -4.0, "b": -2.0})


def test_one_replica():
    assert Bench("llmd_precise", only=State()).pick(640) == "only"
