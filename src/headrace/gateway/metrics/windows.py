"""What happened lately: a quantile and a rate over a sliding window of bounded size."""

from __future__ import annotations

from math import ceil, exp, log


class RollingQuantile:
    """A quantile of the last `window_s` seconds, within 1 % of the true sample.

    Values fall into buckets growing by `GROWTH`; a bucket is reported by its geometric middle, so
    the relative error is at most sqrt(GROWTH) - 1 = 0.995 %. Values below 10 µs count as 10 µs
    and above 3 hours as 3 hours, so a slot holds at most 1,052 buckets. The window slides in steps
    of a slot: it covers between 11/12 of `window_s` and all of it.
    """

    GROWTH = 1.02
    SLOTS = 12
    LEAST_S = 1e-5
    MOST_S = 3 * 3600.0

    __slots__ = ("_buckets", "_epochs", "_slot_s")

    def __init__(self, window_s: float = 60.0) -> None:
        self._slot_s = window_s / self.SLOTS
        self._epochs = [-1] * self.SLOTS
        self._buckets: list[dict[int, int]] = [{} for _ in range(self.SLOTS)]

    def observe(self, value: float, now: float, times: int = 1) -> None:
        """Count one value seen at `now`."""
        epoch = int(now / self._slot_s)
        slot = epoch % self.SLOTS
        if self._epochs[slot] != epoch:
            self._epochs[slot] = epoch
            self._buckets[slot] = {}
        clamped = min(max(value, self.LEAST_S), self.MOST_S)
        bucket = round(log(clamped) / log(self.GROWTH))
        counts = self._buckets[slot]
        counts[bucket] = counts.get(bucket, 0) + times

    def quantile(self, share: float, now: float) -> float | None:
        """The smallest value that at least `share` of the samples do not exceed; None without any.

        This is the nearest-rank definition: rank = ceil(share · n).
        """
        newest = int(now / self._slot_s)
        merged: dict[int, int] = {}
        for epoch, counts in zip(self._epochs, self._buckets, strict=True):
            if newest - self.SLOTS < epoch <= newest:
                for bucket, count in counts.items():
                    merged[bucket] = merged.get(bucket, 0) + count
        samples = sum(merged.values())
        if not samples:  # or all were taken back
            return None
        rank = ceil(share * samples)
        for bucket in sorted(merged):
            rank -= merged[bucket]
            if rank <= 0:
                return exp(bucket * log(self.GROWTH))
        return None


class RollingRate:
    """Amount per second over the last `window_s` whole seconds."""

    __slots__ = ("_amounts", "_epochs", "_window_s")

    def __init__(self, window_s: int = 10) -> None:
        self._window_s = window_s
        self._epochs = [-1] * (window_s + 1)
        self._amounts = [0] * (window_s + 1)

    def add(self, amount: int, now: float) -> None:
        """Count an amount at `now`."""
        epoch = int(now)
        slot = epoch % len(self._epochs)
        if self._epochs[slot] != epoch:
            self._epochs[slot] = epoch
            self._amounts[slot] = 0
        self._amounts[slot] += amount

    def per_second(self, now: float) -> float:
        """Mean over the window, without the second still running, for it is not full."""
        newest = int(now) - 1
        total = sum(
            amount
            for epoch, amount in zip(self._epochs, self._amounts, strict=True)
            if newest - self._window_s < epoch <= newest
        )
        return total / self._window_s
