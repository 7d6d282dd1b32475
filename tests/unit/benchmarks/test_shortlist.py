"""The comparison of a shortlist with all replicas: both are played, on the same traffic."""

import math

from benchmarks import shortlist
from headrace.core import routing


def test_a_play_prices_as_many_replicas_as_it_is_told(monkeypatch):
    monkeypatch.setattr(routing, "MOST_SCORED", routing.MOST_SCORED)  # set anew by each play
    seen, original = [], routing.shortlist

    def counted(*args):
        seen.append(args)
        return original(*args)

    monkeypatch.setattr(routing, "shortlist", counted)
    few = shortlist.played(shortlist.Play("shared_system_prompts", 40, 0, 2, 32))
    assert len(seen) >= 80  # and more for those that were held
    seen.clear()
    every = shortlist.played(shortlist.Play("shared_system_prompts", 40, 0, 2, math.inf))
    assert not seen
    assert few.ttft_s > 0.0
    assert every.ttft_s > 0.0


def test_a_row_tells_the_difference_of_the_means_and_the_spread_of_seeds():
    short = [shortlist.Scores(1.1, 2.0, 0.1, 0.5), shortlist.Scores(1.2, 2.0, 0.1, 0.5)]
    full = [shortlist.Scores(1.0, 2.0, 0.2, 0.5), shortlist.Scores(1.0, 2.0, 0.2, 0.5)]
    row = shortlist._row("agentic", 64, short, full)
    assert row.startswith("| agentic ×64 | 1.150 / 1.000 | +15.0% ± 5.0% | 2.00 / 2.00 |")
    assert "90.00% / 80.00%" in row
