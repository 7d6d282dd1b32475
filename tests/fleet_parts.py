"""Fleets made by hand, for tests of what only reads them."""

from headrace.core.latency import PoolLatency, ReplicaLatency
from headrace.core.model import EngineReport, Fleet, Pool, Replica, ReplicaState
from headrace.core.specs import PoolSpec


def make_fleet(**pools: tuple[str, int]) -> Fleet:
    """Pools by name, each `(model, number of ready replicas)`, named `pool-0`, `pool-1`, …"""
    fleet = Fleet()
    for name, (model, count) in pools.items():
        pool = Pool(PoolSpec(name, model), PoolLatency(None))
        fleet.pools[name] = pool
        for index in range(count):
            add_replica(fleet, pool, f"{name}-{index}")
    return fleet


def add_replica(fleet: Fleet, pool: Pool, name: str) -> Replica:
    index = len(fleet.replicas)
    replica = Replica(
        name,
        pool,
        f"http://10.0.0.{index}:8000",
        index,
        ReplicaLatency(pool.latency),
        state=ReplicaState.READY,
    )
    pool.replicas[name] = fleet.replicas[name] = replica
    return replica


def remove_replica(fleet: Fleet, name: str) -> Replica:
    replica = fleet.replicas.pop(name)
    del replica.pool.replicas[name]
    return replica


def report(replica: Replica, now: float, **facts: float) -> None:
    """As the core does with a scrape."""
    replica.report = EngineReport(**facts)
    replica.scraped_s = now
