"""What becomes of a wish: the Horizontal Pod Autoscaler, as KEDA sets it up.

At each sync, with n replicas ordered and a wish d (a number that is published as it is, or what
`hpa_metrics` makes of metrics, which has the tolerance in it):

    d/n within the tolerance                                          nothing changes
    up:   at most the lowest wish of `up_window_s`, at most what the policies allow
    down: at least the highest wish of `down_window_s`, at least what the policies allow
    a policy (kind, value, period_s) allows, from the number before the changes of that period,
        pods: value more or fewer        percent: value % more or fewer
    of several policies the most permissive holds (selectPolicy: Max)

A window has the wishes after its begin: one that is exactly a window old is out. The number at the
first sync counts as a wish of that time, so that nothing goes down before a window has passed.

Source: Kubernetes' documentation of `autoscaling/v2` behaviour and its defaults (tolerance 10 %,
sync 15 s, down window 300 s; up by 100 % or 4 pods per 15 s, down by 100 % per 15 s), and its
controller (`pkg/controller/podautoscaler/horizontal.go`). An HPA without any `behavior` goes up to
twice the number or 4 at most, which is less for fewer than four; that is not played.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, floor

from headrace.simulator.scaling.hpa_metrics import TOLERANCE, within


@dataclass(frozen=True, slots=True)
class Policy:
    """So many pods, or percent of the pods, in a period."""

    kind: str
    value: float
    period_s: float

    def most(self, before: int) -> int:
        """The largest number reached from `before` on the way up."""
        if self.kind == "pods":
            return before + int(self.value)
        return ceil(before * (1 + self.value / 100))

    def least(self, before: int) -> int:
        """The smallest number reached from `before` on the way down."""
        if self.kind == "pods":
            return before - int(self.value)
        return floor(before * (1 - self.value / 100))


@dataclass(frozen=True, slots=True)
class Behaviour:
    """An HPA's settings; the defaults are those of Kubernetes."""

    tolerance: float = TOLERANCE
    up_window_s: float = 0.0
    down_window_s: float = 300.0
    up: tuple[Policy, ...] = (Policy("percent", 100, 15), Policy("pods", 4, 15))
    down: tuple[Policy, ...] = (Policy("percent", 100, 15),)


MEASURED = Behaviour(tolerance=0.0)
"""For wishes made of metrics, to which the tolerance has been applied."""
DIRECT = Behaviour(tolerance=0.0, down_window_s=0.0, up=(), down=())
"""The wish is the order: who scales the Deployment by itself, or has its own windows."""


class Actuator:
    """Makes numbers of wishes, with the memory that windows and policies need."""

    __slots__ = ("_behaviour", "_changes", "_least", "_most", "_wishes")

    def __init__(self, behaviour: Behaviour, least: int, most: int) -> None:
        self._behaviour = behaviour
        self._least = least
        self._most = most
        self._wishes: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def number(self, wish: int, current: int, now: float) -> int:
        """The number to order."""
        behaviour = self._behaviour
        if not self._wishes:
            self._wishes.append((now, current))
        if current and within(wish / current, behaviour.tolerance):
            wish = current
        up_s, down_s = now - behaviour.up_window_s, now - behaviour.down_window_s
        lowest = min((w for at_s, w in self._wishes if at_s > up_s), default=wish)
        highest = max((w for at_s, w in self._wishes if at_s > down_s), default=wish)
        lowest, highest = min(lowest, wish), max(highest, wish)
        self._remember(wish, now)
        number = current
        if lowest > current:
            number = lowest
            if behaviour.up:
                allowed = (p.most(self._before(p, now, current)) for p in behaviour.up)
                number = max(min(number, max(allowed)), current)
        elif highest < current:
            number = highest
            if behaviour.down:
                allowed = (p.least(self._before(p, now, current)) for p in behaviour.down)
                number = min(max(number, min(allowed)), current)
        number = min(max(number, self._least), self._most)
        if number != current and (behaviour.up or behaviour.down):
            self._changes.append((now, number - current))
        return number

    def _remember(self, wish: int, now: float) -> None:
        behaviour = self._behaviour
        window_s = max(behaviour.up_window_s, behaviour.down_window_s)
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - window_s:
            self._wishes.popleft()
        periods = [policy.period_s for policy in (*behaviour.up, *behaviour.down)]
        while self._changes and self._changes[0][0] <= now - max(periods):
            self._changes.popleft()

    def _before(self, policy: Policy, now: float, current: int) -> int:
        """The number before the changes of the policy's period, in its direction or the other."""
        begin_s = now - policy.period_s
        return current - sum(change for at_s, change in self._changes if at_s > begin_s)
