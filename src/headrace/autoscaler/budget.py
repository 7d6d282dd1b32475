"""One GPU budget over several pools: what each may use, from what all of them wish.

A pool's wish is what its last plan would be without a budget: one whose demand rises gets what is
free, and what only trembles moves nothing from one pool to the other and back. Where there is not
enough for all, shares go by weight (`core/scaling/gpu_budget.py`). What all of them leave is for
replicas that stand by.

A pool that may not be lowered, since its demand is not known, keeps what it has: nobody else's wish
takes it away, not at the first look after a start either. Only where requests of another pool wait
and have no replica at all does a pool that is idle for `idle_to_zero` let go of its own: that
nothing comes is seen in less time than how much comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import ceil

from headrace.autoscaler.pool import ScaledPool
from headrace.core.scaling.gpu_budget import GpuClaim, share_gpus


@dataclass(frozen=True, slots=True)
class GpuBudget:
    """GPUs for all pools together, and the weight of each where they are too few."""

    gpus: int
    weights: Mapping[str, float]

    def share(self, pools: Mapping[str, ScaledPool]) -> dict[str, float]:
        """GPUs of each pool now."""
        claims = tuple(self._claim(pool) for pool in pools.values())
        working = share_gpus(claims, self.gpus)
        yielding = [
            name for name, pool in pools.items() if pool.plan is not None and pool.plan.may_yield
        ]
        if yielding and any(_starves(pool, working[name]) for name, pool in pools.items()):
            claims, working = self._without(yielding, claims)
        else:
            yielding = []
        claims = tuple(
            replace(claim, floor=working[claim.pool], wanted=working[claim.pool] + _standby(pool))
            for claim, pool in zip(claims, pools.values(), strict=True)
        )
        granted = share_gpus(claims, self.gpus)
        return {
            claim.pool: float(
                max(
                    granted[claim.pool],
                    0 if claim.pool in yielding else _kept(pools[claim.pool]),
                )
                * claim.gpus_per_replica
            )
            for claim in claims
        }

    def _without(
        self, yielding: Collection[str], claims: tuple[GpuClaim, ...]
    ) -> tuple[tuple[GpuClaim, ...], dict[str, int]]:
        """Share among the others first; what they leave is for those that yield."""
        modest = tuple(
            replace(claim, floor=0, wanted=0) if claim.pool in yielding else claim
            for claim in claims
        )
        first = share_gpus(modest, self.gpus)
        claims = tuple(replace(claim, floor=first[claim.pool]) for claim in claims)
        return claims, share_gpus(claims, self.gpus)

    def _claim(self, pool: ScaledPool) -> GpuClaim:
        settings = pool.scaler.settings
        promised = min(max(settings.min_replicas, _calendar(pool)), settings.max_replicas)
        # In whole groups, or a group that the ceiling forbids would be taken from others.
        most = settings.max_replicas // settings.group_replicas * settings.group_replicas
        return GpuClaim(
            pool.name,
            wanted=min(_wish(pool), most),
            floor=max(promised, _kept(pool)),
            gpus_per_replica=pool.scaler.figures.gpus,
            weight=self.weights.get(pool.name, 1.0),
            group_replicas=settings.group_replicas,
        )


def _wish(pool: ScaledPool) -> int:
    """What the pool would have without a budget; nothing before anything was decided."""
    if pool.plan is None:
        return 0
    if pool.plan.asked is not None:
        return pool.plan.asked
    asking = [each.replicas for each in pool.plan.signals if each.kind != "ceiling"]
    return ceil(max(asking, default=0.0))


def _starves(pool: ScaledPool, working: int) -> bool:
    """Whether requests wait for a pool that has no replica and would be given none."""
    seen = pool.observation
    waits = seen is not None and any(each.held_requests > 0.0 for each in seen.gateways)
    return waits and not working and not pool.present()


def _kept(pool: ScaledPool) -> int:
    """Replicas that must not be taken from the pool: those it has, while it may not be lowered."""
    plan, number = pool.plan, pool.scaler.number
    if plan is not None and plan.may_fall:
        return 0
    # What an idle pool has let go of may be there for a while yet.
    there = number if plan is not None and plan.may_yield else max(number, pool.present())
    return min(there, pool.scaler.settings.max_replicas)


def _calendar(pool: ScaledPool) -> int:
    """The floor that the calendar sets now: a promise as `min_replicas` is."""
    signals = () if pool.plan is None else pool.plan.signals
    return max((ceil(each.replicas) for each in signals if each.name == "schedule"), default=0)


def _standby(pool: ScaledPool) -> int:
    """Replicas that are to stand by: none beside none that work, and none where KEDA makes them."""
    kept = pool.actuator is not None and _wish(pool) > 0
    return pool.scaler.settings.standby_replicas if kept else 0
