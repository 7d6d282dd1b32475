"""The table of a decision, from explanations as the core makes them."""

from dataclasses import asdict, replace
from io import StringIO

import pytest
from rich.console import Console

from headrace.compose.why import layout
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
)


@pytest.fixture
def shown():
    def show(explanation):
        page = StringIO()
        Console(file=page, width=200).print(layout({"age_s": 3.0, **asdict(explanation)}))
        return page.getvalue()

    return show


def test_every_fact_of_every_candidate(shown):
    text = shown(WHOLE)
    rows = [line.split() for line in text.splitlines()]
    chosen = next(row for row in rows if row[:2] == ["→", "replica-3"])
    assert chosen[2:] == [
        *("2", "210.0", "ms", "1,800", "7,168", "1,024", "?", "300.0", "ms", "21.5", "ms")
    ]
    assert any(row[:1] == ["[red]1"] and "16,384" in row for row in rows)
    assert "and 38 more" in text
    assert "probed at start" in text
    assert "why: least seconds" in text
    assert "TTFT 310.0 ms, 12 output tokens" in text


def test_costs_are_shown_where_there_are_any(shown):
    text = shown(WHOLE)
    assert "prefill" in text
    assert "420.0 ms" in text
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
    assert " ms" not in text.partition("why:")[0]


def test_a_request_that_is_still_running_and_one_that_was_refused(shown):
    assert "still running" in shown(replace(WHOLE, attempts=(replace(ATTEMPT, outcome=""),)))
    refused = replace(WHOLE, attempts=(), rejected="no replica is ready")
    assert "rejected: no replica is ready" in shown(refused)
