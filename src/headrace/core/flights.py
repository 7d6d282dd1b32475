"""One request on its way, and what the decision log keeps of it afterwards.

The log keeps the very objects that the hot path works with; when a request has landed they only let
go of what is large (its blocks, its hold on a cache).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from headrace.core.admission import Tier
from headrace.core.attempts import Attempt
from headrace.core.events import Effect, Reject
from headrace.core.model import Endpoint, Request
from headrace.core.pool_demand import PoolDemand

LANDED: Final = Request("", "", Endpoint.OTHER, streamed=False)
"""Stands for the request of a flight that is over."""


class Flight:
    """A request, the models that may answer it, in the order to try, and its attempts so far.

    `tier` is what it was promised with, `ttft_target_s` and `tpot_target_s` the targets that hold
    for it: its own where it brought some. `released_s` is when a request that never was sent
    stopped waiting: refused, or left by its client.
    `counted` is the demand that has it in its sums, with `counted_tokens` of prompt; None where
    none has.
    `error_answers` counts the replicas that answered with an error of their own. `rejected` is the
    message of the error that Headrace answered with, if it did.
    """

    __slots__ = (
        "arrived_s",
        "attempts",
        "client_id",
        "counted",
        "counted_tokens",
        "error_answers",
        "id",
        "model",
        "rejected",
        "released_s",
        "request",
        "route",
        "tier",
        "tpot_target_s",
        "ttft_target_s",
    )

    def __init__(self, request: Request, route: tuple[str, ...], tier: Tier, now: float) -> None:
        self.id = request.id
        self.client_id = request.client_id
        self.model = request.model
        self.arrived_s = now
        self.request = request
        self.route = route
        self.attempts: list[Attempt] = []
        self.tier = tier.name
        own_s = request.ttft_target_s
        self.ttft_target_s = tier.ttft_s if own_s is None else own_s
        own_s = request.tpot_target_s
        self.tpot_target_s = tier.tpot_s if own_s is None else own_s
        self.released_s: float | None = None
        self.error_answers = 0
        self.counted: PoolDemand | None = None
        self.counted_tokens = 0
        self.rejected = ""

    @property
    def tried(self) -> list[str]:
        """The replicas it was sent to, in order."""
        return [attempt.replica.name for attempt in self.attempts]

    def refuse(self, reject: Reject, now: float) -> list[Effect]:
        """It is over, and this is the answer. Where that names no model, it is the one that was
        asked last, or else the first of its route.
        """
        if self.route and not reject.model:
            asked = self.attempts[-1].model if self.attempts else self.route[0]
            reject = replace(reject, model=asked)
        self.rejected = reject.message
        self.released_s = now
        self.land()
        return [reject]

    def land(self) -> None:
        """Nothing more will be tried. Its attempts forget it, so that no cycle is left behind."""
        self.request = LANDED
        for attempt in self.attempts:
            attempt.flight = OVER


OVER: Final = Flight(LANDED, (), Tier(), 0.0)
"""Stands for the flight of an attempt when it is over."""
