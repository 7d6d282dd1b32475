"""What every trace format must hold: the checks and limits that all readers share.

A reader hands each line's values to an `Intake`, which refuses what cannot be true of a request and
keeps the rest. Limits are far above anything served today: their work is to catch a wrong unit or
a wrong column before a simulation runs for hours on nonsense.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from headrace.traffic.trace import Trace, TraceError, TraceRequest

MAX_TOKENS = 1 << 24
"""Tokens of a prompt or an answer: above the longest context any model offers (10 million)."""
MAX_REQUESTS = 10_000_000
"""Requests of a trace: at some 300 bytes each this is 3 GB of memory."""
MAX_SPAN_S = 400 * 86_400.0
"""First to last arrival: more than a year, so a unit is likely to be wrong."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """How a format calls what every request has, for errors in the reader's own words."""

    arrival: str
    input: str
    output: str


class Intake:
    """Collects the requests of one trace in order of arrival."""

    __slots__ = ("_fields", "_first_s", "_last_s", "_name", "_without_output", "requests")

    def __init__(self, name: str, fields: FieldNames) -> None:
        self._name = name
        self._fields = fields
        self._first_s: float | None = None
        self._last_s = 0.0
        self._without_output = 0
        self.requests: list[TraceRequest] = []

    def add(self, line: int, request: TraceRequest) -> None:
        """Take one request; its arrival is counted from the first one's.

        An answer of 0 tokens is taken as 1 and counted for the trace's notes: an engine's first
        token falls out of the prefill, so the work was the same.

        Raises:
            TraceError: a value no request can have, or time going backwards.
        """
        arrival_s, input_tokens, output_tokens, blocks, session = request
        self._check_arrival(line, arrival_s)
        if not 1 <= input_tokens <= MAX_TOKENS:
            raise self._length(line, self._fields.input, input_tokens, 1)
        if not 1 <= output_tokens <= MAX_TOKENS:
            if output_tokens != 0:
                raise self._length(line, self._fields.output, output_tokens, 0)
            self._without_output += 1
            output_tokens = 1
        if len(self.requests) >= MAX_REQUESTS:
            raise TraceError(
                self._name, line, f"expected at most {MAX_REQUESTS:,} requests; cut the file"
            )
        since_s = arrival_s - (self._first_s or 0.0)
        self.requests.append(TraceRequest(since_s, input_tokens, output_tokens, blocks, session))

    def trace(self, block_tokens: int, notes: tuple[str, ...] = ()) -> Trace:
        """What was taken, as a trace.

        Raises:
            TraceError: nothing was.
        """
        if not self.requests:
            raise TraceError(self._name, None, "expected at least one request, found none")
        if self._without_output:
            fields = f"{self._without_output:,} of {len(self.requests):,} requests"
            notes += (f"{fields} have 0 output tokens; read as 1",)
        return Trace(self._name, block_tokens, self.requests, notes)

    def _check_arrival(self, line: int, arrival_s: float) -> None:
        field = self._fields.arrival
        if not isfinite(arrival_s):
            raise TraceError(self._name, line, f"expected a finite {field}, found {arrival_s}")
        if self._first_s is None:
            self._first_s = self._last_s = arrival_s
        if arrival_s < self._last_s:
            early_s = self._last_s - arrival_s
            problem = (
                f"expected a {field} not before the previous request's, found one {early_s:g} s"
                " earlier; sort the file by time"
            )
            raise TraceError(self._name, line, problem)
        if arrival_s - self._first_s > MAX_SPAN_S:
            days = (arrival_s - self._first_s) / 86_400
            after = f"{days:,.0f}" if days < 1e9 else f"{days:.3g}"  # not in 300 digits
            problem = (
                f"expected a {field} within {MAX_SPAN_S / 86_400:.0f} days of the first, found one"
                f" after {after} days; is the unit right?"
            )
            raise TraceError(self._name, line, problem)
        self._last_s = arrival_s

    def _length(self, line: int, field: str, value: int, least: int) -> TraceError:
        return TraceError(
            self._name, line, f"expected {field} from {least} to {MAX_TOKENS}, found {value}"
        )
