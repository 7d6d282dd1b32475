"""One GPU budget, several models: who may have how many replicas.

    1. each has its floor, in the order given, as far as the budget goes
    2. the rest goes replica by replica to who has the fewest GPUs for its weight among those that
       want more: progressive filling, so that shares are by weight where all want more than there
       is, and nobody is given what it does not want

Ties go to the pool named first. Whole replicas: what no pool can use is left.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuClaim:
    """What one pool asks for. A step is `group_replicas` replicas of `gpus_per_replica` GPUs."""

    pool: str
    wanted: int
    floor: int = 0
    gpus_per_replica: int = 1
    weight: float = 1.0
    group_replicas: int = 1

    @property
    def step_gpus(self) -> int:
        """GPUs of the least that can be added."""
        return self.gpus_per_replica * self.group_replicas


def share_gpus(claims: tuple[GpuClaim, ...], budget_gpus: int) -> dict[str, int]:
    """Replicas of each pool within the budget.

    Raises:
        ValueError: a weight is not positive, or a pool is named twice.
    """
    _check(claims)
    granted = dict.fromkeys((claim.pool for claim in claims), 0)
    left = budget_gpus
    for claim in claims:
        while granted[claim.pool] < claim.floor and claim.step_gpus <= left:
            granted[claim.pool] += claim.group_replicas
            left -= claim.step_gpus
    while True:
        hungry = [
            claim
            for claim in claims
            if granted[claim.pool] < claim.wanted and claim.step_gpus <= left
        ]
        if not hungry:
            return granted
        # `min` takes the first of equals, which is who is named first.
        neediest = min(
            hungry, key=lambda each: granted[each.pool] * each.gpus_per_replica / each.weight
        )
        granted[neediest.pool] += neediest.group_replicas
        left -= neediest.step_gpus


def _check(claims: tuple[GpuClaim, ...]) -> None:
    names: list[str] = []
    for claim in claims:
        if not claim.weight > 0.0:
            raise ValueError(f"pool {claim.pool!r}: weight is {claim.weight:g}; give more than 0")
        if claim.pool in names:
            raise ValueError(f"pool {claim.pool!r} claims GPUs twice; give each pool one claim")
        names.append(claim.pool)
