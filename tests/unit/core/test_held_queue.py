"""The order in which held requests are to be sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headrace.core.admission import Tier
from headrace.core.flights import Flight
from headrace.core.held_queue import Held, Queue
from headrace.core.model import Endpoint, Request

STARVED_AFTER_S = 10.0
HIGH, LOW = Tier("high", priority=5), Tier("low", priority=-5)


def held(
    name: str,
    *,
    arrived_s: float = 0.0,
    tier: Tier | None = None,
    ttft_s: float = 2.0,
    prefill_s: float = 1.0,
    replica: str = "",
) -> Held:
    """A request that takes a second to prefill."""
    tier = tier or Tier()
    request = Request(
        name, "model", Endpoint.CHAT, streamed=True, ttft_target_s=ttft_s, replica=replica
    )
    return Held(Flight(request, ("model",), tier, arrived_s), tier, prefill_s)


def queue_of(*requests: Held) -> Queue:
    queue = Queue(0.0)
    for each in requests:
        queue.add(each)
    return queue


def order(
    queue: Queue, now: float, most: int = 100, starved_after_s: float = STARVED_AFTER_S
) -> list[str]:
    return [each.flight.id for each in queue.first(now, starved_after_s, most)]


def test_a_higher_priority_goes_first():
    queue = queue_of(held("low", tier=LOW), held("plain"), held("high", tier=HIGH))
    assert order(queue, 0.0) == ["high", "plain", "low"]


def test_among_equals_the_least_slack_goes_first():
    queue = queue_of(held("much", ttft_s=5.0), held("little", ttft_s=3.0), held("some", ttft_s=4.0))
    assert order(queue, 0.0) == ["little", "some", "much"]


def test_slack_counts_from_the_arrival():
    queue = queue_of(held("long ago", arrived_s=1.0, ttft_s=5.5), held("now", arrived_s=4.0))
    assert order(queue, 4.0) == ["now", "long ago"]


def test_short_ones_go_before_long_ones_that_have_as_much_time():
    queue = queue_of(
        held("long", ttft_s=9.0, prefill_s=2.0),
        held("short", ttft_s=9.0, prefill_s=0.1),
        held("middle", ttft_s=9.0),
    )
    assert order(queue, 0.0) == ["short", "middle", "long"]
    assert order(queue, 20.0, most=2)[0] == "long"  # starved: the oldest are first
    assert order(queue, 8.5) == ["short", "middle", "long"]  # who is late by then is so too


def test_a_long_one_lets_by_what_comes_soon_and_not_what_comes_later():
    queue = queue_of(held("long", ttft_s=60.0, prefill_s=2.0))
    queue.add(held("soon", arrived_s=2.5, ttft_s=60.0, prefill_s=0.5))
    queue.add(held("later", arrived_s=3.5, ttft_s=60.0, prefill_s=0.5))
    assert order(queue, 5.0) == ["soon", "long", "later"]


def test_a_deadline_is_one_for_long_ones_too():
    queue = queue_of(held("short", ttft_s=50.0, prefill_s=0.1), held("long", ttft_s=9.0))
    assert order(queue, 0.0) == ["long", "short"]


def test_what_comes_too_late_anyway_goes_behind_its_band_the_oldest_first():
    queue = queue_of(
        held("late 1", ttft_s=2.5),
        held("late 2", ttft_s=2.0),
        held("in time", ttft_s=9.0),
        held("low", tier=LOW, ttft_s=9.0),
    )
    assert order(queue, 1.0) == ["late 2", "late 1", "in time", "low"]
    assert order(queue, 3.0) == ["in time", "late 1", "late 2", "low"]


def test_late_ones_of_a_lower_band_do_not_hide_who_is_in_time_there():
    late = [held(f"late {number}", tier=LOW, ttft_s=2.0) for number in range(5)]
    queue = queue_of(
        held("high", tier=HIGH, ttft_s=9.0), *late, held("in time", tier=LOW, ttft_s=9)
    )
    assert order(queue, 3.0, most=3) == ["high", "in time", "late 0"]


def test_who_starves_goes_first_whatever_its_priority():
    queue = queue_of(
        held("old low", tier=LOW),
        held("old", arrived_s=1.0),
        held("old high", arrived_s=2.0, tier=HIGH),
        held("high", arrived_s=9.0, tier=HIGH, ttft_s=9.0),
    )
    assert order(queue, 9.5) == ["high", "old high", "old", "old low"]
    assert order(queue, 10.0)[:2] == ["old low", "high"]
    assert order(queue, 11.0)[:3] == ["old low", "old", "high"]
    assert order(queue, 11.0, most=1) == ["old low"]


def test_only_a_few_of_those_who_starve_go_first():
    """In a long overload all do, and those that can still be in time must have a chance."""
    old = [held(f"old {number}") for number in range(5)]
    queue = queue_of(*old, held("in time", arrived_s=19.0, ttft_s=3.0))
    assert order(queue, 20.0, most=4) == ["old 0", "old 1", "in time", "old 2"]
    queue.remove("old 0")
    assert order(queue, 20.0, most=3) == ["old 1", "old 2", "in time"]


def test_those_who_starve_do_not_wait_for_older_ones_of_another_priority():
    """An overload of one priority makes many older than whoever starves in another."""
    queue = queue_of(*(held(f"high {number}", tier=HIGH) for number in range(5)))
    for number in range(3):
        queue.add(held(f"low {number}", tier=LOW, arrived_s=1.0))
    queue.add(held("in time", tier=HIGH, arrived_s=19.0, ttft_s=30.0))
    assert order(queue, 20.0, most=5) == ["high 0", "low 0", "high 1", "low 1", "in time"]


def send_starved(queue: Queue, name: str, prefill_s: float, now: float = 20.0) -> None:
    """One that goes first is sent, and then as much of others as is their due."""
    assert order(queue, now)[0] == name
    queue.sent(name, prefill_s, now)
    queue.remove(name)
    queue.sent("elsewhere", 4.0 * prefill_s, now)


def test_of_those_who_starve_each_priority_gets_as_much():
    queue = queue_of(*(held(f"high {number}", tier=HIGH) for number in range(5)))
    for number in range(5):
        queue.add(held(f"low {number}", tier=LOW, prefill_s=0.4))
    send_starved(queue, "high 0", 1.0)
    for number in range(3):
        send_starved(queue, f"low {number}", 0.4)
    send_starved(queue, "high 1", 1.0)
    # One that has waited for nothing until now has nothing to make up for.
    queue.add(held("plain 0"))
    queue.add(held("plain 1"))
    send_starved(queue, "low 3", 0.4)
    send_starved(queue, "plain 0", 1.0)
    send_starved(queue, "low 4", 0.4)


def test_many_priorities_leave_room_for_those_who_are_in_time():
    tiers = [Tier(str(priority), priority=priority) for priority in range(6)]
    queue = queue_of(
        *(held(f"{each.name} {number}", tier=each) for each in tiers for number in "ab")
    )
    queue.add(held("in time", tier=HIGH, arrived_s=19.0, ttft_s=30.0))
    assert order(queue, 20.0, most=5) == ["0 a", "1 a", "2 a", "3 a", "in time"]


def test_those_who_starve_get_a_share():
    """A fifth: for each second of theirs, four of others."""
    old = [held(f"old {number}") for number in range(5)]
    queue = queue_of(*old, held("in time", arrived_s=19.0, ttft_s=30.0))
    assert order(queue, 20.0, most=2) == ["old 0", "old 1"]
    queue.sent("old 0", 0.1, 20.0)
    queue.remove("old 0")
    for _ in range(4):
        assert order(queue, 20.0, most=2) == ["in time", "old 1"]
        queue.sent("elsewhere", 0.1, 20.0)  # what finds room as it comes counts, too
    assert order(queue, 20.0, most=2) == ["old 1", "old 2"]


def in_debt() -> Queue:
    """At 20 s one of those who starve was sent; the others wait behind one that has time."""
    queue = queue_of(*(held(f"old {number}") for number in range(3)))
    queue.add(held("young", arrived_s=19.0, ttft_s=90.0))
    assert order(queue, 20.0)[0] == "old 0"
    queue.sent("old 0", 10.0, 20.0)
    queue.remove("old 0")
    assert order(queue, 20.0)[0] == "young"
    return queue


def test_a_debt_that_nobody_claims_is_forgotten():
    queue = in_debt()
    assert order(queue, 21.9)[0] == "young"
    assert order(queue, 22.1)[0] == "old 1"


def test_a_debt_is_forgotten_before_one_starves_once_more():
    queue = in_debt()
    for second in range(21, 30):
        queue.sent("elsewhere", 0.1, float(second))
        assert order(queue, float(second))[0] == "young"
    queue.sent("elsewhere", 0.1, 30.0)
    assert order(queue, 30.1)[0] == "old 1"


def test_a_debt_of_those_who_starved_ends_with_them():
    queue = in_debt()
    queue.remove("old 1")
    queue.remove("old 2")
    assert order(queue, 21.0) == ["young"]
    queue.sent("elsewhere", 0.1, 28.0)
    assert order(queue, 29.5) == ["young"]  # starves itself by now, and owes nothing
    assert "young" in queue._ahead


# ---------------------------------------------------------------- an overload that lasts


def tight_and_some() -> tuple[Held, Held]:
    tight = held("tight", arrived_s=19.0, ttft_s=2.4)
    return tight, held("some", arrived_s=19.0, ttft_s=3.0)


def test_in_an_overload_that_lasts_who_has_little_time_left_is_late():
    """What comes between would make everybody late who is sent at the last moment."""
    assert order(queue_of(*tight_and_some()), 20.0) == ["tight", "some"]
    old = [held(name, arrived_s=3.5) for name in ("old 1", "old 2")]
    queue = queue_of(*old, *tight_and_some())
    # It might be for a moment.
    assert order(queue, 19.3, starved_after_s=99.0) == ["tight", "some", "old 1", "old 2"]
    assert order(queue, 20.0, starved_after_s=99.0) == ["some", "old 1", "old 2", "tight"]


@pytest.mark.parametrize(
    "others",
    [
        [],  # one may have reasons of its own
        [held("pinned", replica="a"), held("pinned too", replica="a")],
        [held("batch", tier=Tier("batch", ttft_s=60.0), ttft_s=60.0)],
        [held("in a hurry", ttft_s=0.01, arrived_s=19.0)],
    ],
)
def test_one_alone_makes_no_overload(others):
    queue = queue_of(held("old"), *others, *tight_and_some())
    assert order(queue, 20.0, starved_after_s=99.0)[:1] != ["some"]
    assert not queue.is_overdue


END_S = 90.0


def overdue(late: int = 0, *, until_s: float = END_S, **details: Any) -> Queue:
    """An overload that lasts since 0 s, in which a second of prefill was sent in each second; at
    the end so many have just become late.
    """
    queue = queue_of(*(held(name) for name in ("old 1", "old 2")))
    for second in range(int(until_s) + 1):
        order(queue, float(second))
        queue.sent("elsewhere", 1.0, float(second))
    join(queue, late, now=until_s, **details)
    assert queue.is_overdue
    return queue


def join(
    queue: Queue, count: int, name: str = "late", *, now: float = END_S, **details: Any
) -> None:
    """Some come who are late at once."""
    for number in range(count):
        facts: dict[str, Any] = {"arrived_s": now - 1.5} | details
        queue.add(held(f"{name} {number}", **facts))
    order(queue, now, most=8)


def serve(queue: Queue, count: int, name: str = "served", prefill_s: float = 1.0) -> None:
    """The first of them are sent at the end."""
    for number in range(count):
        queue.sent(f"{name} {number}", prefill_s, END_S)
        queue.remove(f"{name} {number}")


def refused(queue: Queue, now: float = END_S) -> list[str]:
    return [each.flight.id for each, _ in queue.hopeless(now, STARVED_AFTER_S)]


def test_who_is_late_in_an_overload_that_lasts_is_told_if_his_turn_is_too_far_away():
    """Late ones get a fifth, so each takes 5 s: 60 s are tolerated, and two were there before."""
    assert refused(overdue(6)) == []
    queue = overdue(14)
    told = queue.hopeless(END_S, STARVED_AFTER_S)
    assert len(told) > 2
    last = range(14 - len(told), 14)
    assert [each.flight.id for each, _ in told] == [f"late {number}" for number in last]
    assert all(60.0 < ttft_s < 100.0 for _, ttft_s in told)
    order(queue, END_S + 0.1)
    assert refused(queue, END_S + 0.1) == []  # it is said when they become late, and once


def test_an_overload_that_may_be_over_soon_refuses_nobody():
    assert refused(overdue(90, until_s=30.0), 30.0) == []


@pytest.mark.parametrize("prefill_s", [1.0, 0.01])
def test_the_more_late_ones_are_sent_the_more_may_wait(prefill_s):
    """Also if they were held with a price for a cold cache and sent with a warm one: what a request
    costs in the end is nothing to go by.
    """
    queue = overdue()
    join(queue, 20, "served", arrived_s=70.0)
    serve(queue, 20, prefill_s=prefill_s)
    join(queue, 14)
    assert refused(queue) == []


def test_who_goes_first_among_the_late_ones_does_not_wait_for_the_others():
    queue = overdue()
    join(queue, 1, "served", arrived_s=70.0)
    serve(queue, 1)
    queue.remove("old 1")
    queue.remove("old 2")
    queue.add(held("old 3", arrived_s=60.0))
    queue.add(held("old 4", arrived_s=60.0))
    join(queue, 30)
    join(queue, 1, "patient", arrived_s=59.0, ttft_s=30.0, tier=Tier(ttft_s=30.0))
    assert refused(queue) == []  # it has waited for half of what it tolerates, and is the next


def test_its_own_length_is_not_what_a_request_waits_for():
    queue = overdue()
    join(queue, 9, "served", arrived_s=70.0)
    serve(queue, 9)
    queue.remove("old 1")
    for name in ("old 3", "old 4"):
        queue.add(held(name, arrived_s=60.0, prefill_s=0.01))
    queue.remove("old 2")
    join(queue, 1, arrived_s=END_S - 0.1, prefill_s=59.0)
    assert refused(queue) == []


def test_who_waits_for_higher_ones_waits_for_them_and_not_the_other_way_round():
    patient = replace(LOW, shed_after_factor=0.0)
    queue = overdue(40, tier=patient)
    join(queue, 4, "mine", arrived_s=80.0)
    serve(queue, 3, "mine")
    join(queue, 1, "mine too")
    assert refused(queue) == []
    join(queue, 20, "higher", tier=replace(HIGH, shed_after_factor=0.0))
    join(queue, 1, "lower")
    assert refused(queue) == ["lower 0"]


def test_who_starves_waits_for_the_late_ones_of_his_own_priority():
    """And not for those of a higher one, of which there are many."""
    queue = overdue(90, tier=replace(HIGH, shed_after_factor=0.0))
    join(queue, 2, "lower", tier=LOW)
    assert refused(queue) == []
    join(queue, 14, "more lower", tier=LOW)
    assert "more lower 13" in refused(queue)


@pytest.mark.parametrize(
    "details",
    [
        {"tier": Tier(shed_after_factor=0.0)},
        {"tier": Tier(shed_after_factor=90.0)},
        {"replica": "a"},  # waits for no other's turn
    ],
)
def test_who_tolerates_it_waits(details):
    assert refused(overdue(14, **details)) == []


def test_who_was_sent_or_moved_elsewhere_in_the_meantime_is_not_told():
    queue = overdue(14)
    queue.remove("late 13")
    assert "late 13" not in refused(queue)


def test_who_waits_for_the_next_replica_is_not_told_so():
    """Nothing is sent as long as there is none."""
    queue = overdue()
    join(queue, 90, now=END_S + 6.0)
    assert refused(queue, END_S + 6.0) == []


def test_nothing_is_known_from_before_a_replica_was_there():
    queue = overdue()
    later_s = END_S + 60.0
    for at_s in range(20):
        queue.sent("elsewhere", 1.0, later_s + at_s)
    join(queue, 90, now=later_s + 20.0)
    assert queue.is_overdue
    assert refused(queue, later_s + 20.0) == []


def test_the_tpot_target_is_that_of_most_who_come():
    queue = queue_of(held("old"))
    assert queue.tpot_target_s == 0.05
    queue.came(1.0)
    assert 0.05 < queue.tpot_target_s < 0.07  # one of a hundred
    for _ in range(100):
        queue.came(1.0)
    assert queue.tpot_target_s > 0.8
    for _ in range(200):
        queue.came(0.05)
    assert queue.tpot_target_s < 0.07


def test_who_was_taken_out_is_not_there_wherever_it_stood():
    names = [f"r{number}" for number in range(20)]
    queue = queue_of(*(held(name, ttft_s=5.0 + place) for place, name in enumerate(names)))
    queue.first(12.5, 100.0, 1)  # the first of them are late by now
    for name in ("r1", "r3", "r12", "r0"):
        taken = queue.remove(name)
        assert taken is not None
        assert taken.flight.id == name
        assert queue.remove(name) is None
    left = [name for name in names if name not in ("r1", "r3", "r12", "r0")]
    assert len(queue) == len(left)
    assert sorted(order(queue, 0.0)) == sorted(left)
    assert queue.remove("unknown") is None


def test_those_that_were_sent_do_not_hide_who_stands_behind_them():
    """The first waits for a replica of its own, those behind it come and go."""
    queue = queue_of(*(held(f"r{number:02}", ttft_s=50.0 + number) for number in range(20)))
    for number in range(1, 12):
        queue.remove(f"r{number:02}")
    assert order(queue, 0.0, most=4) == ["r00", "r12", "r13", "r14"]


def test_work_is_that_of_all_who_wait():
    queue = queue_of(held("a"), held("b"), held("c"))
    assert queue.work_before_s(0) == 3.0
    queue.remove("b")
    assert queue.work_before_s(0) == 2.0
    queue.remove("a")
    queue.remove("c")
    assert queue.work_before_s(0) == 0.0
    assert not queue


def test_work_below_counts_only_by_what_starving_ones_get():
    queue = queue_of(*(held(f"low{number}", tier=LOW) for number in range(8)))
    assert queue.work_before_s(HIGH.priority) == 0.0
    queue.add(held("high", tier=HIGH))
    assert queue.work_before_s(HIGH.priority) == 1.25
    assert queue.work_before_s(LOW.priority) == 9.0


def test_who_would_be_sent_last_makes_room_for_those_above():
    queue = queue_of(held("plain"), held("low", tier=LOW), held("lower", tier=LOW, ttft_s=9.0))
    last = queue.last_below(HIGH.priority)
    assert last is not None
    assert last.flight.id == "lower"
    assert queue.last_below(LOW.priority) is None
    assert queue_of().last_below(0) is None


def test_what_expired_is_said_by_its_tier():
    brief = Tier("brief", ttl_s=3.0)
    queue = queue_of(held("a"), held("b", tier=brief), held("c", arrived_s=1.0, tier=brief))
    assert [each.flight.id for each in queue.expired(2.9)] == []
    assert [each.flight.id for each in queue.expired(3.0)] == ["b"]
    assert [each.flight.id for each in queue.expired(120.0)] == ["a", "b", "c"]
