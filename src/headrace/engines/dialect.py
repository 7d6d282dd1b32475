"""The interface of an engine dialect: a table of facts and a few pure functions.

Adding an engine is one file here with a `DIALECT`, one line in `registry.py` and captures for
the conformance kit, which then runs over it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headrace.core.model import Endpoint
from headrace.engines.answers import BodyReading, list_models, read_body
from headrace.engines.errors import classify_error
from headrace.engines.exposition import Accept
from headrace.engines.latencies import Latencies, read_latencies
from headrace.engines.reading import Answers, EngineReading, ListedModel, Refusal
from headrace.engines.sleep_mode import SleepMode
from headrace.engines.streams import open_reader
from headrace.engines.usage import StreamReader, UsageRule

_NO_RULE = UsageRule(where="not told")


@dataclass(frozen=True, slots=True)
class Dialect:
    """All that Headrace knows of one kind of engine."""

    name: str
    """The value of `engine:` in a config."""
    title: str
    """What its makers call it."""
    evidence: str
    """What these facts rest on, for the generated docs."""
    read: Callable[[Answers], EngineReading]
    """Turn the answers from `metrics_paths` into a reading. Never raises: what is missing, refused
    or malformed reads as `None`."""
    metrics_paths: tuple[str, ...]
    """What to GET for one reading; empty where the engine exports nothing."""
    sources: Mapping[str, tuple[str, ...]]
    """Field of `EngineReading` to the engine's names for it, newest first. The docs' table."""
    usage_rules: Mapping[Endpoint, UsageRule]
    """How usage is obtained; an endpoint that is not here is asked for none."""
    unverified: bool = False
    """Read from published sources and never seen against a running engine."""
    derived: frozenset[str] = frozenset()
    """The `sources` that are computed from what is told, as near as that comes."""
    histograms: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """`ttft` and `tpot` to the engine's names for histograms of one observation per request."""
    histogram_labels: Mapping[str, Accept] = field(default_factory=dict[str, Accept])
    """Which of their label sets are meant, where not all are."""
    health_path: str = "/health"
    """Answers 200 when requests may be sent; anything else means not ready."""
    other_health_path: str = ""
    """Asked instead where a server does not have `health_path`."""
    models_path: str = "/v1/models"
    refuses_other_models: bool = False
    """It answers no request for a model that `models_path` does not list, and tells nobody without
    a right key: what it says there of itself settles whether a pool's requests are served."""
    closes_after_stream: bool = False
    """The server closes its connection after each stream, whatever its headers promise: a pool
    must not use it again."""
    sends_at_once: bool = False
    """The server has switched Nagle's algorithm off: it waits for no acknowledgement of one small
    piece before it sends the next."""
    sleep_mode: SleepMode | None = None
    """How it is put to sleep and woken, where it can be."""

    @property
    def health_paths(self) -> tuple[str, ...]:
        """What to ask for its health, one after the other, until it is a path that is there."""
        return tuple(path for path in (self.health_path, self.other_health_path) if path)

    def ready(self, status: int) -> bool:
        """Whether this status from one of `health_paths` means that requests may be sent."""
        return status == 200

    def models(self, body: bytes) -> list[ListedModel]:
        """Read the body of `models_path`. Raises `ValueError` if it is not a model list."""
        return list_models(body)

    def latencies(self, answers: Answers) -> Latencies:
        """Read how its latencies are distributed, from the same answers as `read`. Never raises."""
        return read_latencies(answers, self.histograms, self.histogram_labels)

    def usage_rule(self, endpoint: Endpoint) -> UsageRule:
        """The rule for an endpoint."""
        return self.usage_rules.get(endpoint, _NO_RULE)

    def stream_reader(
        self, endpoint: Endpoint, *, injected: bool = False, prompts: int = 1
    ) -> StreamReader:
        """Make the reader for one streamed answer.

        `injected`: the gateway merged the usage request in, so the client must not see its answer.
        `prompts`: how many prompts the request holds (a list in `/v1/completions`), 1 for a chat.
        """
        return open_reader(endpoint, self.usage_rule(endpoint), injected=injected, prompts=prompts)

    def read_body(
        self, endpoint: Endpoint, body: bytes, max_output_tokens: int | None = None
    ) -> BodyReading:
        """Read usage and response id from a whole 2xx answer. Never raises.

        A choice was to have `max_output_tokens` at most, where that was said.
        """
        return read_body(
            endpoint,
            body,
            usage_of_first_choice=self.usage_rule(endpoint).whole_of_first_choice,
            max_output_tokens=max_output_tokens,
        )

    def classify_error(self, status: int, body: bytes) -> Refusal:
        """Say whose fault an answer with status >= 300 is. `body` may be cut short."""
        return classify_error(status, body)
