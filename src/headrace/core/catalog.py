"""Names: what a client's model name stands for, and which replicas can serve it now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from operator import attrgetter
from typing import Final

from headrace.core.model import Fleet, Pool, Replica, ReplicaState, Request, Rng
from headrace.core.specs import Alias, Role

_EJECTED: Final = ReplicaState.EJECTED
LIGHTEST_USES: Final = 16
"""Requests for which the least loaded of a large fleet are taken from the same few."""
MOST_NAMES_LISTED: Final = 20
"""Known names in an error message."""
ALL_FULL: Final = 1
NONE_READY: Final = 2
"""Why replicas had better not be sent a request, the worse the higher."""


class Serving:
    """The replicas to choose from for one model or adapter, at least one, in the order of names.

    `pool` is the first configured one that has any of them: its policy decides. `adapter` is the
    name if it is an adapter's, else "". `mask` holds the replicas' indices as bits, `by_index` the
    replicas behind these.
    `shortest_context_tokens` is the smallest context among them, infinite if none is known.
    """

    __slots__ = (
        "_lightest",
        "_lightest_uses",
        "adapter",
        "by_index",
        "mask",
        "pool",
        "replicas",
        "shortest_context_tokens",
    )

    def __init__(self, pool: Pool, replicas: list[Replica], adapter: str) -> None:
        self.pool = pool
        self.replicas = replicas
        self.adapter = adapter
        self.by_index = {replica.index: replica for replica in replicas}
        self.mask = mask_of(replicas)
        self._lightest: list[Replica] = []
        self._lightest_uses = 0
        self.shortest_context_tokens = min(map(_context_tokens, replicas))

    def reluctance(self, now: float) -> int:
        """0 where a replica may take a request now, `ALL_FULL` where each said that it is full,
        `NONE_READY` where none is: then anything else is better.
        """
        replicas = self.replicas
        if replicas[0].state is _EJECTED:  # so are the others: see `_usable`
            return NONE_READY
        for replica in replicas:
            if now >= replica.busy_until_s:
                return 0
        return ALL_FULL

    def least_loaded(self, number: int) -> list[Replica]:
        """So many replicas with the least to do.

        They are found among all once in `LIGHTEST_USES` requests, four times as many as are asked
        for, and among these each time: a request changes the load of one replica only.
        """
        if self._lightest_uses <= 0:
            self._lightest = lightest(self.replicas, 4 * number)
            self._lightest_uses = LIGHTEST_USES
        self._lightest_uses -= 1
        return lightest(self._lightest, number)

    def without(self, names: Sequence[str]) -> Serving | None:
        """The same without these replicas; None if none is left."""
        left = [replica for replica in self.replicas if replica.name not in names]
        return Serving(self.pool, left, self.adapter) if left else None

    def only(self, name: str) -> Serving | None:
        """The same with this replica only; None if it is not among them."""
        others = [replica.name for replica in self.replicas if replica.name != name]
        return self.without(others)

    def fitting(self, needed_tokens: float) -> Serving:
        """The same with only those whose context is known to be this long, or not known.

        All of them if none is: whether a prompt is too long is for an engine to say.
        """
        small = [each.name for each in self.replicas if _context_tokens(each) < needed_tokens]
        return self.without(small) or self


class Catalog:
    """Looks names up in a fleet.

    What can serve a name is kept until `changed` is called, since it is asked for with every
    request and changes with every hundred thousandth.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._serving: dict[str, Serving | None] = {}
        self._known: frozenset[str] | None = None
        self._plain: dict[str, tuple[str, ...]] = {}  # names that stand for themselves

    def changed(self) -> None:
        """A pool, an alias, a replica's state or its adapters have changed."""
        self._serving = {}
        self._known = None
        self._plain = {}

    def resolve(self, request: Request, rng: Rng) -> tuple[str, ...]:
        """The models or adapters that may answer a request, in the order to try; empty if unknown.

        An alias gives one target by weight, then its fall-backs, then its other targets as a last
        resort. A request without a model means the only model there is. A request that one replica
        must answer means what that replica serves.
        """
        if request.replica:
            return self._resolve_pinned(request, rng)
        return self._plain.get(request.model) or self._resolve_name(request.model, rng)

    def serving(self, name: str) -> Serving | None:
        """Who can serve a model or adapter now; None if nobody can.

        Ready replicas; of those that could, only holders of an adapter if any holder is ready. If
        none is ready but some are ejected, the one whose probe is due first: with nothing to lose,
        a request is as good a probe as any.
        """
        try:
            return self._serving[name]
        except KeyError:
            serving = self._find(name)
            # Only known names are kept, so that clients cannot fill the memory with others.
            if name in self._known_names():
                self._serving[name] = serving
            return serving

    def first_pool(self, route: Sequence[str]) -> Pool | None:
        """The first configured pool of the first of these models that has one, ready or not."""
        for model in route:
            for pool in self._fleet.pools.values():
                if pool.spec.model == model and pool.spec.role is Role.BOTH:
                    return pool
        return None

    def known_names(self) -> str:
        """The known names for an error message, at most `MOST_NAMES_LISTED`."""
        names = sorted(self._known_names().union(self._fleet.aliases))
        listed = ", ".join(names[:MOST_NAMES_LISTED]) or "none"
        more = len(names) - MOST_NAMES_LISTED
        return f"{listed} and {more} more" if more > 0 else listed

    def _resolve_pinned(self, request: Request, rng: Rng) -> tuple[str, ...]:
        replica = self._fleet.replicas.get(request.replica)
        if replica is None:
            return ()
        served = {replica.pool.spec.model, *replica.adapters}
        for name in self._resolve_name(request.model, rng):
            if name in served:
                return (name,)
        return (replica.pool.spec.model,)

    def _resolve_name(self, name: str, rng: Rng) -> tuple[str, ...]:
        alias = self._fleet.aliases.get(name)
        if alias is not None:
            return _choose(alias, rng)
        if not name:
            models = self._models()
            return (models[0],) if len(models) == 1 else ()
        if name not in self._known_names():
            return ()
        route = self._plain[name] = (name,)
        return route

    def _models(self) -> list[str]:
        return sorted({pool.spec.model for pool in self._fleet.pools.values()})

    def _known_names(self) -> frozenset[str]:
        if self._known is None:
            adapters = (replica.adapters for replica in self._fleet.replicas.values())
            self._known = frozenset(self._models()).union(*adapters)
        return self._known

    def _find(self, name: str) -> Serving | None:
        pools = [
            pool
            for pool in self._fleet.pools.values()
            if pool.spec.role is Role.BOTH
            and (
                pool.spec.model == name
                or any(name in replica.adapters for replica in pool.replicas.values())
            )
        ]
        replicas = [replica for pool in pools for replica in pool.replicas.values()]
        adapter = "" if any(pool.spec.model == name for pool in pools) else name
        usable = _usable(replicas)
        holders = _usable(replica for replica in replicas if name in replica.adapters)
        if adapter and holders:
            usable = holders
        if not usable:
            return None
        return Serving(min((r.pool for r in usable), key=pools.index), usable, adapter)


