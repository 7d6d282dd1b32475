"""What is kept of each request, and of the run: the raw material of every figure.

    TTFT   = first_token_s − intended_s
    lag    = sent_s − intended_s             the generator's own, part of TTFT
    TPOT   = (last_token_s − first_token_s) / (output_tokens / choices − 1)
    ITL    = gap between content chunks · (chunks − 1) / (output_tokens − 1)
    E2E    = ended_s − intended_s

All times are seconds from the run's start on one monotonic clock, the same in every worker process.
Latency counts from the *intended* time, so a stall of the engine is seen by every request that
should have met it, whether or not the generator could send it then.
"""

from __future__ import annotations

from array import array
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import msgspec

UNFINISHED = "unfinished"
"""The kind of error that is none of the endpoint's: somebody stopped the run."""


@dataclass(slots=True)
class Record:
    """One request. Written by the sender while it runs, read-only for everybody else."""

    index: int
    """Its place in the plan; with closed-loop users, in the order of sending."""
    worker: int = 0
    length_class: str = ""
    """Name of its class in a mix of lengths, such as `short`; empty without a mix."""
    tier: str = ""
    """Name of its SLO tier; empty where there is one SLO for all."""
    intended_s: float = 0.0
    sent_s: float = 0.0
    """When the generator took it in hand: wrote it to an open connection, or began to open one.
    What opening takes is the engine's time, not the generator's."""
    first_token_s: float | None = None
    """First non-empty content, reasoning or tool-call delta; None: none came, or not streamed."""
    last_token_s: float | None = None
    ended_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    """Of the input, as usage says; None where it does not."""
    tokens_exact: bool = False
    """Token counts come from usage or a tokenizer; else they are the plan's, or chunks counted."""
    odd_usage: bool = False
    """A usage came that cannot be (`core.usage_belief`), and was not believed."""
    status: int = 0
    """HTTP status; 0: no answer came."""
    error: str = ""
    """Empty: a whole answer. Else a kind out of `ERROR_KINDS`, or `http_` and the status."""
    error_detail: str = ""
    """The engine's or system's own words on it, cut to one line."""
    replica: str = ""
    """Which replica served it, where a header tells (`x-headrace-replica`)."""
    chunks: int = 0
    """Events with content."""
    itl_s: array[float] = field(default_factory=lambda: array("f"))
    """One value for each gap between content chunks, scaled to a token by the formula above."""
    left: bool = False
    """We disconnected on purpose. Such a record has an empty `error`; its TTFT counts if there is
    one, its TPOT, E2E and output tokens do not say anything on the engine."""

    choices: int = 1
    """Answers side by side (`n` in `--extra-body`): the output tokens are those of all, and the
    gaps between their chunks are no ITL."""

    @property
    def was_interrupted(self) -> bool:
        """It ran when the run was stopped: no fault of the endpoint's."""
        return self.error == UNFINISHED

    @property
    def ok(self) -> bool:
        """A whole answer came, or we left as planned."""
        return not self.error

    @property
    def ttft_s(self) -> float | None:
        """From the intended time to the first token."""
        return None if self.first_token_s is None else self.first_token_s - self.intended_s

    @property
    def lag_s(self) -> float:
        """How late the generator was."""
        return self.sent_s - self.intended_s

    @property
    def tpot_s(self) -> float | None:
        """Seconds per output token after the first; None with fewer than two, or if we left."""
        if self.left or self.first_token_s is None or self.last_token_s is None:
            return None
        each = self.output_tokens / self.choices
        if each < 2.0:
            return None
        return (self.last_token_s - self.first_token_s) / (each - 1.0)

    @property
    def e2e_s(self) -> float:
        """From the intended time to the end."""
        return self.ended_s - self.intended_s


