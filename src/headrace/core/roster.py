"""Who is in the fleet: pools as configured, replicas as they come, restart and go.

Every replica has an index, its bit in the prefix index. Indices are reused, the smallest first,
so that bit masks stay short.
"""

from __future__ import annotations

from heapq import heappop, heappush

from headrace.core.candidates import Policy
from headrace.core.events import ReplicaChanged
from headrace.core.kv_event_index import Index, KvEventIndex
from headrace.core.latency import PoolLatency, ReplicaLatency
from headrace.core.model import (
    PROMPT_BLOCK_BYTES,
    EngineReport,
    Fleet,
    Pool,
    PromptBlocks,
    Replica,
    ReplicaState,
)
from headrace.core.policies import make_policy
from headrace.core.prefix_index import DEFAULT_KV_CAPACITY_TOKENS, FINE_BLOCKS, PrefixIndex
from headrace.core.profile_fit import ProfileLearner
from headrace.core.prompt_marks import EVERY_BLOCK
from headrace.core.sequence_limit import UNPROVEN_PLACES, SequenceLimit
from headrace.core.specs import Alias, PoolSpec


class Roster:
    """Keeps the fleet, the prefix index and what each pool needs in step."""

    def __init__(self, fleet: Fleet, learn_from_streams: int, blocks: PromptBlocks) -> None:
        self.fleet = fleet
        self.index: Index = _index_of(blocks)
        self._block_tokens = blocks.tokens
        self.policies: dict[str, Policy] = {}
        """By pool name."""
        self.learners: dict[str, ProfileLearner] = {}
        """By pool name; only of pools without a profile."""
        self.learn_from_streams = learn_from_streams
        """For pools that come from now on."""
        self._limits: dict[str, SequenceLimit] = {}  # by replica name
        self._free_indices: list[int] = []  # a heap of those that were in use

    def configure(self, pools: tuple[PoolSpec, ...], aliases: tuple[Alias, ...]) -> frozenset[str]:
        """Make the pools and aliases these; the names of the aliases that are other ones by that.

        A pool keeps its replicas while its name, model and role stay, and what it has learned while
        its profile stays, too.

        Raises:
            ValueError: a pool names an unknown policy, or one with wrong parameters.
        """
        for spec in pools:
            try:
                make_policy(spec.policy)
            except ValueError as error:
                raise ValueError(f"pool {spec.name!r}: {error}") from None
        before = dict(self.fleet.pools)
        self.fleet.pools.clear()
        for spec in pools:
            old = before.pop(spec.name, None)
            if old is not None and (old.spec.model, old.spec.role) != (spec.model, spec.role):
                self._dissolve(old)
                old = None
            self.fleet.pools[spec.name] = self._pool(spec, old)
        for gone in before.values():
            self._dissolve(gone)
        known, new = dict(self.fleet.aliases), {alias.name: alias for alias in aliases}
        self.fleet.aliases.clear()
        self.fleet.aliases.update(new)
        return frozenset(name for name in known | new if known.get(name) != new.get(name))

    def change(self, event: ReplicaChanged) -> bool:
        """Take a replica in, or note what changed about it; whether there is such a pool.

        A replica that comes back, or comes under another address, was restarted: its cache is
        empty and nothing of what was learned about its speed holds.
        """
        pool = self.fleet.pools.get(event.pool)
        if pool is None:
            return False
        replica = self.fleet.replicas.get(event.replica)
        if replica is not None and replica.pool is not pool:
            self.remove(replica.name)
            replica = None
        if replica is None:
            replica = self._admit(event, pool)
        elif event.url != replica.url or (event.ready and replica.state is ReplicaState.STARTING):
            self._restart(replica)
        replica.url = event.url
        replica.adapters = event.adapters
        replica.max_context_tokens = event.max_context_tokens
        if event.doubted != replica.doubted:
            replica.doubted, replica.vouched = event.doubted, False
        if event.draining:
            replica.state = ReplicaState.DRAINING
        elif not event.ready:
            replica.state = ReplicaState.STARTING
        elif replica.state is not ReplicaState.EJECTED:
            replica.state = ReplicaState.READY
        if event.draining or not event.ready:  # who watches it tells what becomes of it
            replica.suspect, replica.probe_at_s = False, None
        return True

    def remove(self, name: str) -> bool:
        """Forget a replica; whether it was known. Its attempts in flight still hold it."""
        replica = self.fleet.replicas.pop(name, None)
        if replica is None:
            return False
        del replica.pool.replicas[name]
        if self._limits.pop(name).learned is not None:
            self._agree(replica.pool)
        replica.state = ReplicaState.DRAINING
        self.index.remove_replica(replica.index)
        heappush(self._free_indices, replica.index)
        for policy in self.policies.values():
            # Any of them may know it: one pool's policy chooses among all that serve a model.
            policy.left(name)
        return True

    def report(self, replica: Replica, report: EngineReport, now: float) -> None:
        """Take what a scrape said; the KV capacity goes to the prefix index. What the engine tells
        counts more than what is learned of it.
        """
        replica.report = report
        replica.scraped_s = now
        limit = self._limits[replica.name]
        before = limit.learned
        limit.observe(report, replica)
        if limit.learned != before:
            self._agree(replica.pool)
        self._count_places(replica)
        self.index.set_capacity(replica.index, _capacity_blocks(replica))

    def _count_places(self, replica: Replica) -> None:
        """What is known of how many sequences run there, and how many are sent there at once."""
        told, limit = replica.report.max_sequences, self._limits[replica.name]
        known = limit.or_else(replica.pool.max_sequences) if told is None else told
        replica.max_sequences = replica.places = known
        if known is not None and told is None and limit.learned is None:
            replica.places = known + UNPROVEN_PLACES

    def _agree(self, pool: Pool) -> None:
        """What one replica of a pool has shown goes for all of them, unless another has shown
        something else.
        """
        learned = {self._limits[name].learned for name in pool.replicas} - {None}
        pool.max_sequences = learned.pop() if len(learned) == 1 else None

    def _pool(self, spec: PoolSpec, old: Pool | None) -> Pool:
        if old is None or old.spec.policy != spec.policy:
            self.policies[spec.name] = make_policy(spec.policy)
        if old is not None and old.spec.profile == spec.profile:
            old.spec = spec
            return old
        latency = PoolLatency(spec.profile)
        self.learners.pop(spec.name, None)
        if spec.profile is None:
            learner = ProfileLearner(spec.name, self.learn_from_streams)
            self.learners[spec.name] = learner
            latency.learning = learner.progress
        if old is None:
            return Pool(spec, latency, block_tokens=self._block_tokens)
        old.spec, old.latency = spec, latency
        for replica in old.replicas.values():
            replica.latency = ReplicaLatency(latency)
        return old

    def _dissolve(self, pool: Pool) -> None:
        for name in list(pool.replicas):
            self.remove(name)
        if pool.spec.name not in self.fleet.pools:
            self.policies.pop(pool.spec.name, None)
            self.learners.pop(pool.spec.name, None)

    def _admit(self, event: ReplicaChanged, pool: Pool) -> Replica:
        free = self._free_indices
        index = heappop(free) if free else len(self.fleet.replicas)
        latency = ReplicaLatency(pool.latency)
        replica = Replica(event.replica, pool, event.url, index, latency)
        self.fleet.replicas[replica.name] = replica
        self._limits[replica.name] = SequenceLimit()
        self._count_places(replica)
        pool.replicas[replica.name] = replica
        self.index.add_replica(index, _capacity_blocks(replica))
        return replica

    def _restart(self, replica: Replica) -> None:
        replica.latency = ReplicaLatency(replica.pool.latency)
        before, self._limits[replica.name] = self._limits[replica.name], SequenceLimit()
        if before.learned is not None:
            self._agree(replica.pool)
        self._count_places(replica)
        replica.state = ReplicaState.STARTING
        replica.consecutive_failures = replica.ejections = 0
        replica.blamed_by = ""
        replica.suspect = False
        replica.probe_at_s = None
        replica.busy_until_s = 0.0
        self.index.add_replica(replica.index, _capacity_blocks(replica))


def _index_of(blocks: PromptBlocks) -> Index:
    if blocks.kv_events:
        return KvEventIndex()
    # Blocks of a known size are an engine's or a trace's, longer than ours: all are kept.
    return PrefixIndex(FINE_BLOCKS if blocks.tokens is None else EVERY_BLOCK)


def _capacity_blocks(replica: Replica) -> float:
    """The KV cache of a replica in blocks of prompt, by the pool's bytes per token."""
    tokens = replica.report.kv_capacity_tokens or DEFAULT_KV_CAPACITY_TOKENS
    if replica.pool.block_tokens is not None:
        return tokens / replica.pool.block_tokens
    return tokens * replica.pool.bytes_per_token / PROMPT_BLOCK_BYTES
