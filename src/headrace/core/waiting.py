"""Requests at the gateway: who is refused, who is held, and who is sent when there is room.

    judge    ──► refuse: the wait is longer than the tier tolerates, or too many are held
             ──► hold: at the replica that is best for it, it would wait for too long, or have too
                 many targets of others missed
             ──► send
    release  ──► the first few of each queue are tried again: at a first token, at an end, when the
                 fleet or the configuration changes, as time goes by, and before one of a lower
                 priority is looked at that has just come

A held request is in one queue, that of the model it would be sent for. What becomes of it when it
is tried again is not said here: it is sent by the same way as one that has just arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from headrace.core import rejections
from headrace.core.admission import DEFAULT_TIER, AdmissionSettings, Tier
from headrace.core.candidates import Candidate
from headrace.core.crowding import crowded
from headrace.core.events import Effect
from headrace.core.flights import Flight
from headrace.core.held_queue import Held, Queue
from headrace.core.model import Pool, Replica, Request, Rng

if TYPE_CHECKING:
    from headrace.core.catalog import Catalog

PATIENCE_S: Final = 2.5
"""What a request waits at most for each target of others that it would have missed, beyond those
that are allowed."""
PATIENT_SHARE: Final = 0.5
"""Of its `ttl`: nobody waits for others until he is refused."""
LOOKED_AT: Final = 8
"""Held requests, from the first on, for which room is looked for at a time: the one that is first
may wait for a replica of its own choice, and must not hold up all the others."""
FEWEST_DECODED: Final = 2.0
"""Output tokens of a request that has a time per output token: embeddings have none."""
LOOK_S: Final = 0.25
"""While requests are held, what time alone has changed is looked at this often."""


class WaitingRoom:
    """The queues of held requests and the rules that fill and empty them.

    `held` counts what waits, by model; models for which nothing waits are not in it. `send` tries
    to send a request, by way of `judge`, and returns the effects. Whoever drives it looks again
    within `LOOK_S` while something is held.
    """

    __slots__ = (
        "_hold_above_missed",
        "_hold_above_s",
        "_model_of",
        "_queues",
        "_send",
        "_settings",
        "_tiers",
        "held",
    )

    def __init__(
        self,
        settings: AdmissionSettings,
        tiers: Sequence[Tier],
        send: Callable[[Flight, float], list[Effect]],
    ) -> None:
        self.held: dict[str, int] = {}
        self._queues: dict[str, Queue] = {}
        self._model_of: dict[str, str] = {}  # by request id
        self._send = send
        self.tune(settings, tiers)

    def tune(self, settings: AdmissionSettings, tiers: Sequence[Tier]) -> None:
        """Decide by these from now on; what is held keeps its place and its time."""
        self._settings = settings
        self._hold_above_s = settings.hold_above_s  # looked at with each request, as the next
        self._hold_above_missed = settings.hold_above_missed
        self._tiers = {DEFAULT_TIER: Tier()} | {tier.name: tier for tier in tiers}

    def tier(self, name: str) -> Tier:
        """The tier of this name, or else the default one."""
        return self._tiers.get(name) or self._tiers[DEFAULT_TIER]

    def reroute(self, names: Collection[str], catalog: Catalog, rng: Rng) -> None:
        """These aliases are other ones by now: what was asked for by them is sent as by the new
        ones. Who asked for a name that is gone was let in when it was not, and keeps his way.
        """
        for queue in self._queues.values() if names else ():
            for flight in queue.flights():
                if flight.model in names:
                    flight.route = catalog.resolve(flight.request, rng) or flight.route

    def judge(
        self,
        flight: Flight,
        model: str,
        there: Candidate,
        now: float,
        *,
        replica: Replica,
        replicas: int,
        holds: bool,
        sheds: bool = True,
    ) -> list[Effect] | None:
        """Refuse a request or hold it (then `flight.released_s` is None, and the effects are those
        on others), or say None: it is to be sent to this replica.

        `there` tells how the policy sees it, `replicas` how many serve the model, `holds` whether
        the policy has requests held, `sheds` whether it may be refused for its wait. Without
        predicted seconds there is nothing to go by.
        """
        if not there.in_seconds:
            return None
        slot_wait_s, prefill_s = there.slot_wait_s, there.prefill_s
        wait_s, hold_above_s = there.queue_s + slot_wait_s, self._hold_above_s
        if (
            not self._queues
            and wait_s <= hold_above_s
            and wait_s <= flight.ttft_target_s
            and there.others_missed <= self._hold_above_missed
        ):
            return None  # as with most: nobody waits, and nothing below would hold or refuse it
        held_for = self._model_of.get(flight.id)
        if held_for is None and sheds:
            refused = self._shed(flight, model, wait_s, prefill_s, replicas=replicas, now=now)
            if refused:
                return refused
        if not holds or not (
            self._is_harmful(flight, self._missed(flight, model, there, replica, now), now)
            # If only its streams make its steps so long, it has nothing else to do.
            or (wait_s > hold_above_s and (replica.prefilling or slot_wait_s))
        ):
            self._count(flight, model, prefill_s, now)
            return None
        return [] if held_for == model else self._hold(flight, model, prefill_s, now)

    def _count(self, flight: Flight, model: str, prefill_s: float, now: float) -> None:
        """It goes to a replica: who waits for this model is to get his share, too."""
        queue = self._queues.get(model)
        if queue is not None:
            queue.sent(flight.id, prefill_s, now)

    def overtakes(self, flight: Flight) -> bool:
        """Whether one of a higher priority waits for a model that this one may be sent for."""
        priority, queues = self.tier(flight.tier).priority, self._queues
        return any(model in queues and queues[model].has_above(priority) for model in flight.route)

    def _missed(
        self, flight: Flight, model: str, there: Candidate, replica: Replica, now: float
    ) -> float:
        """Targets of others that are missed there because of it.

        In an overload that lasts, also those that are lost without it: what one more request
        changes is little where all are too slow already, and so they would be for good.
        """
        missed, tpot_s, queue = there.others_missed, there.tpot_s, self._queues.get(model)
        if queue is None or there.output_tokens < FEWEST_DECODED:
            return missed
        usual_s = queue.tpot_target_s
        if flight.id not in self._model_of:
            # Its own target is not among those that it is judged by: a lax one would let itself in.
            queue.came(flight.tpot_target_s)
        if not queue.is_overdue:
            return missed
        tokens = there.hit_tokens + there.uncached_tokens + there.output_tokens
        too_slow = 0.0
        for each in replica.tpot_targets:
            # By the targets of those who are there: a lax one must not make strict ones late. Where
            # most who come are lax, a few strict ones must not keep them all waiting.
            target_s = max(each.target_s, usual_s)
            too_slow += (each.attempts / replica.in_flight) * crowded(
                replica, tpot_s=tpot_s, target_s=target_s, context_tokens=tokens, now=now
            )
        return max(missed, too_slow)

    def _is_harmful(self, flight: Flight, missed: float, now: float) -> bool:
        """Whether it would have so many targets of others missed that it is to wait, still."""
        most, waited_s = self._hold_above_missed, now - flight.arrived_s
        if most <= 0.0 or missed <= most + waited_s / PATIENCE_S:
            return False
        return waited_s < PATIENT_SHARE * self.tier(flight.tier).ttl_s

    def hold_for_replica(
        self, flight: Flight, pool: Pool, prompt_tokens: int, now: float, *, others_ready: bool
    ) -> list[Effect]:
        """No replica is ready, or none for this request (`others_ready`): hold it for the pool's
        next one, or refuse it if too many are held already, as `judge` does. One that is held for
        this model keeps its place.
        """
        model, profile = pool.spec.model, pool.latency.profile
        wait_s, effects = pool.spec.wait_for_replica_s, list[Effect]()
        if self._model_of.get(flight.id) != model:
            prefill_s = 0.0 if profile is None else profile.prefill_s(prompt_tokens)
            effects = self._hold(flight, model, prefill_s, now, wait_s)
        if not others_ready and model in self._queues:
            self._queues[model].nobody_is_ready(wait_s, now)
        return effects

    def model_of(self, request_id: str) -> str:
        """The model that a held request waits for; "" if it is not held."""
        return self._model_of.get(request_id, "")

    def requests(self, model: str) -> list[Request]:
        """What waits for a model now."""
        queue = self._queues.get(model)
        return [] if queue is None else [flight.request for flight in queue.flights()]

    def _shed(
        self,
        flight: Flight,
        model: str,
        wait_s: float,
        prefill_s: float,
        *,
        replicas: int,
        now: float,
    ) -> list[Effect]:
        """Refuse a request whose first token would come too late, behind what is held before it.

        One whose prompt alone takes so long would not fare better later: it is served.
        """
        tier = self.tier(flight.tier)
        factor = tier.shed_after_factor
        if not factor:
            return []
        queue = self._queues.get(model)
        if queue is not None:
            wait_s += queue.work_before_s(tier.priority) / replicas
        most_s, ttft_s = factor * flight.ttft_target_s, wait_s + prefill_s
        if ttft_s <= most_s or wait_s <= flight.ttft_target_s:
            return []
        return flight.refuse(rejections.too_long(flight.request, model, ttft_s, most_s), now)

    def release(self, now: float) -> list[Effect]:
        """Send what is held, as far as there is room, and refuse what nobody can serve any more."""
        effects: list[Effect] = []
        for model, queue in list(self._queues.items()):
            for held in queue.first(now, self._settings.starved_after_s, LOOKED_AT):
                flight = held.flight
                sent = len(flight.attempts)
                effects += self._send(flight, now)
                if len(flight.attempts) > sent or flight.released_s is not None:
                    self._remove(flight.id)
            for held, ttft_s in queue.hopeless(now, self._settings.starved_after_s):
                # Unless it was sent just now. Better told at once than after its `ttl`.
                if self._remove(held.flight.id) is not None:
                    request, most_s = held.flight.request, held.tolerated_s
                    reject = rejections.too_long(request, model, ttft_s, most_s)
                    effects += held.flight.refuse(reject, now)
        return effects

    def expire(self, now: float, absent_s: float) -> list[Effect]:
        """Refuse what has waited for too long, as of the `release` of now.

        Who waited for room may come again after his promised TTFT, as one who is refused at once;
        who waited for a replica after `absent_s`.
        """
        effects = list[Effect]()
        for model, queue in list(self._queues.items()):
            for held in queue.expired(now):
                flight = held.flight
                self._remove(flight.id)
                waited_s = now - flight.arrived_s
                absent = queue.lacks_replicas(now)
                again_s = absent_s if absent else self.tier(flight.tier).ttft_s
                reject = rejections.held_too_long(
                    flight.request, model, waited_s, absent=absent, retry_after_s=again_s
                )
                effects += flight.refuse(reject, now)
        return effects

    def leave(self, request_id: str, now: float) -> None:
        """The client of a request is gone; a no-op if it is not held."""
        held = self._remove(request_id)
        if held is not None:
            held.flight.released_s = now
            held.flight.land()

    def _hold(
        self, flight: Flight, model: str, prefill_s: float, now: float, least_ttl_s: float = 0.0
    ) -> list[Effect]:
        """Put it into the queue of this model, out of another one if its route has changed.

        Where too many are held, one of a lower priority is refused in its place.
        """
        tier, effects = self.tier(flight.tier), list[Effect]()
        if self._remove(flight.id) is None and len(self._model_of) >= self._settings.max_held:
            yielding = self._last_below(tier.priority)
            if yielding is None:
                reject = rejections.queue_full(flight.request, model, tier.ttft_s)
                return flight.refuse(reject, now)
            given_up = self._model_of[yielding.flight.id]
            self._remove(yielding.flight.id)
            promised_s = self.tier(yielding.flight.tier).ttft_s
            reject = rejections.queue_full(yielding.flight.request, given_up, promised_s)
            effects += yielding.flight.refuse(reject, now)
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = Queue(now)
        queue.add(Held(flight, tier, prefill_s, least_ttl_s))
        self._model_of[flight.id] = model
        self.held[model] = len(queue)
        return effects

    def _last_below(self, priority: int) -> Held | None:
        """Who is the first to make room for one of this priority, whatever model he waits for."""
        last = None
        for queue in self._queues.values():
            candidate = queue.last_below(priority if last is None else last.priority)
            last = candidate or last
        return last

    def _remove(self, request_id: str) -> Held | None:
        model = self._model_of.pop(request_id, None)
        if model is None:
            return None
        queue = self._queues[model]
        held = queue.remove(request_id)
        if queue:
            self.held[model] = len(queue)
        else:
            del self._queues[model], self.held[model]
        return held
