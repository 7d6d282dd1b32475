"""A Horizontal Pod Autoscaler written a second time, in the steps that Kubernetes takes.

Metrics in whole thousandths, one proposal for each, the highest; a list of all recommendations ever
made; ups and downs in lists of their own. Slow and plain on purpose: it shares nothing with
`simulator.scaling`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

FLOOR = 1
"""`minReplicas` of the HPA that KEDA writes, where it may have none."""


@dataclass
class NaiveHpa:
    """`up` and `down` are policies: (percent or pods, value, period)."""

    up_window_s: float
    down_window_s: float
    up: list[tuple[str, int, float]]
    down: list[tuple[str, int, float]]
    least: int
    most: int
    tolerance: float = 0.1
    recommended: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    added: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    deleted: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def total(self, value: float, target: float, current: int) -> int:
        """`AverageValue` of an external metric."""
        usage, each = int(value * 1000), int(target * 1000)
        ratio = usage / (each * current)
        if ratio < 1 - self.tolerance or ratio > 1 + self.tolerance:
            return -(-usage // each)
        return current

    def utilisation(self, pods: list[float | None], requested: float, target: float) -> int:
        """`averageUtilization` of CPU; a pod that is not ready has None."""
        aim = round(target * 100)
        milli = round(requested * 1000)
        used = [int(each * 1000) for each in pods if each is not None]
        if not used:
            return len(pods)
        ratio = Fraction(100 * sum(used) // (milli * len(used)), aim)
        unready = len(pods) - len(used)
        if ratio > 1 and unready:
            used += [0] * unready
            again = Fraction(100 * sum(used) // (milli * len(used)), aim)
            if again < 1:
                return len(pods)
            ratio = again
        if 1 - self.tolerance <= float(ratio) <= 1 + self.tolerance:
            return len(pods)
        return math.ceil(float(ratio) * len(used))

    def replicas(self, proposals: list[int], current: int, now: float) -> int:
        """One sync."""
        desired = max(proposals)
        if not self.recommended:
            self.recommended.append((now, current))
        upper = [w for at, w in self.recommended if at > now - self.up_window_s] + [desired]
        lower = [w for at, w in self.recommended if at > now - self.down_window_s] + [desired]
        self.recommended.append((now, desired))
        stable = min(max(current, min(upper)), max(lower))
        number = self._limited(stable, current, now)
        if number > current:
            self.added.append((now, number - current))
        elif number < current:
            self.deleted.append((now, current - number))
        return number

    def _limited(self, stable: int, current: int, now: float) -> int:
        if stable > current:
            limit = max(self._start(p, current, now, True) for p in self.up)
            return min(stable, self.most, max(limit, current))
        if stable < current:
            limit = min(self._start(p, current, now, False) for p in self.down)
            return max(stable, self.least, min(limit, current))
        return stable

    def _start(self, policy: tuple[str, int, float], current: int, now: float, up: bool) -> int:
        kind, value, period = policy
        begin = current
        begin -= sum(change for at, change in self.added if at > now - period)
        begin += sum(change for at, change in self.deleted if at > now - period)
        if kind == "pods":
            return begin + value if up else begin - value
        share = 1 + value / 100 if up else 1 - value / 100
        return math.ceil(begin * share) if up else int(begin * share)
