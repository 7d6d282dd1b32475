"""Pools that only make sense together: prefill and decode replicas in a ratio.

    groups = max over members of wanted / share        whole groups
    replicas of a member = groups * share

A group of 1 prefill and 2 decode replicas whose members want 3 and 3 has 3 groups: 3 and 6. Prefill
without decode serves nobody, so a group is ordered and removed as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class RatioGroup:
    """The pools of a group with their replicas in one group.

    Raises:
        ValueError: there is no member, or a share is less than one replica.
    """

    members: tuple[tuple[str, int], ...]
    min_groups: int = 0
    max_groups: int = 64

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("a ratio group has no pools; name at least one")
        for pool, share in self.members:
            if share < 1:
                raise ValueError(f"pool {pool!r}: {share} replicas in a group; give 1 or more")
        if not 0 <= self.min_groups <= self.max_groups:
            raise ValueError(
                f"min_groups is {self.min_groups} and max_groups {self.max_groups}; "
                "give 0 <= min_groups <= max_groups"
            )

    def groups(self, wanted: Mapping[str, float]) -> int:
        """Whole groups so that each member has what it wants; who says nothing wants nothing."""
        most = max(wanted.get(pool, 0.0) / share for pool, share in self.members)
        return min(max(ceil(most - 1e-6), self.min_groups), self.max_groups)

    def replicas(self, wanted: Mapping[str, float]) -> dict[str, int]:
        """Replicas of each member."""
        groups = self.groups(wanted)
        return {pool: groups * share for pool, share in self.members}

    def gpus(self, gpus_per_replica: Mapping[str, int]) -> int:
        """GPUs of one group, the step in which a budget is shared."""
        return sum(share * gpus_per_replica[pool] for pool, share in self.members)
