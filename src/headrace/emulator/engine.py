"""An engine that computes nothing: vLLM's API on one port, its tokens timed by a source.

HttpServer ─► EmulatedEngine.handle ─► Completion ─► TimingSource.submit
                                           ▲                │ wake_s
                                           └─ token ◄─ _advance (one timer for all streams)

While it sleeps, prompts are kept from the timing source.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec

from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.heads import Header
from headrace.edges.http.ports import ConnectionLimits, HttpRequest, Refusal, RequestHead
from headrace.edges.http.server import HttpServer
from headrace.emulator import sleeping
from headrace.emulator.answer_text import text_of
from headrace.emulator.choices import Choices
from headrace.emulator.completion import JSON, Completion
from headrace.emulator.metrics import CONTENT_TYPE, EngineMetrics
from headrace.emulator.other_apis import count_tokens, read_messages, read_response
from headrace.emulator.prompt import (
    Ask,
    read_ask,
    read_prompt,
    read_tokens,
    token_ids,
    token_strs,
)
from headrace.emulator.refusals import Refused
from headrace.emulator.settings import VLLM_VERSION, EngineSettings
from headrace.emulator.sleeping import Answer, SleepMode
from headrace.emulator.timing import Generation, Occupancy, TimingSource

SWEEP_S = 1.0
"""Deadlines of connections are checked this often."""

# As wide as a real engine's, which trusts whoever is in front of it.
_LIMITS = ConnectionLimits(
    max_connections=65_536,
    max_connections_per_client=65_536,
    max_body_bytes=64 * 1024 * 1024,
    max_buffered_bytes=8 * 1024 * 1024 * 1024,
    max_head_bytes=64 * 1024,
    max_headers=100,
    client_buffer_bytes=64 * 1024,
    head_s=10.0,
    body_s=60.0,
    idle_s=75.0,
    write_s=120.0,
)
_NOT_FOUND = b'{"detail":"Not Found"}'
_NOT_ALLOWED = b'{"detail":"Method Not Allowed"}'


class EmulatedEngine:
    """One replica. Used from its event loop only, between `start` and `close`."""

    def __init__(self, settings: EngineSettings, timing: TimingSource) -> None:
        self.settings = settings
        self.metrics = EngineMetrics(settings)
        self.port = 0
        self._timing = timing
        self._server = HttpServer(self, _LIMITS)
        self._answers = 0
        self._created = int(time.time())
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._sweeper: asyncio.Task[None] | None = None
        # Both in the order they came, each with the request that it is of.
        self._running: dict[Generation, Completion | Choices] = {}
        self._kept: dict[Generation, Completion | Choices] = {}
        self._sleep: SleepMode | None = None
        if settings.wake_s is not None:
            self._sleep = SleepMode(
                settings.wake_s, fell_asleep=self._fell_asleep, awoke=self._awoke
            )

    # ------------------------------------------------------------ life

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port. Raises `OSError` when the address cannot be had."""
        self.port = await self._server.start(host, port)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        return self.port

    async def close(self) -> None:
        """Cut every stream and stop, as an engine that dies does."""
        self._server.stop_listening()
        self._server.abort_all()
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._server.sweep(time.monotonic())

    # ------------------------------------------------------------ time

    def submit(self, generation: Generation, request: Completion | Choices, now: float) -> None:
        """Hand a prompt to the timing source, or keep it until the engine is awake."""
        if self._sleep is not None and self._sleep.level is not None:
            self._kept[generation] = request
            return
        self._timing.submit(generation, now)
        self._running[generation] = request
        self._set_timer()

    def cancel(self, generation: Generation) -> None:
        """Forget a prompt."""
        self._kept.pop(generation, None)
        self._running.pop(generation, None)
        self._timing.cancel(generation)

    def _advance(self) -> None:
        self._timer_s = math.inf
        now = time.monotonic()
        for generation in self._timing.advance(now):
            if generation.done:
                self._running.pop(generation, None)
            generation.answer.token(now)
        self._set_timer()

    def _fell_asleep(self, gives_back: bool) -> None:
        """Abort what runs, and forget the cache where its memory is given back."""
        for generation in tuple(self._running):
            self.cancel(generation)
            generation.answer.abort()
        if gives_back:
            self._timing.forget()

    def _awoke(self) -> None:
        kept, self._kept = self._kept, {}
        now = time.monotonic()
        for generation, request in kept.items():
            self.submit(generation, request, now)

    def _set_timer(self) -> None:
        wake_s = self._timing.wake_s()
        if wake_s >= self._timer_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = wake_s
        delay_s = max(0.0, wake_s - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._advance)

    # ------------------------------------------------------------ requests

    def refusal_of(self, head: RequestHead) -> Refusal | None:  # noqa: ARG002 - a port
        """Nothing is refused by its head."""
        return None

    def refusal_without_body(self, _head: RequestHead, /) -> Refusal | None:
        """Nor asked for its body in vain: what is wrong is said then."""
        return None

    def refused(self, refusal: Refusal, headers: list[Header]) -> list[Header]:  # noqa: ARG002 - a port
        """Nothing is added to the listener's own errors."""
        return []

    def handle(
        self, request: HttpRequest, connection: ClientConnection
    ) -> Completion | Choices | Answer | None:
        """Answer, or start a completion."""
        path = request.path
        sleep = self._sleep if path in sleeping.PATHS else None
        method = b"POST" if path in _POSTED or path in sleeping.POSTED else b"GET"
        known = sleep is not None or path in (_POSTED | _READ)
        if request.method != method and known and (path, request.method) != _ALSO_POSTED:
            connection.respond(405, [JSON, (b"allow", method)], _NOT_ALLOWED)
            return None
        if sleep is not None:
            return sleep.handle(request, connection)
        try:
            if path in _READERS:
                ask = _READERS[path](request.body, self.settings)
                return self._complete(ask, request, connection)
            self._answer(path, request, connection)
        except Refused as refused:
            body = refused.message_body() if path in _ANTHROPIC else refused.body()
            connection.respond(refused.status, [JSON], body)
        return None

    def _complete(
        self, ask: Ask, request: HttpRequest, connection: ClientConnection
    ) -> Completion | Choices:
        self._answers += 1
        given = request.header(b"x-request-id")
        now = time.monotonic()
        kind = Completion if ask.choices == 1 and not ask.others else Choices
        completion = kind(
            self,
            connection,
            ask,
            answer_id=given.decode("latin-1") if given else f"{self.port:x}{self._answers:011x}",
            created=int(time.time()),
            model=self.settings.model,
            details=self.settings.prompt_tokens_details,
            now=now,
        )
        for generation in completion.generations:
            self.submit(generation, completion, now)
        return completion

    def _answer(self, path: bytes, request: HttpRequest, connection: ClientConnection) -> None:
        """Everything that is no completion."""
        if path in (b"/health", b"/ping"):
            connection.respond(200, [], b"")
        elif path == b"/metrics":
            state = sleeping.AWAKE if self._sleep is None else self._sleep.state
            page = self.metrics.render(self._occupancy(), self._timing.looked_up(), state)
            headers: list[Header] = [(b"content-type", CONTENT_TYPE)]
            connection.respond(200, headers, page)
        elif path == b"/v1/models":
            _respond_json(connection, self._models())
        elif path == b"/version":
            _respond_json(connection, {"version": VLLM_VERSION})
        elif path == b"/load":
            requests = {*self._running.values(), *self._kept.values()}
            _respond_json(connection, {"server_load": len(requests)})
        elif path == b"/tokenize":
            _respond_json(connection, self._tokenized(request.body))
        elif path == b"/v1/messages/count_tokens":
            tokens = count_tokens(request.body, self.settings)
            _respond_json(connection, _counted(tokens))
        elif path == b"/detokenize":
            _respond_json(connection, {"prompt": text_of(read_tokens(request.body))})
        else:
            connection.respond(404, [JSON], _NOT_FOUND)

    def _tokenized(self, body: bytes) -> dict[str, object]:
        prompt, with_strs = read_prompt(body, self.settings)
        tokens = token_ids(prompt)
        return {
            "count": len(tokens),
            "max_model_len": self.settings.max_context_tokens,
            "tokens": tokens,
            "token_strs": token_strs(prompt) if with_strs else None,
        }

    def _occupancy(self) -> Occupancy:
        """With what waits for the engine to wake."""
        told = self._timing.occupancy()
        return replace(told, waiting=told.waiting + len(self._kept)) if self._kept else told

    def _models(self) -> dict[str, object]:
        model = {
            "id": self.settings.model,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": self.settings.model,
            "parent": None,
            "max_model_len": self.settings.max_context_tokens,
        }
        return {"object": "list", "data": [model]}


_READERS: dict[bytes, Callable[[bytes, EngineSettings], Ask]] = {
    b"/v1/chat/completions": partial(read_ask, chat=True),
    b"/v1/completions": partial(read_ask, chat=False),
    b"/v1/messages": read_messages,
    b"/v1/responses": read_response,
}
"""What reads a request for an answer."""
_ANTHROPIC = frozenset((b"/v1/messages", b"/v1/messages/count_tokens"))
_POSTED = frozenset((*_READERS, *_ANTHROPIC, b"/tokenize", b"/detokenize"))
_READ = frozenset((b"/health", b"/ping", b"/metrics", b"/v1/models", b"/version", b"/load"))
_ALSO_POSTED = (b"/ping", b"POST")


def _counted(tokens: int) -> dict[str, object]:
    return {"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}}


def _respond_json(connection: ClientConnection, value: object) -> None:
    connection.respond(200, [JSON], msgspec.json.encode(value))
