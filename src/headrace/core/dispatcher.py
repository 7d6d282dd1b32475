"""The request path: an event comes in, effects go out.

    Arrived ──► resolve the name ──► price the replicas ──► Dispatch
                     └─ unknown: Reject 404      └─ none ready: Reject 503
    Ended(unavailable, timed out) ──► Dispatch elsewhere, within limits, or Reject 502/503/504

A request is forgotten with the end of its last attempt; what is in flight lives in `_attempts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from headrace.core import attempts as books
from headrace.core import health, learning, rejections, routing
from headrace.core.admission import DEFAULT_TIER, AdmissionSettings, Held, Queue, Tier
from headrace.core.attempts import Attempt
from headrace.core.candidates import (
    HIT_TOKENS,
    PREFILL_S,
    QUEUE_S,
    REPLICA,
    SLOT_WAIT_S,
    Candidate,
    Policy,
    Row,
)
from headrace.core.catalog import Catalog, Serving
from headrace.core.decisions import MOST_CANDIDATES, Decisions
from headrace.core.events import (
    Arrived,
    ConfigChanged,
    Dispatch,
    Effect,
    Ended,
    Event,
    FirstToken,
    KvChanged,
    Left,
    Probe,
    Probed,
    Progress,
    Reject,
    ReplicaChanged,
    ReplicaGone,
    Scraped,
    Wake,
    WakeAt,
)
from headrace.core.flights import Flight
from headrace.core.health import EjectionSettings
from headrace.core.model import (
    Endpoint,
    Fleet,
    Outcome,
    PromptBlocks,
    Replica,
    ReplicaState,
    Rng,
)
from headrace.core.retries import (
    MOST_ERROR_ANSWERS,
    RetryBudget,
    RetrySettings,
    is_error_answer,
)
from headrace.core.roster import Roster

HELD_LOOKED_AT = 8
"""Held requests, from the first on, for which room is looked for at a time: the one that is first
may wait for a replica of its own choice, and must not hold up all the others."""
HELD_LOOK_S = 0.25
"""While requests are held, what time alone has changed is looked at this often."""
_NONE: tuple[str, ...] = ()
_RETRYABLE = frozenset((Outcome.UNAVAILABLE, Outcome.TIMED_OUT))


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """What the request path may be tuned in."""

    retry: RetrySettings = field(default_factory=RetrySettings)
    """When a failed attempt is tried again on another replica."""
    ejection: EjectionSettings = field(default_factory=EjectionSettings)
    """When a failing replica is taken out, and for how long."""
    attempt_expiry_s: float = 7200.0
    """An attempt of which no end was heard for this long is forgotten."""
    busy_s: float = 1.0
    """How long a replica is believed to be full after it answered 503."""
    retry_after_s: float = 2.0
    """What a client is told to wait when no replica is ready."""
    decisions: int = 10_000
    """Requests kept in the decision log."""
    learn_from_streams: int = 50
    """Streams from which a pool without a profile learns one."""
    tiers: tuple[Tier, ...] = (Tier(),)
    """What may be promised. A request that names none of them gets `default`."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    """How requests wait for a replica with room."""


class Dispatcher:
    """Routes requests: `handle` takes what happened and returns what to do about it.

    `fleet` is the state that routing sees, for reading only; `decisions` explains past choices.
    `blocks` says what the blocks of prompts are, for drivers that know more than bytes.
    The first event must be `ConfigChanged`; replicas come by `ReplicaChanged`.
    """

    def __init__(
        self, settings: DispatcherSettings, rng: Rng, blocks: PromptBlocks | None = None
    ) -> None:
        self.fleet = Fleet()
        self.decisions = Decisions(settings.decisions)
        self._queues: dict[str, Queue] = {}
        self.held: dict[str, int] = {}
        """Requests that wait for a replica with room, by model."""
        self._tiers = _by_name(settings.tiers)
        self._settings = settings
        self._rng = rng
        self._catalog = Catalog(self.fleet)
        self._roster = Roster(self.fleet, settings.learn_from_streams, blocks or PromptBlocks())
        self._index = self._roster.index
        self._budget = RetryBudget(settings.retry)
        self._attempts: dict[int, Attempt] = {}
        self._last_attempt = 0
        # Attempts that are not streamed, by the time at which their prefill should be done.
        self._silent: list[tuple[float, int]] = []
        self._wake_at_s: float | None = None
        self._handlers: dict[type[Event], Callable[[Any, float], list[Effect]]] = {
            Arrived: self._arrived,
            Left: self._left,
            FirstToken: self._first_token,
            Progress: self._progress,
            Ended: self._ended,
            Scraped: self._scraped,
            KvChanged: self._kv_changed,
            ReplicaChanged: self._replica_changed,
            ReplicaGone: self._replica_gone,
            Probed: self._probed,
            ConfigChanged: self._config_changed,
            Wake: self._wake,
        }

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` (seconds, never going back) and return its effects.

        Events of unknown or finished attempts and of unknown replicas are no-ops.

        Raises:
            ValueError: a `ConfigChanged` names an unknown policy.
        """
        return self._handlers[type(event)](event, now)

    # ------------------------------------------------------------------ requests

    def _arrived(self, event: Arrived, now: float) -> list[Effect]:
        request = event.request
        if self._silent:
            self._assume_first_tokens(now)
        self._budget.note_request(now)
        route = self._catalog.resolve(request, self._rng)
        tier = self._tiers.get(request.tier) or self._tiers[DEFAULT_TIER]
        flight = Flight(request, route, tier, now)
        self.decisions.note(flight)
        if not route and not request.replica:
            known = self._catalog.known_names()
            return _rejected(flight, rejections.unknown_model(request, known), now)
        effects = self._dispatch(flight, _NONE, now)
        return self._none_ready(flight, now) if effects is None else effects

    def _none_ready(self, flight: Flight, now: float) -> list[Effect]:
        reject = rejections.none_ready(flight.request, self._settings.retry_after_s)
        return _rejected(flight, reject, now)

    def _dispatch(self, flight: Flight, excluded: Sequence[str], now: float) -> list[Effect] | None:
        """Send the request to the best replica that is not excluded; None if none is left.

        One that was not tried yet may be held or shed instead.
        """
        for model in flight.route:
            serving = self._catalog.serving(model)
            if serving is not None and flight.request.replica:
                serving = serving.only(flight.request.replica)
            if serving is not None and excluded:
                serving = serving.without(excluded)
            if serving is not None:
                return self._send(flight, model, serving, now)
        return None

    def _send(self, flight: Flight, model: str, serving: Serving, now: float) -> list[Effect]:
        request, index = flight.request, self._index
        policy = self._roster.policies[serving.pool.spec.name]
        ask = routing.ask_of(request, serving.pool, serving.adapter)
        ask.ttft_target_s, ask.tpot_target_s = flight.ttft_target_s, flight.tpot_target_s
        if ask.prompt_tokens >= serving.shortest_context_tokens:
            serving = serving.fitting(routing.context_needed(request, ask))
        rows = routing.price(ask, serving, index, policy, rng=self._rng, now=now)
        considered = len(rows)
        if considered > MOST_CANDIDATES:
            rows = sorted(rows)[:MOST_CANDIDATES]
            best = rows[0]
        else:
            best = min(rows)
        if best[QUEUE_S] is not None and not flight.attempts:
            instead = self._judge(flight, model, serving, policy, best, now)
            if instead is not None:
                return instead
        replica = self.fleet.replicas[best[REPLICA]]
        policy.chosen(replica.name)
        lease = index.lease(replica.index, ask.marks, ask.hit_marks(replica.index))
        self._last_attempt = number = self._last_attempt + 1
        attempt = Attempt(
            number, flight, replica, lease, ask, best[HIT_TOKENS], model, policy, rows, considered
        )
        if best[SLOT_WAIT_S]:
            attempt.waits_for_slot = True
        books.begin(attempt, now)
        flight.attempts.append(attempt)
        self._attempts[number] = attempt
        if not request.streamed:
            self._presume_first_token(best, number, now)
        pool = replica.pool.spec.name
        effects: list[Effect] = [
            Dispatch(request.id, number, pool, replica.name, model, ask.prompt_tokens)
        ]
        if self._wake_at_s is None:
            effects += self._wake_by(now + self._settings.attempt_expiry_s)
        return effects

    # ------------------------------------------------------------------ admission

    def _judge(
        self,
        flight: Flight,
        model: str,
        serving: Serving,
        policy: Policy,
        best: Row,
        now: float,
    ) -> list[Effect] | None:
        """Shed a request, hold it, or say None: it is to be sent."""
        wait_s = (best[QUEUE_S] or 0.0) + (best[SLOT_WAIT_S] or 0.0)
        prefill_s = best[PREFILL_S] or 0.0
        tier = self._tiers.get(flight.tier) or self._tiers[DEFAULT_TIER]
        queue = self._queues.get(model)
        is_held = queue is not None and flight.id in queue
        if tier.shed_after_factor and not is_held:
            ahead_s = 0.0 if queue is None else queue.work_s / len(serving.replicas)
            most_s = tier.shed_after_factor * flight.ttft_target_s
            predicted_s = ahead_s + wait_s + prefill_s
            if predicted_s > most_s:
                reject = rejections.too_long(flight.request, predicted_s, most_s)
                return _rejected(flight, reject, now)
        if wait_s <= self._settings.admission.hold_above_s or not policy.holds:
            return None
        return [] if is_held else self._hold(flight, model, tier, prefill_s, now)

    def _hold(
        self, flight: Flight, model: str, tier: Tier, prefill_s: float, now: float
    ) -> list[Effect]:
        """Keep a request until a replica has room for it."""
        if sum(self.held.values()) >= self._settings.admission.max_held:
            return _rejected(flight, rejections.queue_full(flight.request, tier.ttft_s), now)
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = Queue()
        held = Held(flight, tier, prefill_s)
        queue.add(held)
        self.held[model] = len(queue)
        return self._wake_by(now + HELD_LOOK_S)

    def _release(self, now: float) -> list[Effect]:
        """Send what is held, as far as there is room."""
        effects = list[Effect]()
        for model, queue in list(self._queues.items()):
            starved_after_s = self._settings.admission.starved_after_s
            for held in queue.first(now, starved_after_s, HELD_LOOKED_AT):
                flight = held.flight
                sent = self._dispatch(flight, _NONE, now)
                if sent == []:
                    continue  # no room for this one
                queue.remove(flight.id)
                effects += self._none_ready(flight, now) if sent is None else sent
            self._count_held(model, queue)
        return effects

    def _count_held(self, model: str, queue: Queue) -> None:
        if queue:
            self.held[model] = len(queue)
        else:
            del self._queues[model], self.held[model]

    def _left(self, event: Left, now: float) -> list[Effect]:
        for model, queue in list(self._queues.items()):
            held = queue.remove(event.request_id)
            if held is not None:
                held.flight.released_s = now
                held.flight.land()
                self._count_held(model, queue)
        return []

    def _expire_held(self, now: float) -> list[Effect]:
        effects = list[Effect]()
        for model, queue in list(self._queues.items()):
            for held in queue.expired(now):
                queue.remove(held.flight.id)
                waited_s = now - held.flight.arrived_s
                effects += _rejected(
                    held.flight, rejections.held_too_long(held.flight.request, waited_s), now
                )
            self._count_held(model, queue)
        return effects

    # ------------------------------------------------------------------ attempts

    def _presume_first_token(self, row: Row, attempt: int, now: float) -> None:
        ttft_s = Candidate(*row).ttft_s if row[SLOT_WAIT_S] is not None else None
        if ttft_s is not None:
            heappush(self._silent, (now + ttft_s, attempt))

    def _first_token(self, event: FirstToken, now: float) -> list[Effect]:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None and attempt.first_token_s is None:
            self._leave_prefill(attempt, now)
            if attempt.flight.request.streamed:
                attempt.is_timed = True
                learning.learn_first_token(attempt, now)
        return self._release(now) if self._queues else []

    def _progress(self, event: Progress, now: float) -> list[Effect]:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            books.progress(attempt, event.output_tokens, now)
            self._index.grow(attempt.lease, attempt.private_blocks)
        return []

    def _ended(self, event: Ended, now: float) -> list[Effect]:
        attempt = self._attempts.pop(event.attempt, None)
        if attempt is None:
            return []
        flight, effects = attempt.flight, list[Effect]()
        attempt.ended, attempt.ended_s = event, now
        if event.outcome is Outcome.COMPLETED:
            self._complete(attempt, event, now)
            if len(flight.attempts) > 1:
                effects += self._convict(flight, now)
        else:
            self._close(attempt, now)
        attempt.let_go()
        if event.status == 503:
            attempt.replica.busy_until_s = now + self._settings.busy_s
        first = len(flight.attempts) == 1
        if health.note_end(attempt.replica, event, self._settings.ejection, now, first=first):
            effects += self._state_changed(attempt.replica)
        if event.outcome in _RETRYABLE and not attempt.is_timed:
            effects += self._retry(flight, event, now)
        if flight.attempts[-1] is attempt:
            flight.land()
        return effects + self._release(now) if self._queues else effects

    def _convict(self, flight: Flight, now: float) -> list[Effect]:
        """A request was served: those who answered it with an error before are at fault."""
        effects = list[Effect]()
        for attempt in flight.attempts:
            replica = self.fleet.replicas.get(attempt.replica.name)
            status = None if attempt.ended is None else attempt.ended.status
            if replica is None or status is None or status < 500 or status == 503:
                continue
            if health.note_failure(replica, self._settings.ejection, now):
                effects += self._state_changed(replica)
        return effects

    def _complete(self, attempt: Attempt, event: Ended, now: float) -> None:
        """Close an attempt whose answer came whole, and learn from it."""
        request, pool = attempt.flight.request, attempt.replica.pool
        timed = request.streamed
        if request.endpoint is Endpoint.EMBEDDINGS and attempt.first_token_s is None:
            # No token follows a prefill here: its end is the answer's.
            timed = True
            self._leave_prefill(attempt, now)
            learning.learn_first_token(attempt, now)
        elif attempt.first_token_s is None:
            # The answer is whole, so the prompt was read and is cached, whenever that was.
            self._index.arrived(attempt.lease, 0.0)
        self._close(attempt, now)
        was_hit = learning.was_hit(attempt, event, pool)
        if was_hit:
            self._index.confirm(attempt.lease)
        elif was_hit is False:
            self._index.forget_older_than(attempt.lease)
        if timed:
            learner = self._roster.learners.get(pool.spec.name)
            if pool.latency.profile is not None:
                learning.learn_decoding(attempt, event.counted_output_tokens, now)
            elif learner is not None:
                learning.learn_profile(learner, attempt, event, pool, now)
        learning.learn_lengths(request, event, pool)

    def _leave_prefill(self, attempt: Attempt, now: float) -> None:
        books.first_token(attempt, now)
        self._index.arrived(attempt.lease, 0.0)

    def _close(self, attempt: Attempt, now: float) -> None:
        books.end(attempt, now)
        self._index.release(attempt.lease)

    def _assume_first_tokens(self, now: float) -> None:
        """Answers that are not streamed hide when their prefill ended: take it as predicted."""
        silent = self._silent
        while silent and silent[0][0] <= now:
            attempt = self._attempts.get(heappop(silent)[1])
            if attempt is not None and attempt.first_token_s is None:
                self._leave_prefill(attempt, now)

    # ------------------------------------------------------------------ failures

    def _retry(self, flight: Flight, failure: Ended, now: float) -> list[Effect]:
        """Dispatch elsewhere, or give up and say why.

        A replica that dropped the connection may just have closed an idle one, so it gets the
        request once more when no other is left; one that answered that it is busy does not.
        """
        tried, settings = flight.tried, self._settings
        flight.error_answers += is_error_answer(failure)
        if len(tried) >= settings.retry.max_attempts:
            why = f"{len(tried)} attempts failed"
        elif flight.error_answers >= MOST_ERROR_ANSWERS:
            why = f"{flight.error_answers} replicas answered with an error"
        elif not self._budget.take(now, answered=failure.status is not None):
            why = "too many requests are being retried already"
        else:
            why = "no other replica is ready"
            effects = self._dispatch(flight, tried, now)
            if effects is None and failure.status is None:
                twice = [name for name in tried if tried.count(name) > 1]
                effects = self._dispatch(flight, twice, now)
            if effects is not None:
                return effects
        reject = rejections.gave_up(
            flight.request, failure, tried[-1], why, retry_after_s=settings.busy_s
        )
        return _rejected(flight, reject, now)

    def _probed(self, event: Probed, now: float) -> list[Effect]:
        replica = self.fleet.replicas.get(event.replica)
        if replica is None or not health.note_probe(
            replica, event.healthy, self._settings.ejection, now
        ):
            return []
        return self._state_changed(replica)

    def _state_changed(self, replica: Replica) -> list[Effect]:
        self._catalog.changed()
        return [] if replica.probe_at_s is None else self._wake_by(replica.probe_at_s)

    # ------------------------------------------------------------------ fleet

    def _config_changed(self, event: ConfigChanged, _now: float) -> list[Effect]:
        if event.settings is not None:
            self._tune(event.settings)
        self._roster.configure(event.pools, event.aliases)
        self._catalog.changed()
        return []

    def _tune(self, settings: DispatcherSettings) -> None:
        """Decide by these settings from now on; what has been counted and learned stays."""
        self._settings = settings
        self._tiers = _by_name(settings.tiers)
        self._budget.settings = settings.retry
        self._roster.learn_from_streams = settings.learn_from_streams
        self.decisions.resize(settings.decisions)

    def _replica_changed(self, event: ReplicaChanged, _now: float) -> list[Effect]:
        if self._roster.change(event):
            self._catalog.changed()
        return []

    def _replica_gone(self, event: ReplicaGone, _now: float) -> list[Effect]:
        if self._roster.remove(event.replica):
            self._catalog.changed()
        return []

    def _scraped(self, event: Scraped, now: float) -> list[Effect]:
        replica = self.fleet.replicas.get(event.replica)
        if replica is not None:
            self._roster.report(replica, event.report, now)
        return []

    def _kv_changed(self, event: KvChanged, _now: float) -> list[Effect]:
        replica = self.fleet.replicas.get(event.replica)
        if replica is not None:
            self._index.changed(replica.index, event.stored, event.removed)
        return []

    # ------------------------------------------------------------------ time

    def _wake(self, _event: Wake, now: float) -> list[Effect]:
        """Probe what is due, forget what never ended, and ask for the next wake."""
        effects, due = list[Effect](), list[float]()
        for replica in self.fleet.replicas.values():
            if replica.state is not ReplicaState.EJECTED or replica.probe_at_s is None:
                continue
            if replica.probe_at_s <= now:
                effects.append(Probe(replica.name))
                # Should the answer get lost, the probe is repeated.
                replica.probe_at_s = now + health.backoff_s(replica, self._settings.ejection)
            due.append(replica.probe_at_s)
        expiry_s = self._settings.attempt_expiry_s
        while self._attempts:
            # Attempts are in the order of their dispatch: the first is the oldest.
            attempt = next(iter(self._attempts.values()))
            if attempt.began_s + expiry_s > now:
                due.append(attempt.began_s + expiry_s)
                break
            del self._attempts[attempt.id]
            self._close(attempt, now)
            attempt.expired = True
            attempt.let_go()
            attempt.flight.land()
        if self._queues:
            effects += self._expire_held(now) + self._release(now)
            due += [now + HELD_LOOK_S for queue in self._queues.values() if queue]
        self._wake_at_s = None
        return effects + (self._wake_by(min(due)) if due else [])

    def _wake_by(self, at_s: float) -> list[Effect]:
        """Ask for a wake at this time, unless an earlier one is coming."""
        if self._wake_at_s is not None and self._wake_at_s <= at_s:
            return []
        self._wake_at_s = at_s
        return [WakeAt(at_s)]


def _by_name(tiers: Sequence[Tier]) -> dict[str, Tier]:
    """Tiers by their names; the default one is there in any case."""
    return {DEFAULT_TIER: Tier()} | {tier.name: tier for tier in tiers}


def _rejected(flight: Flight, reject: Reject, now: float) -> list[Effect]:
    flight.rejected = reject.message
    flight.released_s = now
    flight.land()
    return [reject]
