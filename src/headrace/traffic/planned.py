"""One request as a load plans it."""

from __future__ import annotations

from typing import NamedTuple


class PlannedRequest(NamedTuple):
    """One request to be sent.

    `at_s` counts from the run's start; in a closed loop it is the pause before it instead. `blocks`
    are as in `TraceRequest`. `shared` numbers the shared prefix that stands before all else, of
    `shared_tokens`, which `input_tokens` includes. `leave_after` is how many content chunks we
    read before we disconnect; 0 means that we stay.
    """

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    length_class: str = ""
    tier: str = ""
    shared: int = 0
    shared_tokens: int = 0
    leave_after: int = 0
