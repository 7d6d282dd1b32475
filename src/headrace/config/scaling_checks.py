"""Rules between the pools and how they are scaled."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from headrace.autoscaler.settings import HistorySettings, PoolScaling, ScalingSection
from headrace.config.document import join
from headrace.config.schema import Config, PoolSection
from headrace.core.latency import LatencyProfile
from headrace.edges.fleets.command import CommandReplicas
from headrace.edges.fleets.keep_alive import LocalFleetError
from headrace.engine_model.profiles import profile
from headrace.engines.registry import DIALECTS, dialect
from headrace.gateway.control import is_loopback

Finding = tuple[str, str]
"""Path and message."""
_SLEEPS = "--enable-sleep-mode"
"""Without it vLLM says that it sleeps and does not (captured of 0.32.0)."""


def scaling_findings(config: Config) -> Iterator[Finding]:
    """Everything wrong about scaling."""
    scaled = {} if config.scaling is None else config.scaling.pools
    for index, pool in enumerate(config.pools):
        yield from _started(pool, f"pools[{index}]", scaled)
    if config.scaling is None:
        return
    pools = {pool.name: pool for pool in config.pools}
    for name, scaling in scaled.items():
        path = join("scaling.pools", name)
        pool = pools.get(name)
        if pool is None:
            yield path, f"is the name of no pool; pools are: {', '.join(pools)}"
        else:
            yield from _scaled(pool, scaling, path)
    yield from _section(config.scaling)


def scaling_warnings(config: Config) -> Iterator[str]:
    """What is allowed and will hardly do what was meant."""
    scaled = {} if config.scaling is None else config.scaling.pools
    if config.scaling is not None:
        yield from _too_high_floors(config.scaling)
        yield from _too_few_gpus(config, config.scaling)
    for index, pool in enumerate(config.pools):
        start = pool.start
        standby = scaled[pool.name].standby_replicas if pool.name in scaled else 0
        if standby and start is None:
            yield (
                f"scaling.pools.{pool.name}.standby_replicas is {standby}, and nobody keeps them: "
                "only pools with `start` have standbys"
            )
        if start is None or start.sleep is None:
            continue
        if not standby:
            yield (
                f"pools[{index}].start.sleep has nobody to put to sleep: "
                f"scaling.pools.{pool.name}.standby_replicas is 0"
            )
        if any(part == "vllm" for part in start.command) and _SLEEPS not in start.command:
            yield (
                f"pools[{index}].start.command does not say {_SLEEPS}: the engine answers that it "
                "sleeps, and keeps its GPU's memory"
            )


def _too_high_floors(scaling: ScalingSection) -> Iterator[str]:
    """A calendar above its ceiling, and a budget below what the floors take."""
    for name, pool in scaling.pools.items():
        for index, entry in enumerate(pool.calendar):
            if entry.replicas > pool.max_replicas:
                yield (
                    f"scaling.pools.{name}.calendar[{index}].replicas is {entry.replicas}, more "
                    f"than max_replicas ({pool.max_replicas}), which holds"
                )
    least = sum(pool.min_replicas * pool.gpus_per_replica for pool in scaling.pools.values())
    if scaling.gpus is not None and least > scaling.gpus:
        yield (
            f"scaling.gpus is {scaling.gpus}, and the pools' min_replicas take {least}: floors hold"
        )


def _too_few_gpus(config: Config, scaling: ScalingSection) -> Iterator[str]:
    """A budget that counts fewer GPUs of a replica than its profile has."""
    for pool in config.pools:
        scaled = scaling.pools.get(pool.name)
        name = pool.profile.name if isinstance(pool.profile, LatencyProfile) else pool.profile
        if scaling.gpus is None or scaled is None or name is None:
            continue
        try:
            gpus = profile(name).gpus
        except ValueError:
            continue  # a measured one, which does not say
        if scaled.gpus_per_replica < gpus:
            yield (
                f"scaling.pools.{pool.name}.gpus_per_replica is {scaled.gpus_per_replica}, and a "
                f"replica of {name} has {gpus}: so many count in scaling.gpus"
            )


def scaling_exposure(config: Config) -> Iterator[Finding]:
    """What others could reach without showing who they are."""
    keda = None if config.scaling is None else config.scaling.keda
    if keda is not None and keda.tls is None and not is_loopback(keda.host):
        yield (
            "scaling.keda.host",
            (
                f"is {keda.host!r}, which other machines reach, without `tls`; give it a "
                "certificate (and `client_ca_file`, so that only KEDA may ask), or say --insecure "
                "if the network is trusted"
            ),
        )


def _started(pool: PoolSection, path: str, scaled: dict[str, PoolScaling]) -> Iterator[Finding]:
    if pool.start is None:
        return
    if pool.replicas or pool.dns is not None:
        yield f"{path}.start", "stands beside `replicas` or `dns`; a pool has one or the other"
    if pool.name not in scaled:
        yield f"{path}.start", f"needs `scaling.pools.{pool.name}`, which says how many there are"
    if not pool.start.command:
        yield f"{path}.start.command", "is empty; give the command that serves a replica"
        return
    if pool.start.sleep is not None and dialect(pool.engine).sleep_mode is None:
        able = sorted(name for name in DIALECTS if dialect(name).sleep_mode is not None)
        yield (
            f"{path}.start.sleep",
            f"is for engines that can sleep ({', '.join(able)}), not {pool.engine!r}; leave it out",
        )
    try:
        CommandReplicas(pool.start).check()
    except LocalFleetError as error:
        yield f"{path}.start.command", str(error)


def _scaled(pool: PoolSection, scaling: PoolScaling, path: str) -> Iterator[Finding]:
    if pool.traffic == "external":
        yield path, "is a pool whose traffic is external: no gateway knows the demand on it"
    if scaling.min_replicas > scaling.max_replicas:
        yield (
            f"{path}.min_replicas",
            f"is {scaling.min_replicas}, more than max_replicas ({scaling.max_replicas})",
        )
    if scaling.group_replicas > scaling.max_replicas:
        yield (
            f"{path}.group_replicas",
            (
                f"is {scaling.group_replicas}, more than max_replicas ({scaling.max_replicas}): no "
                "whole group may be ordered"
            ),
        )
    most = scaling.max_replicas // scaling.group_replicas * scaling.group_replicas
    if most < scaling.min_replicas <= scaling.max_replicas:
        yield (
            f"{path}.min_replicas",
            (
                f"is {scaling.min_replicas}, more than the {most} that whole groups of "
                f"{scaling.group_replicas} within max_replicas make"
            ),
        )
    if scaling.min_replicas == 0 and not pool.wait_for_replica_s:
        yield (
            f"{path}.min_replicas",
            (
                "is 0, but the pool has no `wait_for_replica`, so that a request at zero replicas "
                "would be refused; give it a cold start's time and some more"
            ),
        )


def _section(scaling: ScalingSection) -> Iterator[Finding]:
    for name, pool in scaling.pools.items():
        if pool.stale_s <= scaling.gathering.interval_s:
            yield (
                join("scaling.pools", name) + ".stale",
                (
                    f"is {pool.stale_s:g} s, not longer than scaling.gathering.interval "
                    f"({scaling.gathering.interval_s:g} s): every report would be too old"
                ),
            )
    for index, url in enumerate(scaling.gateways):
        path, expected = f"scaling.gateways[{index}]", "expected http://host:port"
        if "@" in url:
            yield path, f"holds credentials; {expected}"
            continue
        if not _is_url(url):
            yield path, f"is {url!r}; {expected}"
    if scaling.history is not None:
        yield from _history(scaling.history, scaling.state_file)


def _history(history: HistorySettings, state_file: str | None) -> Iterator[Finding]:
    if history.file is not None and history.file == state_file:
        yield "scaling.history.file", "is scaling.state_file too; give each a file of its own"
    if history.file is not None and f"{history.file}.1" == state_file:
        problem = f"keeps its older part in {state_file}, which is scaling.state_file"
        yield "scaling.history.file", f"{problem}; give another name"
    if (history.prometheus is None) == (history.file is None):
        yield "scaling.history", "names both or neither; give `prometheus` or `file`"
    elif history.prometheus is not None and "@" in history.prometheus:
        yield "scaling.history.prometheus", "holds credentials; expected http://host:port"
    elif history.prometheus is not None and not _is_url(history.prometheus):
        yield "scaling.history.prometheus", "is no URL; expected http://host:port"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
