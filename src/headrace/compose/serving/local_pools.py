"""Pools whose replicas this process starts itself, for a gateway in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from headrace.compose.serving.wiring import Gateway, StartError
from headrace.config.load import Loaded
from headrace.config.schema import PoolSection
from headrace.edges.fleets.command import CommandReplicas
from headrace.edges.fleets.keep_alive import LocalFleetError
from headrace.edges.fleets.scaled import ScaledFleet, ScaledPool
from headrace.edges.fleets.sleep_mode import EngineSleep
from headrace.engines.registry import dialect

_FIXED = ("start", "model", "role", "engine", "traffic")
"""Fields of a pool that make what its replicas are, so that a change of them needs a restart."""
_KEYS = ("api_key_file", "api_key_env")
"""Fields that change together with them, as they stand in the command too."""


def left_as_started(started: Loaded, after: Loaded) -> tuple[Loaded, list[str]]:
    """`after` with what makes the replicas of pools that this process started as it was, since
    they run on and nobody would start others; what of the changes needs a restart, by name.
    """
    ours = {pool.name: pool for pool in started.config.pools if pool.start is not None}
    pools: list[PoolSection] = []
    kept: list[str] = []
    waiting: dict[str, None] = {}
    for pool in after.config.pools:
        own = ours.pop(pool.name, None)
        if own is None:
            changed = [] if pool.start is None else ["start"]
        else:
            changed = [name for name in _FIXED if getattr(pool, name) != getattr(own, name)]
        waiting |= dict.fromkeys(f"pools[].{name}" for name in changed)
        if own is not None and changed:
            kept.append(own.name)
            # Without `start` it is of other engines, which have other settings.
            pools.append(own if pool.start is None else _with_replicas_of(own, pool))
        else:
            pools.append(pool)
    if ours:
        waiting["pools[].start"] = None
    upstream = {**after.secrets.upstream}
    for name in (*kept, *ours):
        upstream.pop(name, None)
        if name in started.secrets.upstream:
            upstream[name] = started.secrets.upstream[name]
    left = replace(
        after,
        config=replace(after.config, pools=(*pools, *ours.values())),
        secrets=replace(after.secrets, upstream=upstream),
    )
    return left, list(waiting)


def _with_replicas_of(own: PoolSection, pool: PoolSection) -> PoolSection:
    """`pool` with what the replicas that run were started with, their key among it."""
    return replace(pool, **{name: getattr(own, name) for name in (*_FIXED, *_KEYS)})


def in_flight_of(gateway: Gateway) -> Callable[[str], int]:
    """How many requests a replica has at this gateway, by its name."""
    replicas = gateway.dispatcher.fleet.replicas

    def in_flight(name: str) -> int:
        replica = replicas.get(name)
        return 0 if replica is None else replica.in_flight

    return in_flight


class LocalPools:
    """The pools of a configuration that a command starts; empty if there are none."""

    def __init__(self, gateway: Gateway, loaded: Loaded, notice: Callable[[str], None]) -> None:
        self.fleets: dict[str, ScaledFleet] = {}
        """By pool name."""
        for pool in loaded.config.pools:
            if pool.start is not None:
                self.fleets[pool.name] = ScaledFleet(
                    CommandReplicas(pool.start),
                    ScaledPool(pool=pool.name, drain_s=loaded.config.timeouts.total_s),
                    emit=gateway.apply,
                    in_flight=in_flight_of(gateway),
                    notice=lambda _replica, line: notice(line),
                    clock=time.time,
                    trouble=gateway.trouble,
                    sleeper=_sleeper_of(pool),
                )

    def follow(self, loaded: Loaded) -> None:
        """Let replicas that leave finish what may take longer from now on. What has begun keeps
        its old limit, so it never gets shorter.
        """
        for fleet in self.fleets.values():
            fleet.drain_s = max(fleet.drain_s, loaded.config.timeouts.total_s)

    def start(self) -> None:
        """Be ready to start replicas; how many, the scaler says. Raises StartError."""
        for name, fleet in self.fleets.items():
            try:
                fleet.start(0)
            except LocalFleetError as error:
                raise StartError(f"pool {name!r}: {error}") from None

    async def close(self) -> None:
        """End every process."""
        for fleet in self.fleets.values():
            await fleet.close()


def _sleeper_of(pool: PoolSection) -> EngineSleep | None:
    """What puts its standbys to sleep, if they are to."""
    mode = dialect(pool.engine).sleep_mode
    if pool.start is None or pool.start.sleep is None or mode is None:
        return None
    return EngineSleep(mode, pool.start.sleep)
