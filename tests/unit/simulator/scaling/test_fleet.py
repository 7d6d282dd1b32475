"""Replicas and their bill."""

from headrace.simulator.scaling.fleet import SimulatedFleet


def test_a_cold_start_and_a_drain_are_paid():
    fleet = SimulatedFleet(1, cold_start_s=100.0)
    assert fleet.scale_to(2, 50.0) == []
    assert fleet.next_ready_s() == 150.0
    assert fleet.become_ready(149.0) == []
    assert len(fleet.become_ready(150.0)) == 1
    (leaving,) = fleet.scale_to(1, 200.0)
    assert leaving.ready_s == 150.0  # the youngest goes
    fleet.set_gone([leaving], 230.0)
    fleet.let_go(240.0)
    assert fleet.replica_hours(3600.0) == (3600.0 + 180.0) / 3600.0
    assert (fleet.peak, fleet.changes) == (2, 2)


def test_who_still_starts_goes_first_and_is_paid_until_then():
    fleet = SimulatedFleet(1, cold_start_s=100.0)
    fleet.scale_to(3, 0.0)
    assert fleet.scale_to(2, 40.0) == []
    assert fleet.scale_to(1, 50.0) == []
    assert fleet.number == len(fleet.ready) == 1
    assert fleet.replica_hours(100.0) == (100.0 + 40.0 + 50.0) / 3600.0


def test_a_plan_names_who_drains():
    fleet = SimulatedFleet(3, cold_start_s=0.0)
    names = [each.name for each in fleet.ready]
    (leaving,) = fleet.scale_to(2, 10.0, (names[0],))
    assert leaving.name == names[0]
    assert fleet.paid == 3


def test_what_is_still_there_at_the_end_is_paid_until_then():
    fleet = SimulatedFleet(2, cold_start_s=10.0)
    fleet.scale_to(1, 1800.0)
    assert fleet.replica_hours(3600.0) == 2.0