def _context_tokens(replica: Replica) -> float:
    return inf if replica.max_context_tokens is None else replica.max_context_tokens


_BACKLOG, _IN_FLIGHT = attrgetter("backlog_tokens"), attrgetter("in_flight")


def lightest(replicas: list[Replica], number: int) -> list[Replica]:
    """So many of them with the least to do, the prefills first; of equals those that come first."""
    # Often enough of them have nothing to prefill, and then the others are not looked at.
    without_prefills = [replica for replica in replicas if not replica.backlog_tokens]
    if len(without_prefills) >= number:
        return sorted(without_prefills, key=_IN_FLIGHT)[:number]
    # Sorts are stable, and two by one number each take half as long as one by both.
    by_load = sorted(replicas, key=_IN_FLIGHT)
    by_load.sort(key=_BACKLOG)
    return by_load[:number]


def mask_of(replicas: Iterable[Replica]) -> int:
    """The indices of replicas as bits."""
    mask = 0
    for replica in replicas:
        mask |= 1 << replica.index
    return mask


def _usable(replicas: Iterable[Replica]) -> list[Replica]:
    everyone = sorted(replicas, key=lambda replica: replica.name)
    ready = [replica for replica in everyone if replica.state is ReplicaState.READY]
    if ready:
        return ready
    ejected = [replica for replica in everyone if replica.state is ReplicaState.EJECTED]
    return sorted(ejected, key=lambda replica: replica.probe_at_s or 0.0)[:1]


def _choose(alias: Alias, rng: Rng) -> tuple[str, ...]:
    """Every model behind an alias once, in the order to try."""
    targets = alias.targets
    first = targets[0].model
    if len(targets) > 1:
        left = rng.random() * sum(target.weight for target in targets)
        for target in targets:
            first = target.model
            left -= target.weight
            if left < 0.0:
                break
    others = [target.model for target in targets]
    return tuple(dict.fromkeys([first, *alias.fallbacks, *others]))
