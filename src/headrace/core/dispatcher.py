"""The request path: an event comes in, effects go out.

    Arrived ──► resolve the name ──► price the replicas ──► Dispatch, or hold or shed (waiting.py)
                     └─ unknown: Reject 404      └─ none ready: hold, or Reject 503
    Ended(unavailable, timed out) ──► Dispatch elsewhere, within limits, or Reject 502/503/504
                     └─ nobody else, and its pool waits: hold

A request is forgotten with the end of its last attempt; what is in flight lives in `_attempts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from headrace.core import attempts as books
from headrace.core import health, learning, rejections, routing
from headrace.core.attempts import Attempt
from headrace.core.candidates import RANK, cheapest
from headrace.core.catalog import ALL_FULL, Catalog, Serving
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
    ReplicaChanged,
    ReplicaGone,
    Scraped,
    Wake,
)
from headrace.core.flights import Flight
from headrace.core.model import (
    Endpoint,
    Fleet,
    Outcome,
    Pool,
    PromptBlocks,
    Replica,
    ReplicaState,
    Request,
    Rng,
)
from headrace.core.retries import (
    FULL,
    MOST_ERROR_ANSWERS,
    RetryBudget,
    is_error_answer,
    is_misplaced,
)
from headrace.core.roster import Roster
from headrace.core.settings import DispatcherSettings
from headrace.core.silent_prefills import SilentPrefills
from headrace.core.waiting import LOOK_S, WaitingRoom
from headrace.core.wakes import Wakes

_NONE: Final[tuple[str, ...]] = ()
_COMPLETED: Final = Outcome.COMPLETED
_ABORTED: Final = Outcome.ABORTED
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
_OTHER: Final = Endpoint.OTHER
_READY: Final = ReplicaState.READY
_RETRYABLE: Final = frozenset((Outcome.UNAVAILABLE, Outcome.TIMED_OUT))
_MAKES_ROOM: Final = frozenset(
    (FirstToken, Ended, ReplicaChanged, ReplicaGone, Probed, ConfigChanged),
)
"""After these a held request may be sent, or has nobody left that could serve it."""


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
        self._waiting = WaitingRoom(settings.admission, settings.tiers, self._try)
        self.held = self._waiting.held
        """Requests that wait for a replica with room, by model."""
        self._settings = settings
        self._rng = rng
        self._catalog = Catalog(self.fleet)
        self._roster = Roster(self.fleet, settings.learn_from_streams, blocks or PromptBlocks())
        self._index = self._roster.index
        self._budget = RetryBudget(settings.retry)
        self._attempts: dict[int, Attempt] = {}
        self._last_attempt = 0
        self._full_until_s = 0.0  # no replica is believed to be full for longer
        self._silent = SilentPrefills()
        self._wakes = Wakes()
        self._handlers: dict[type[Event], Callable[[Any, float], list[Effect]]] = {
            Left: self._left,
            FirstToken: self._first_token,
            Progress: self._progress,
            Scraped: self._scraped,
            KvChanged: self._kv_changed,
            ReplicaChanged: self._replica_changed,
            ReplicaGone: self._replica_gone,
            Probed: self._probed,
            ConfigChanged: self._config_changed,
            Wake: self._wake,
        }

    def first_pool(self, model: str) -> Pool | None:
        """The first configured pool of a model; what is held for the model counts as its."""
        return self._catalog.first_pool((model,))

    def held_requests(self, model: str) -> list[Request]:
        """What waits for a model now."""
        return self._waiting.requests(model)

    def held_for(self, request_id: str) -> str:
        """The model that a held request waits for; "" if it is not held."""
        return self._waiting.model_of(request_id)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` (seconds, never going back) and return its effects.

        Events of unknown or finished attempts and of unknown replicas are no-ops.

        Raises:
            ValueError: a `ConfigChanged` names an unknown policy.
        """
        # The two that each request has, without a look into the table.
        if isinstance(event, Arrived):
            effects = self._arrived(event, now)
        elif isinstance(event, Ended):
            effects = self._ended(event, now)
        else:
            effects = self._handlers[type(event)](event, now)
        if self.held and type(event) in _MAKES_ROOM:
            effects = effects + self._release(now)
        return effects

    # ------------------------------------------------------------------ requests

    def _arrived(self, event: Arrived, now: float) -> list[Effect]:
        request = event.request
        if self._silent:
            self._assume_first_tokens(now)
        self._budget.note_request(now)
        route = self._catalog.resolve(request, self._rng)
        flight = Flight(request, route, self._waiting.tier(request.tier), now)
        self.decisions.note(flight)
        if not route and not request.replica:
            known = self._catalog.known_names()
            return flight.refuse(rejections.unknown_model(request, known), now)
        if self.held and self._waiting.overtakes(flight):
            # What room there is by now is theirs first who wait and are above it.
            return self._release(now) + self._try(flight, now)
        return self._try(flight, now)

    def _left(self, event: Left, now: float) -> list[Effect]:
        self._waiting.leave(event.request_id, now)
        return []

    def _try(self, flight: Flight, now: float) -> list[Effect]:
        """Send a request that no replica has, hold it, or refuse it."""
        effects = self._dispatch(flight, self._lost(flight) if flight.attempts else _NONE, now)
        return self._without_replica(flight, now) if effects is None else effects

    def _without_replica(self, flight: Flight, now: float) -> list[Effect]:
        """Nobody is ready: hold it until somebody is, where its pool waits for that, or refuse."""
        request = flight.request
        pool = None if request.replica else self._catalog.first_pool(flight.route)
        if pool is not None and pool.spec.wait_for_replica_s > 0.0:
            ask = routing.ask_of(request, pool, "")
            self._count(flight, pool, ask.prompt_tokens, 0)
            ready = self._is_anybody_ready(flight.route, _NONE)
            held = self._waiting.hold_for_replica(
                flight, pool, ask.prompt_tokens, now, others_ready=ready
            )
            if flight.released_s is not None:
                return held
            return held + self._wakes.by(now + LOOK_S)
        if pool is not None and flight.counted is None:
            pool.demand.shed_requests += 1
        reject = rejections.none_ready(request, self._settings.retry_after_s)
        return flight.refuse(reject, now)

    def _count(self, flight: Flight, pool: Pool, prompt_tokens: int, hit_tokens: int) -> None:
        """Add a request to the demand on a pool, once."""
        if flight.counted is None:
            flight.counted, flight.counted_tokens = pool.demand, prompt_tokens
            pool.demand.arrived(prompt_tokens, hit_tokens)

    def _release(self, now: float) -> list[Effect]:
        """Send what is held, as far as there is room."""
        if self._silent:
            self._assume_first_tokens(now)
        return self._waiting.release(now)

    def _dispatch(self, flight: Flight, excluded: Sequence[str], now: float) -> list[Effect] | None:
        """Send the request to the best replica that is not excluded; None if none is left.

        One that was not tried yet may be held or shed instead. A fall-back with room is better than
        full or ejected replicas of what was asked for.
        """
        second: tuple[int, str, Serving] | None = None
        for model in flight.route:
            serving = self._catalog.serving(model)
            if serving is not None and flight.request.replica:
                serving = serving.only(flight.request.replica)
            if serving is not None and excluded:
                serving = serving.without(excluded)
            if serving is None:
                continue
            reluctance = serving.reluctance(now)
            if not reluctance:
                # What is full has room again in a moment: nobody is refused for a fall-back's wait.
                sheds = second is None or second[0] != ALL_FULL
                return self._send(flight, model, serving, now, sheds=sheds)
            if second is None or reluctance < second[0]:
                second = (reluctance, model, serving)
        return second and self._send(flight, *second[1:], now)

    def _send(
        self, flight: Flight, model: str, serving: Serving, now: float, *, sheds: bool = True
    ) -> list[Effect]:
        request, index = flight.request, self._index
        policy = self._roster.policies[serving.pool.spec.name]
        ask = routing.ask_of(request, serving.pool, serving.adapter)
        ask.ttft_target_s, ask.tpot_target_s = flight.ttft_target_s, flight.tpot_target_s
        if ask.prompt_tokens >= serving.shortest_context_tokens:
            serving = serving.fitting(routing.context_needed(request, ask))
        priced = routing.price(
            ask, serving, index, policy, rng=self._rng, now=now, any_full=now < self._full_until_s
        )
        considered = len(priced)
        if considered > MOST_CANDIDATES:
            priced = sorted(priced, key=RANK)[:MOST_CANDIDATES]
            best = priced[0]
        else:
            best = cheapest(priced)
        replica = self.fleet.replicas[best.replica]
        if best.in_seconds and (not flight.attempts or self._waiting.model_of(flight.id)):
            instead = self._waiting.judge(
                flight,
                model,
                best,
                now,
                replica=replica,
                replicas=len(serving.replicas),
                holds=policy.holds,
                sheds=sheds or not policy.holds,
            )
            if instead is not None:
                if flight.released_s is not None:
                    serving.pool.demand.shed_requests += flight.counted is None
                    return instead
                self._count(flight, replica.pool, ask.prompt_tokens, best.hit_tokens)
                return instead + self._wakes.by(now + LOOK_S)
        self._count(flight, replica.pool, ask.prompt_tokens, best.hit_tokens)
        policy.chosen(replica.name)
        lease = index.lease(replica.index, ask.marks)
        self._last_attempt = number = self._last_attempt + 1
        attempt = Attempt(
            number, flight, replica, lease, ask, best.hit_tokens, model, policy, priced, considered
        )
        if best.slot_wait_s:
            attempt.waits_for_slot = True
        ttft_s = best.ttft_s
        books.begin(attempt, now, ttft_s)
        flight.attempts.append(attempt)
        self._attempts[number] = attempt
        if not request.streamed and best.in_seconds:
            self._silent.expect(now + ttft_s, number)
        pool = replica.pool.spec.name
        effects: list[Effect] = [
            Dispatch(request.id, number, pool, replica.name, model, ask.prompt_tokens)
        ]
        if not self._wakes:
            effects += self._wakes.by(now + self._settings.attempt_expiry_s)
        return effects

    # ------------------------------------------------------------------ attempts

    def _first_token(self, event: FirstToken, now: float) -> list[Effect]:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None and attempt.first_token_s is None:
            self._leave_prefill(attempt, now)
            if attempt.flight.request.streamed:
                if attempt.replica.suspect:
                    health.note_heard(attempt.replica)
                attempt.is_timed = True
                learning.learn_first_token(attempt, now)
        return []

    def _progress(self, event: Progress, now: float) -> list[Effect]:
        attempt = self._attempts.get(event.attempt)
        if attempt is not None:
            before = attempt.output_tokens
            books.progress(attempt, event.output_tokens, now)
            attempt.replica.pool.demand.output_tokens += attempt.output_tokens - before
            self._index.grow(attempt.lease, attempt.private_blocks)
        return []

    def _ended(self, event: Ended, now: float) -> list[Effect]:
        attempt = self._attempts.get(event.attempt)
        if attempt is None:
            return []
        del self._attempts[event.attempt]
        flight, outcome = attempt.flight, event.outcome
        effects: list[Effect] = []
        attempt.ended, attempt.ended_s = event, now
        demand, output_tokens = attempt.replica.pool.demand, event.counted_output_tokens
        more = output_tokens - attempt.output_tokens
        demand.output_tokens += more if more > 0 else 0
        if outcome is _COMPLETED:
            self._complete(attempt, event, now)
            if len(flight.attempts) > 1:
                effects += self._convict(flight, now)
        else:
            self._close(attempt, now)
        attempt.let_go()
        if event.status in FULL:
            full_until_s = attempt.replica.busy_until_s = now + self._settings.busy_s
            self._full_until_s = max(self._full_until_s, full_until_s)
        first = len(flight.attempts) == 1
        generates = flight.request.endpoint is not _OTHER
        ejection = self._settings.ejection
        if health.note_end(attempt.replica, event, ejection, now, first=first, generates=generates):
            effects += self._state_changed(attempt.replica)
        if outcome in _RETRYABLE and not attempt.is_timed:
            effects += self._retry(flight, event, now)
        if flight.attempts[-1] is attempt and not (self.held and self._waiting.model_of(flight.id)):
            if outcome is _COMPLETED or outcome is _ABORTED:
                demand.served(attempt, event, flight, output_tokens, now)
            else:
                demand.not_served(outcome)
                if outcome is Outcome.REFUSED and flight.counted is not None:
                    # Another pool may have counted it, whose replicas failed it before.
                    flight.counted.refused(flight.counted_tokens)
            flight.land()
        return effects

    def _convict(self, flight: Flight, now: float) -> list[Effect]:
        """A request was served: those who answered it otherwise before, be it with a 401 to our key
        or a 404 for a model that is not theirs, are at fault, but for those that were full. Who
        lost an adapter serves its own model yet; the next look at its models tells of it. A sibling
        of who served it is convicted; of another pool, it is blamed.
        """
        effects = list[Effect]()
        served_by, caller = flight.attempts[-1].replica.pool, flight.request.caller
        ejection = self._settings.ejection
        for attempt in flight.attempts[:-1]:
            replica = self.fleet.replicas.get(attempt.replica.name)
            status = None if attempt.ended is None else attempt.ended.status
            if replica is None or status is None or status in FULL:
                continue
            if status == 404 and attempt.model != replica.pool.spec.model:
                continue
            if replica.pool is served_by:
                changed = health.note_failure(replica, ejection, now)
            else:
                in_flight = self._attempts.values()
                changed = health.note_blame(replica, caller, in_flight, ejection, now)
            if changed:
                effects += self._state_changed(replica)
        return effects

    def _complete(self, attempt: Attempt, event: Ended, now: float) -> None:
        """Close an attempt whose answer came whole, and learn from it."""
        request, pool = attempt.flight.request, attempt.replica.pool
        timed = request.streamed
        if request.endpoint is _EMBEDDINGS and attempt.first_token_s is None:
            # No token follows a prefill here: its end is the answer's.
            timed = True
            self._leave_prefill(attempt, now)
            learning.learn_first_token(attempt, now)
        elif attempt.first_token_s is None:
            # The answer is whole, so the prompt was read and is cached, whenever that was.
            self._index.arrived(attempt.lease, 0.0)
            learning.learn_at_most(attempt, now)
        self._close(attempt, now)
        was_hit = learning.was_hit(attempt, event, pool)
        if was_hit:
            self._index.confirm(attempt.lease)
        elif was_hit is False:
            self._index.forget_older_than(attempt.lease)
        if timed:
            learning.learn_decoding(attempt, event.counted_output_tokens, now)
            learner = self._roster.learners.get(pool.spec.name)
            if learner is not None and pool.latency.learns:
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
        while (number := self._silent.next_done(now)) is not None:
            attempt = self._attempts.get(number)
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
            why = f"{len(tried)} attempt{'s' if len(tried) > 1 else ''} failed"
        elif flight.error_answers >= MOST_ERROR_ANSWERS:
            why = f"{flight.error_answers} replicas answered with an error"
        elif not self._budget.take(now, answered=failure.status is not None):
            why = "too many requests are being retried already"
        else:
            why = "no other replica is ready"
            if is_misplaced(failure) and 1 < len(tried) == settings.retry.max_attempts - 1:
                # A sibling was asked. The last attempt goes to another model of the alias, if any.
                asked = [attempt.model for attempt in flight.attempts]
                flight.route = tuple(sorted(flight.route, key=asked.__contains__))
            effects = self._dispatch(flight, tried, now)
            if effects is None and failure.status is None:
                twice = [name for name in tried if tried.count(name) > 1]
                effects = self._dispatch(flight, twice, now)
            if effects is not None:
                return effects
        ends = [each.ended for each in flight.attempts if each.ended is not None]
        reached = sum(end.reached for end in ends)  # whoever was gone says nothing of the request
        if reached < settings.retry.max_attempts and flight.error_answers < MOST_ERROR_ANSWERS:
            held = self._hold_again(flight, failure, now)
            if held is not None:
                return held
        wait_s = rejections.soonest_s(ends, settings.busy_s)
        reject = rejections.gave_up(flight.request, failure, tried[-1], why, retry_after_s=wait_s)
        return flight.refuse(reject, now)

    def _hold_again(self, flight: Flight, failure: Ended, now: float) -> list[Effect] | None:
        """Hold a request whose replica failed it until there is one, where its pool waits for that;
        None where it does not, another is left to try, or who failed it speaks for itself.

        Whether one that gave no answer is still there nobody knows yet: it is asked, and the
        request goes to it again only once it is well.
        """
        pool = None if flight.request.replica else self._catalog.first_pool(flight.route)
        if pool is None or pool.spec.wait_for_replica_s <= 0.0:
            return None
        ttl_s = self._waiting.tier(flight.tier).ttl_s
        if now - flight.arrived_s >= max(pool.spec.wait_for_replica_s, ttl_s):
            return None  # it would be told that it has waited for room, and not what failed it
        tries_left = len(flight.tried) < self._settings.retry.max_attempts
        if tries_left and self._is_anybody_ready(flight.route, flight.tried):
            return None
        asked = [replica for replica in self._tried(flight) if replica.state is _READY]
        if asked and failure.status is not None:
            return None
        ejection, effects = self._settings.ejection, list[Effect]()
        for replica in asked:
            if health.suspect(replica, ejection, now):
                effects.append(Probe(replica.name))
        return effects + self._without_replica(flight, now)

    def _is_anybody_ready(self, route: Sequence[str], excluded: Sequence[str]) -> bool:
        """Whether a replica that is not excluded could be sent a request of this route."""
        for model in route:
            serving = self._catalog.serving(model)
            left = serving and serving.without(excluded)
            if left is not None and left.replicas[0].state is _READY:
                return True
        return False

    def _tried(self, flight: Flight) -> list[Replica]:
        """The replicas that failed a request, those that are still in the fleet."""
        there = self.fleet.replicas
        tried = {attempt.replica.name: attempt.replica for attempt in flight.attempts}
        return [replica for name, replica in tried.items() if there.get(name) is replica]

    def _lost(self, flight: Flight) -> list[str]:
        """Those of them of which nobody has heard that they are well again."""
        return [
            replica.name
            for replica in self._tried(flight)
            if replica.suspect or replica.state is not _READY
        ]

    def _probed(self, event: Probed, now: float) -> list[Effect]:
        replica = self.fleet.replicas.get(event.replica)
        ejection = self._settings.ejection
        if replica is None or not health.note_probe(replica, event.healthy, ejection, now):
            return []
        return self._state_changed(replica)

    def _state_changed(self, replica: Replica) -> list[Effect]:
        self._catalog.changed()
        return [] if replica.probe_at_s is None else self._wakes.by(replica.probe_at_s)

    # ------------------------------------------------------------------ fleet

    def _config_changed(self, event: ConfigChanged, _now: float) -> list[Effect]:
        if event.settings is not None:
            self._tune(event.settings)
        renamed = self._roster.configure(event.pools, event.aliases)
        self._catalog.changed()
        self._waiting.reroute(renamed, self._catalog, self._rng)
        return []

    def _tune(self, settings: DispatcherSettings) -> None:
        """Decide by these settings from now on; what has been counted and learned stays."""
        self._settings = settings
        self._waiting.tune(settings.admission, settings.tiers)
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
        """Do what is due by time alone, and ask for the next wake."""
        self._wakes.passed(now)
        due = list[float]()
        effects = self._probe(due, now)
        self._forget_attempts(due, now)
        if self.held:
            # In this order: whether somebody has waited for too long depends on who is there.
            effects += self._release(now) + self._waiting.expire(now, self._settings.retry_after_s)
        if self.held:
            due.append(now + LOOK_S)
        return effects + (self._wakes.by(min(due)) if due else [])

    def _probe(self, due: list[float], now: float) -> list[Effect]:
        """Probe who is ejected or suspect and due; `due` gets the times of the next probes."""
        effects = list[Effect]()
        for replica in self.fleet.replicas.values():
            if replica.probe_at_s is None:
                continue
            if replica.probe_at_s <= now:
                effects.append(Probe(replica.name))
                # Should the answer get lost, the probe is repeated.
                replica.probe_at_s = now + health.backoff_s(replica, self._settings.ejection)
            due.append(replica.probe_at_s)
        return effects

    def _forget_attempts(self, due: list[float], now: float) -> None:
        """Forget attempts that never ended; `due` gets the time when the next one is so old."""
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