ERROR_KINDS = {
    "refused": "no connection could be made",
    "no_socket": "this machine had no file or port left for a connection: the generator's limit",
    "reset": "the connection was lost before an answer began",
    "timeout": "no first byte, or no end, within the limits",
    "cut": "the answer began and did not reach its end",
    "bad_http": "the answer is not valid HTTP/1.1",
    "bad_content_type": "the answer is neither an event stream nor JSON, as asked",
    "bad_json": "an event or answer is not JSON of OpenAI's shape",
    "stream_error": "the stream carried an error event",
    "too_large": "the answer grew over the limit of bytes",
    "no_tokens": "a whole answer without any content",
    UNFINISHED: "still running when the run was stopped",
}
"""Kinds of `Record.error` besides `http_429` and its like. A missing usage is no error: see
`RunInfo.without_usage`."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How late requests were sent, in seconds: the generator's own fault."""

    p50_s: float = 0.0
    p99_s: float = 0.0
    max_s: float = 0.0
    late_share: float = 0.0
    """Share of requests sent later than `late_after_s`."""
    late_after_s: float = 0.0
    stopped_s: float = 0.0
    """The longest time in which a process that sends and reads stood still, at least."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run: what was asked, how the generator did, whether its figures can be trusted."""

    url: str
    model: str
    traffic: str
    """In words, such as `20 requests/s, Poisson, 64 → 128 tokens`."""
    seed: int
    workers: int
    started_at: float
    """Wall clock, Unix seconds."""
    duration_s: float
    """From the first intended time to the last end."""
    load_s: float = 0.0
    """The span in which requests were intended to be sent: rates divide by this."""
    planned_requests: int = 0
    """0 where it is not known before, as with closed-loop users."""
    offered_rps: float = 0.0
    """Requests ÷ `load_s`."""
    open_loop: bool = True
    streamed: bool = True
    endpoint: str = "chat"
    lag: Lag = field(default_factory=Lag)
    cpu_s: float = 0.0
    """User and system time of all worker processes while they sent."""
    arrival_tick_s: float = 0.0
    """Arrivals are noted late by so much at most where many come together: see `ticks`. 0: each
    was noted as it came."""
    tokens_by: str = "usage"
    """How prompts were sized: `tokenizer file`, `/tokenize`, `usage` (corrected), `words`."""
    natural_ends: bool = False
    """Whether the model was to end its answers."""
    input_of_planned: float | None = None
    output_of_planned: float | None = None
    """Tokens that came ÷ tokens planned, of whole answers whose usage tells."""
    without_usage: int = 0
    """Whole answers that had no usage: their output tokens are chunks counted."""
    odd_usage: int = 0
    """Whole answers whose usage cannot be: their tokens are counted as without it."""
    valid: bool = True
    invalid_reason: str = ""
    text_seed: int = 0
    """Of the prompts' words: with it and `seed` the very same requests are sent again."""
    interrupted: bool = False
    python: str = ""
    headrace: str = ""


def to_json_line(record: Record) -> bytes:
    """One line of JSON with a newline; times to the microsecond."""
    values: dict[str, Any] = {}
    for name in _NAMES:
        value = getattr(record, name)
        values[name] = round(value, 6) if type(value) is float else value
    values["itl_s"] = [round(gap, 6) for gap in record.itl_s]
    return msgspec.json.encode(values) + b"\n"


def from_json_line(line: bytes | str) -> Record:
    """The record of a line that `to_json_line` wrote.

    Raises:
        ValueError: the line is no such record.
    """
    try:
        values = msgspec.json.decode(line, type=dict[str, Any])
        values["itl_s"] = array("f", values["itl_s"])
        return Record(**values)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ValueError(f"not a record of headrace bench: {error}") from None


def info_to_json_line(info: RunInfo) -> bytes:
    """The first line of a raw file: `{"run": {…}}`."""
    return msgspec.json.encode({"run": asdict(info)}) + b"\n"


def info_from_json_line(line: bytes | str) -> RunInfo:
    """The run of a line that `info_to_json_line` wrote.

    Raises:
        ValueError: the line is none.
    """
    try:
        values = msgspec.json.decode(line, type=dict[str, dict[str, Any]])["run"]
        return RunInfo(**{**values, "lag": Lag(**values["lag"])})
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ValueError(f"not the first line of a raw file of headrace bench: {error}") from None


_NAMES = tuple(each.name for each in fields(Record))
