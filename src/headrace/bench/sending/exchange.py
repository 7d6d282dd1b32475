"""One request on its way: reads its answer as it comes and fills its record.

    answer_head ─► answer_chunk / answer_body + answer_flush … ─► answer_complete | answer_failed
                                                                  └─► conclude

The clock is read once for each piece that arrives, before anything is parsed. An event that looks
like the one before it but for its text is one more token, and is not parsed: see `forms`.
"""

from __future__ import annotations

import errno
import os
import re
from array import array
from operator import sub
from typing import Protocol

import msgspec

from headrace.bench.record import UNFINISHED, Record
from headrace.bench.sending.forms import NEVER, Around, Forms, around_text
from headrace.bench.sending.lengths import Lengths
from headrace.bench.settings import BenchSettings
from headrace.bench.timing.arrival_log import ArrivalLog
from headrace.core.model import Endpoint, Usage
from headrace.core.one_line import MOST_CHARACTERS, error_said, in_a_line
from headrace.core.usage_belief import can_be
from headrace.edges.http.client import UpstreamCall
from headrace.edges.http.heads import find
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.sink import InParts
from headrace.engines.answers import read_body
from headrace.engines.chunks import ChunkReader
from headrace.engines.fragment import Fragment
from headrace.engines.sse import SseSplitter

MAX_DETAIL = MOST_CHARACTERS
"""Characters kept of what an engine says of an error."""
NO_SOCKET = "no_socket"
_OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
_JSON = b"application/json"
_EVENTS = b"text/event-stream"
_CACHED = b'"cached_tokens":'
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


class Ended(Protocol):
    """Whoever counts."""

    tokens_out: int
    """Content chunks so far, of all requests."""
    origin_s: float
    """When the run began, of `time.monotonic`."""
    forms: Forms
    """Of the events of the endpoint."""
    log: ArrivalLog
    """Tells when what is being read came."""

    def ended(self, exchange: Exchange) -> None:
        """The record is complete."""
        ...

    def fail(self, error: BaseException) -> None:
        """A fault of our own: nothing can be said of the run."""
        ...

    def first_token(self, exchange: Exchange) -> None:
        """A first token came."""
        ...


