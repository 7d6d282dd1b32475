"""Single requests on a fleet that grows and shrinks: nothing is cut, cold starts are waited for."""

from headrace.simulator.scaling.demand import demand_of_trace
from headrace.simulator.scaling.event_run import run_events
from headrace.simulator.settings import Slo
from headrace.traffic.length_spread import LognormalSpread
from headrace.traffic.rates import arrivals_of
from tests.unit.simulator.scaling.parts import ENGINE, rates, settings

MADE = rates(30.0, 2.0, 30.0, 2.0, step_s=90.0)
REQUESTS = list(arrivals_of(MADE, LognormalSpread(1.0), 1))
DEMAND = demand_of_trace("made", REQUESTS, ENGINE, seed=0)


def test_no_stream_is_cut_by_replicas_that_come_and_go():
    patient = settings(slo=Slo(1e6, 1e6), cold_start_s=20.0)
    run = run_events(patient, DEMAND, REQUESTS, "hpa_rps:down_window_s=15")
    # Whoever ends meets such targets: all did.
    assert run.scores.attainment == 1.0
    assert run.scores.changes >= 3
    assert min(run.timeline.ready) == 1
    assert max(run.timeline.ready) == run.scores.peak >= 2


def test_an_order_is_ready_a_cold_start_later():
    slow = settings(cold_start_s=60.0)
    line = run_events(slow, DEMAND, REQUESTS, "hpa_rps:down_window_s=15").timeline
    ordered = next(
        i for i in range(10, len(line.at_s)) if line.ordered[i] > line.ordered[i - 1]
    )  # fmt: skip
    ready = next(i for i in range(ordered, len(line.at_s)) if line.ready[i] > line.ready[i - 1])
    # A point shows what was before its look: the order was given one look earlier.
    assert line.at_s[ready] - line.at_s[ordered - 1] == 60.0
