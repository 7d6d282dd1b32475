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

from headrace.core.scaling_settings import ScheduledFloor

LOOK_BACK = timedelta(days=8)
"""An interval that holds now began at most so long ago: a week's line, and a day to spare."""
MOST_STARTS = 4096
"""Starts looked at for one entry: one a minute for nearly three days. More is no calendar."""


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
    starts = CronSim(entry.start, datetime.fromtimestamp(now, zone) - LOOK_BACK)
    name = entry.name or f"{entry.start} ({entry.timezone})"
    for _ in range(MOST_STARTS):
        begins = next(starts, None)
        if begins is None or begins.timestamp() > until_s:
            return
        ends = next(CronSim(entry.end, begins), None)
        if ends is None:
            return
        if ends.timestamp() > now:
            yield ScheduledFloor(begins.timestamp(), ends.timestamp(), entry.replicas, name)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(
            f"timezone is {name!r}, which is not known here; give one as 'Europe/Berlin', "
            "or install the package tzdata"
        ) from None
