"""Calendars as plain floors: cron lines with a time zone, expanded to intervals.

    entry {start: "0 8 * * 1-5", end: "0 18 * * 1-5", timezone: Europe/Berlin, replicas: 12}
    floors(entries, now, ahead_s) = those that hold or begin within `ahead_s`

The core knows no dates: it is handed seconds. An entry holds from a time of `start` to the next
time of `end` behind it, as in KEDA's cron trigger; over a change of the clocks, by the clock on the
wall.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from headrace.core.scaling.settings import ScheduledFloor

MINUTE_S = 60.0
FIELDS = 5
MOST_INTERVALS = 1500
"""Of one entry: one a minute for a day. What is looked ahead has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarEntry:
    """At least so many replicas, again and again.

    Raises:
        ValueError: a line is no cron expression, there is no such time zone, or no replica.
    """

    start: str
    """When it begins: minute, hour, day of month, month, day of week."""
    end: str
    """When it ends, likewise."""
    replicas: int
    """The floor meanwhile."""
    timezone: str = "UTC"
    """Whose clock the lines mean, as `Europe/Berlin`."""
    name: str = ""
    """What `headrace why --scaling` calls it."""

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ValueError(f"replicas is {self.replicas}; a calendar holds 1 or more")
        zone = _zone(self.timezone)
        for field in ("start", "end"):
            line = getattr(self, field)
            try:
                if len(line.split()) != FIELDS:  # a sixth would be seconds, in front of the others
                    raise CronSimError("Wrong number of fields")
                CronSim(line, datetime.fromtimestamp(0.0, zone))
            except CronSimError as error:
                raise ValueError(
                    f"{field} is {line!r}: {error}; give five fields as in '0 8 * * 1-5'"
                ) from None


def floors(
    entries: Iterable[CalendarEntry], now: float, ahead_s: float
) -> tuple[ScheduledFloor, ...]:
    """All intervals that hold at `now` or begin within `ahead_s`, in Unix seconds."""
    found = [floor for entry in entries for floor in _expanded(entry, now, now + ahead_s)]
    return tuple(sorted(found, key=lambda floor: (floor.begins_s, floor.name, floor.replicas)))


def _expanded(entry: CalendarEntry, now: float, until_s: float) -> Iterator[ScheduledFloor]:
    zone = _zone(entry.timezone)
    name = entry.name or f"{entry.start} ({entry.timezone})"
    begins = _holding_since(entry, now, zone) or _next(entry.start, now, zone)
    for _ in range(MOST_INTERVALS):
        if begins is None or begins > until_s:
            return
        if _is_left_out(entry, begins, zone):
            begins = _next(entry.start, begins, zone)
            continue
        ends = _next(entry.end, begins, zone)
        if ends is None:
            return
        yield ScheduledFloor(begins, ends, entry.replicas, name)
        # A start within an interval begins no other one; one at its end does.
        begins = _next(entry.start, ends - MINUTE_S, zone)


def _holding_since(entry: CalendarEntry, now: float, zone: ZoneInfo) -> float | None:
    """The last start, if no end has come since; None outside of every interval."""
    begins, ends = _last(entry.start, now, zone), _last(entry.end, now, zone)
    if begins is None or (ends is not None and ends > begins):
        return None
    return begins


def _is_left_out(entry: CalendarEntry, begins: float, zone: ZoneInfo) -> bool:
    """Whether clocks that are set forward leave out an interval, which would begin and end in the
    hour that there is not: its start is moved behind that hour, and so is its end, or it is at it.
    """
    after = datetime.fromtimestamp(begins, zone)
    before = datetime.fromtimestamp(begins - MINUTE_S, zone)
    missing = (after.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())
    if missing <= timedelta():
        return False
    wall = after.replace(tzinfo=None)
    moment = wall - missing - timedelta(minutes=1)
    for start in CronSim(entry.start, moment):
        if start > wall:
            return True
        if next(CronSim(entry.end, start), wall) > wall:
            return False
    return True


def _next(line: str, after_s: float, zone: ZoneInfo) -> float | None:
    """The first time of a line later than `after_s`."""
    found = next(CronSim(line, datetime.fromtimestamp(after_s, zone)), None)
    return None if found is None else found.timestamp()


def _last(line: str, until_s: float, zone: ZoneInfo) -> float | None:
    """The last time of a line that is not later than `until_s`."""
    from_s = until_s + 2 * MINUTE_S  # it begins at the minute, and looks strictly before
    times = CronSim(line, datetime.fromtimestamp(from_s, zone), reverse=True)
    return next((each.timestamp() for each in times if each.timestamp() <= until_s), None)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(
            f"timezone is {name!r}, which is not known here; give one as 'Europe/Berlin', "
            "or install the package tzdata"
        ) from None
