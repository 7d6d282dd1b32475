"""The table of a decision, from explanations as the core makes them."""

from dataclasses import asdict, replace
from io import StringIO

import pytest
from rich.console import Console

from headrace.compose.why.decision import layout
from headrace.core.decisions import CostTerm, ExplainedAttempt, ExplainedCandidate, Explanation

CHOSEN = ExplainedCandidate(
    replica="replica-3",
    chosen=True,
    cost=0.42,
    in_flight=2,
    queue_s=0.21,
    backlog_tokens=1800,
    hit_tokens=7168,
    uncached_tokens=1024,
    kv_space_tokens=None,
    ttft_s=0.3,
    tpot_s=0.0215,
    terms=(
        CostTerm("queue", 0.21, "s"),
        CostTerm("idle", 0.0, "s"),
        CostTerm("prefill", 0.09, "s"),
    ),
)
OTHER = replace(CHOSEN, replica="[red]1", chosen=False, cost=1.5, kv_space_tokens=16384)
ATTEMPT = ExplainedAttempt(
    attempt=1,
    at_s=5.0,
    pool="p",
    replica="replica-3",
    model="m",
    policy="seconds",
    latency_source="probed at start",
    cost_unit="s",
    candidates=(CHOSEN, OTHER),
    considered=40,
    outcome="completed",
    status=200,
    detail="",
    ttft_s=0.31,
    tpot_s=None,
    duration_s=0.9,
    input_tokens=8190,
    cached_tokens=7000,
    output_tokens=12,
    reason="least seconds",
)
WHOLE = Explanation(
    request_id="hr-1",
    client_id="mine",
    model="chat",
    arrived_s=5.0,
    prompt_tokens=8192,
    attempts=(ATTEMPT,),
    rejected="",
    reason="least seconds",
    held_s=0.0,
    tier="default",
    ttft_target_s=2.0,
    tpot_target_s=0.05,
)


@pytest.fixture
def shown():
    def show(explanation, width=200):
        page = StringIO()
        Console(file=page, width=width).print(layout({"age_s": 3.0, **asdict(explanation)}))
        return page.getvalue()

    return show


def test_every_fact_of_every_candidate(shown):
    text = shown(WHOLE)
    rows = [line.split() for line in text.splitlines()]
    chosen = next(row for row in rows if row[:2] == ["→", "replica-3"])
    assert chosen[2:] == [
        *("2", "210", "ms", "1,800", "7,168", "1,024", "?", "300", "ms", "21.5", "ms")
    ]
    assert any(row[:1] == ["[red]1"] and "16,384" in row for row in rows)
    assert "and 38 more" in text
    assert "probed at start" in text
    assert "why: least seconds" in text


def test_what_was_predicted_stands_beside_what_was_measured(shown):
    rows = [line.split() for line in shown(WHOLE).partition("came of it")[2].splitlines()]
    assert rows[1:8] == [
        ["predicted", "measured"],
        *(["TTFT", "300", "ms", "310", "ms"], ["TPOT", "21.5", "ms", "-"]),
        *(["input", "tokens", "8,192", "8,190"], ["of", "them", "cached", "7,168", "7,000"]),
        *(["output", "tokens", "12"], ["duration", "900", "ms"]),
    ]


@pytest.mark.parametrize(
    "name", ["local-0", "pool-of-llamas/llama-7.models.svc.cluster.local:8000"]
)
def test_fits_a_terminal_of_eighty_columns(shown, name):
    names = ("queue", "slot wait", "prefill", "prefill others wait for", "decoding")
    terms = tuple(CostTerm(each, 0.123, "s") for each in names)
    long = replace(
        CHOSEN, terms=terms, replica=name, backlog_tokens=123_456, kv_space_tokens=1_234_567
    )
    reason = "it is the one with " + "very many words " * 20
    attempt = replace(ATTEMPT, candidates=(long, OTHER), reason=reason, detail="no " * 60)
    text = shown(replace(WHOLE, attempts=(attempt,)), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "1,234,567" in text
    assert "21.5 ms" in text


def test_what_was_promised_and_how_long_it_waited(shown):
    promised = "tier default: TTFT within 2.00 s, TPOT within 50.0 ms"
    assert promised in shown(WHOLE)
    assert "held" not in shown(WHOLE)
    held = "held at the gateway for 1.25 s"
    after = f"{held}, so that its first token came after 1.56 s"
    assert f"{promised}\n{after}\n" in shown(replace(WHOLE, held_s=1.25))
    unread = replace(ATTEMPT, ttft_s=None)
    assert f"{held}\n" in shown(replace(WHOLE, held_s=1.25, attempts=(unread,)))
    text = shown(replace(WHOLE, attempts=(), held_s=None, reason="no replica had room"))
    assert f"{promised}\nheld at the gateway for 3.00 s so far\n" in text
    assert "no replica had room" in text


def test_a_request_without_a_model(shown):
    text = shown(replace(WHOLE, model="", prompt_tokens=1))
    assert "no model named, about 1 prompt token, 3 s ago" in text


def test_a_prompt_far_off_its_estimate_is_explained(shown):
    """As each first one is: the tokens of a chat template are learned from answers."""
    first = replace(CHOSEN, hit_tokens=0, uncached_tokens=5)
    attempt = replace(ATTEMPT, candidates=(first,), input_tokens=33, cached_tokens=0)
    text = " ".join(shown(replace(WHOLE, prompt_tokens=5, attempts=(attempt,))).split())
    assert "taken for 5 tokens by its bytes; the engine counted 33." in text
    assert "by its bytes" not in shown(WHOLE)  # two tokens off
    unknown = replace(attempt, input_tokens=None)
    assert "by its bytes" not in shown(replace(WHOLE, attempts=(unknown,)))


def test_costs_are_shown_where_there_are_any(shown):
    text = shown(WHOLE)
    assert "prefill" in text
    assert "420 ms" in text
    assert "1.50 s" in text
    assert "idle" not in text


def test_without_a_profile_there_are_no_seconds(shown):
    unknown = replace(
        CHOSEN,
        queue_s=None,
        ttft_s=None,
        tpot_s=None,
        cost=1024.0,
        terms=(CostTerm("uncached", 1024.0, "tokens"),),
    )
    text = shown(
        replace(WHOLE, attempts=(replace(ATTEMPT, candidates=(unknown,), cost_unit="tokens"),))
    )
    assert "1,024 tokens" in text
    told = text.partition("attempt 1")[2].partition("why:")[0]
    assert told
    assert " ms" not in told


def test_a_request_that_is_still_running_and_one_that_was_refused(shown):
    assert "still running" in shown(replace(WHOLE, attempts=(replace(ATTEMPT, outcome=""),)))
    refused = replace(WHOLE, attempts=(), rejected="no replica is ready")
    assert "rejected: no replica is ready" in shown(refused)


def test_a_second_hold_stands_where_it_was(shown):
    failed = replace(ATTEMPT, outcome="unavailable", at_s=5.25, duration_s=0.5)
    held = replace(ATTEMPT, attempt=2, at_s=9.75, held_s=4.0)
    text = shown(replace(WHOLE, attempts=(failed, held)))
    before, _, after = text.partition("held again for 4.00 s")
    assert "attempt 1" in before
    assert "attempt 2" in after
    waiting = shown(replace(WHOLE, attempts=(failed,), held_again_s=None))
    assert "held again at the gateway for 2.25 s so far" in waiting  # it came 3 s ago
    over = shown(replace(WHOLE, attempts=(failed,), held_again_s=2.0, rejected="held too long"))
    assert over.index("held again for 2.00 s") < over.index("rejected: held too long")