class Exchange(InParts):
    """An `AnswerSink`. Times in it are `time.monotonic`; `origin_s` of the host makes them the
    run's.
    """

    __slots__ = (
        "_body_bytes",
        "_chunk_s",
        "_forms",
        "_head",
        "_head_bytes",
        "_host",
        "_is_plain",
        "_last_event",
        "_leave_after",
        "_max_tokens",
        "_most_bytes",
        "_opening",
        "_pieces",
        "_planned_input_tokens",
        "_reader",
        "_settings",
        "_splitter",
        "_tail",
        "_tail_bytes",
        "_tells_cached",
        "call",
        "deadline_s",
        "kept",
        "over",
        "record",
        "user",
    )

    def __init__(
        self,
        host: Ended,
        settings: BenchSettings,
        record: Record,
        *,
        leave_after: int,
        max_tokens: int = 0,
        user: int = -1,
    ) -> None:
        self._host = host
        self._max_tokens = max_tokens
        self._planned_input_tokens = record.input_tokens
        self._settings = settings
        self._leave_after = leave_after
        self._is_plain = False
        """Whether a token is only to be counted: it is not the first, and nobody wants to leave or
        to see its text."""
        self._forms = host.forms
        self._reader = ChunkReader(
            injected=False, usage_per_choice=False, prompts=1, shape=host.forms.shape
        )
        self._splitter: SseSplitter | None = None
        self._pieces: list[bytes] = []
        self._body_bytes = 0
        self._chunk_s = array("d")
        self._tells_cached = False
        self._most_bytes = settings.max_answer_bytes
        self._opening: bytes | None = None
        """The first event if it told nothing; None: none was read yet."""
        self._last_event = b""
        """Of those that were not passed by their form, as an end never is."""
        self._head = self._tail = NEVER
        self._head_bytes = self._tail_bytes = 0
        self.kept: list[bytes] | None = None if settings.tokenizer is None else []
        """Events with content, as long as they may be needed to count tokens by a tokenizer."""
        self.record = record
        self.user = user
        self.call: UpstreamCall | None = None
        self.deadline_s = 0.0
        self.over = False

    @property
    def is_sent(self) -> bool:
        """Whether a connection has taken the request."""
        return self.call is not None and self.call.connected

    # ------------------------------------------------------------ AnswerSink

    def answer_head(self, head: AnswerHead) -> None:
        """See `AnswerSink`."""
        record = self.record
        record.status = head.status
        replica = find(head.headers, b"x-headrace-replica")
        if replica is not None:
            record.replica = in_a_line(replica.decode("latin-1"))
        if head.status != 200:
            return
        coding = find(head.headers, b"content-encoding") or b"identity"
        if coding.strip().lower() != b"identity":
            detail = f"content-encoding: {coding.decode('latin-1')}, which nobody asked for"
            self._give_up("bad_content_type", detail, self._host.log.now())
            return
        kind = find(head.headers, b"content-type") or b""
        wanted = _EVENTS if self._settings.stream else _JSON
        if not kind.strip().lower().startswith(wanted):
            detail = f"content-type: {kind.decode('latin-1')}"
            self._give_up("bad_content_type", detail, self._host.log.now())
        elif self._settings.stream:
            self._splitter = SseSplitter(self._settings.max_event_bytes)

    def answer_chunk(self, chunk: bytes, start: int) -> None:
        """See `AnswerSink`."""
        now = self._host.log.now()
        self._body_bytes += len(chunk) - start - 2
        self._pieces.append(chunk[start:-2])
        self._forms.saw_size(chunk[: start - 2])
        self._read(now)

    def _learn(self, event: bytes) -> None:
        """Let those pass that look like this event, which brought a token."""
        around = around_text(event)
        if around is None:
            return
        forms = self._forms
        forms.shape = self._reader.shape
        if self._opening:
            forms.learn(self._opening, around)
            self._opening = b""  # what comes later is not what a stream begins with
        self._expect(around)

    def _expect(self, around: Around) -> None:
        """Let events pass that have this around a text."""
        if self.call is not None:
            self._head, _, self._tail = around
            self._head_bytes, self._tail_bytes = len(self._head), len(self._tail)
            self.call.let_pass(self.passes)

    def passes(self, data: bytes) -> bool:
        """Take a read as it came if it is one chunk with one event like the one before.

        The usual case: one event with one token, alone in its read.
        """
        now = self._host.log.now()
        size = len(data)
        forms = self._forms
        line = forms.size_lines.get(size) or forms.size_line(size)
        digits = len(line)
        begin, end = digits + self._head_bytes, size - self._tail_bytes
        if (
            data.startswith(line)
            and data.startswith(self._head, digits)
            and data.endswith(self._tail)
            and begin < end == data.find(b'"', begin)
            and self._body_bytes < self._most_bytes
        ):
            self._body_bytes += size
            if self._is_plain:
                self._chunk_s.append(now)
                self._host.tokens_out += 1
            else:
                self._token(now, data)
            return True
        return False

    def answer_body(self, data: bytes) -> None:
        """See `AnswerSink`. What comes in one read is kept until its flush, for one time."""
        if not self.over:
            self._pieces.append(data)
            self._body_bytes += len(data)

    def answer_flush(self) -> None:
        """See `AnswerSink`."""
        if not self.over:
            self._read(self._host.log.now())

    def answer_complete(self, framed: bool) -> None:
        """See `AnswerSink`. Without framing only `[DONE]` shows that nothing is missing."""
        if self.over:
            return
        try:
            self._conclude(self._host.log.now(), framed=framed)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends the run, not a connection
            self._host.fail(error)

    def answer_failed(self, reason: str) -> None:
        """See `AnswerSink`."""
        if self.over:
            return
        now = self._host.log.now()
        if self._reader.done:  # all was there; only the framing's end is missing
            self._end_stream(now)
            return
        self._end(self._kind_of(reason), reason, now)

    def add_lengths(self, lengths: Lengths) -> None:
        """Count a whole answer whose usage told its tokens."""
        record = self.record
        lengths.planned_input += self._planned_input_tokens
        lengths.input += record.input_tokens
        lengths.planned_output += self._max_tokens * record.choices
        lengths.output += record.output_tokens

    # ------------------------------------------------------------ ends that we make

    def time_out(self, now: float) -> None:
        """It took too long."""
        self._drop()
        began = "no answer" if not self.record.status else "no end"
        self._end("timeout", f"{began} within {self._settings.timeout_s:g} s", now)

    def stop(self, now: float) -> None:
        """The run is over before it is."""
        self._drop()
        self._end(UNFINISHED, "", now)

    # ------------------------------------------------------------ reading

    def _read(self, now: float) -> None:
        """Take in all that arrived together."""
        if self._body_bytes > self._settings.max_answer_bytes:
            detail = f"over {self._settings.max_answer_bytes:,} bytes"
            self._give_up("too_large", detail, now)
            return
        splitter = self._splitter
        if splitter is None or not self._pieces:
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._opening is None and not splitter.is_within_event:
            begun = self._forms.begun(data)
            if begun is not None:
                self._opening = b""
                around, opening_bytes = begun
                self._expect(around)
                data = data[opening_bytes:]
                if around.holds(data):
                    self._token(now, data)
                    return
        tokens = len(self._chunk_s)
        events = splitter.feed(data)
        has_content = self._feed(events, now)
        if has_content and len(self._chunk_s) == tokens + 1 and not splitter.is_within_event:
            self._learn(events[-1])

    def _feed(self, events: list[bytes], now: float) -> bool:
        """Take in whole events; whether the last one had content."""
        reader = self._reader
        has_content = False
        for event in events:
            if isinstance(event, Fragment):
                detail = f"an event over {self._settings.max_event_bytes:,} bytes"
                self._give_up("too_large", detail, now)
                return False
            before = reader.content_chunks
            reader.feed(event)
            has_content = reader.content_chunks > before
            if self._opening is None:
                told = has_content or reader.usage or reader.done or reader.error
                self._opening = b"" if told else event
            if has_content:
                self._token(now, event)
            if reader.usage is not None and not self._tells_cached:
                self._tells_cached = _tells_cached(event)
            if reader.error:
                words = event[max(event.find(b'"error"'), 0) :][:MAX_DETAIL]
                self._give_up("stream_error", words.decode("utf-8", "replace").strip(), now)
            if self.over:
                return False
        if events:
            self._last_event = events[-1]
        return has_content

    def _token(self, now: float, event: bytes) -> None:
        self._chunk_s.append(now)
        if self.kept is not None:
            self.kept.append(event)
        self._host.tokens_out += 1
        count = len(self._chunk_s)
        if count == 1:
            self.record.first_token_s = now - self._host.origin_s
            self._is_plain = not self._leave_after and self.kept is None
            self._host.first_token(self)
        if count == self._leave_after:
            self.record.left = True
            self._drop()
            self._end("", "", now)

    # ------------------------------------------------------------ the end

    def _conclude(self, now: float, *, framed: bool) -> None:
        """Read the end of an answer that is whole."""
        self._read(now)
        if self.over:
            return
        if self.record.status != 200:
            detail = error_said(b"".join(self._pieces))
            self._end(f"http_{self.record.status}", detail, now)
        elif not self._settings.stream:
            self._end_whole(now)
        elif not framed and not self._reader.done:
            self._end("cut", "the connection closed within the stream", now)
        elif self._chunk_s and not self._says_its_end():
            self._end("cut", "no finish_reason, usage or [DONE] came", now)
        else:
            self._end_stream(now)

    def _says_its_end(self) -> bool:
        """A proxy whose engine is gone may end the body as it should."""
        reader = self._reader
        told = reader.done or reader.usage is not None
        return told or _FINISHED.search(self._last_event) is not None

    def _end_stream(self, now: float) -> None:
        if not self._chunk_s:
            self._end("no_tokens", "the stream ended without any content", now)
        else:
            self._end("", "", now)

    def _end_whole(self, now: float) -> None:
        body = b"".join(self._pieces)
        try:
            msgspec.json.decode(body, type=_Whole)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            shown = body[:MAX_DETAIL].decode("utf-8", "replace")
            self._end("bad_json", shown, now)
            return
        self._reader.usage = read_body(Endpoint.CHAT, body).usage
        self._tells_cached = _tells_cached(body)
        self._end("", "", now)

    def _give_up(self, kind: str, detail: str, now: float) -> None:
        self._drop()
        self._end(kind, detail, now)

    def _drop(self) -> None:
        if self.call is not None:
            self.call.cancel()

    def _kind_of(self, reason: str) -> str:
        if reason.startswith("cannot connect"):
            ours = any(os.strerror(number) in reason for number in _OURS)
            return NO_SOCKET if ours else "refused"
        if "not valid HTTP" in reason:
            return "bad_http"
        if "head is over" in reason:
            return "too_large"
        return "cut" if self.record.status else "reset"

    def _end(self, error: str, detail: str, now: float) -> None:
        if self.over:
            return
        self.over = True
        record, times_s = self.record, self._chunk_s.tolist()
        record.error = error
        if detail:
            record.error_detail = in_a_line(detail)
        record.ended_s = now - self._host.origin_s
        record.chunks = len(times_s)
        if times_s:
            record.last_token_s = times_s[-1] - self._host.origin_s
        self._take_usage(self._reader.usage)
        if record.choices == 1:
            record.itl_s = _per_token(times_s, record.output_tokens)
        self._pieces.clear()
        self.call = None  # breaks the ring: nobody collects garbage during a run
        self._host.ended(self)

    def _take_usage(self, usage: Usage | None) -> None:
        record = self.record
        if usage is None or record.error or record.left:
            record.output_tokens = record.chunks
            return
        if not can_be(
            usage,
            input_tokens=record.input_tokens,
            max_tokens=self._max_tokens,
            chunks=record.chunks,
        ):
            record.odd_usage = True
            record.output_tokens = record.chunks
            return
        record.tokens_exact = True
        self.kept = None
        record.input_tokens = usage.input_tokens
        record.output_tokens = usage.output_tokens
        record.cached_tokens = usage.cached_tokens if self._tells_cached else None


class _Whole(msgspec.Struct):
    """What an answer that is not streamed has at the least."""

    choices: list[msgspec.Raw]


def _tells_cached(text: bytes) -> bool:
    at = text.find(_CACHED)
    return at >= 0 and not text.startswith(b"null", at + len(_CACHED))


def _per_token(times_s: list[float], output_tokens: int) -> array[float]:
    """Gaps between chunks, scaled to tokens (see `record`)."""
    gaps = list(map(sub, times_s[1:], times_s))
    if gaps and 1 < output_tokens != len(gaps) + 1:
        scale = len(gaps) / (output_tokens - 1)
        gaps = [gap * scale for gap in gaps]
    return array("f", gaps)
