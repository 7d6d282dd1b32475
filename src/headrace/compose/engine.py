"""`headrace engine`: emulated engines on ports of this machine."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from headrace.compose.process.lifecycle import StopAsked, StopSignals, run_loop
from headrace.compose.process.terminal import Terminal, counted
from headrace.compose.serving.wiring import StartError
from headrace.config.modelled_engine import engine_of
from headrace.core.quantities import parse_duration
from headrace.edges.extras import how_to_install
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.modelled import ModelledTiming
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings
from headrace.engine_model import EngineSpec

if TYPE_CHECKING:
    from headrace.emulator.kv_events import KvEventPublisher

HOST = "127.0.0.1"
"""Emulated engines serve this machine only."""
LAST_PORT = 65535
"""Beyond it the system begins again at 0, which stands for any free one."""


def parse_script(text: str) -> Script:
    """Read `ttft=50ms,itl=10ms`; what is left out keeps its default.

    Raises ValueError with what is wrong and what is expected.
    """
    known = {each.name.removesuffix("_s"): each.name for each in fields(Script)}
    times: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in known:
            names = " and ".join(known)
            raise ValueError(
                f"--script {text}: {part!r} is not known; give {names} as in ttft=50ms"
            )
        if known[name] in times:
            raise ValueError(f"--script {text}: {name} is given twice")
        try:
            times[known[name]] = _not_negative(parse_duration(value))
        except ValueError as error:
            raise ValueError(f"--script {text}: {name} must be {error}") from None
    return Script(**times)


def _not_negative(seconds: float) -> float:
    if seconds < 0:
        raise ValueError("0 or more")
    return seconds


def timing_of(
    script: str | None,
    profile: str | None,
    speed: float | None,
    kv_events_port: int | None,
    *,
    kv_tokens: int | None = None,
) -> Script | Modelled:
    """What the options of the command line say of timing; `profile` is a name or a file.

    Raises ValueError with what is wrong and what is expected, ConfigError for the file.
    """
    if profile is None:
        modelled = {"--time-scale": speed, "--kv-events": kv_events_port, "--kv-tokens": kv_tokens}
        for option, given in modelled.items():
            if given is not None:
                raise ValueError(f"{option} needs an engine that is modelled; give --profile too")
        return Script() if script is None else parse_script(script)
    if script is not None:
        raise ValueError("--script and --profile are two ways to time answers; give one of them")
    return Modelled(engine_of(profile, kv_tokens), speed or 1.0, kv_events_port)


@dataclass(frozen=True, slots=True)
class Modelled:
    """How a modelled engine is to run."""

    spec: EngineSpec
    speed: float = 1.0
    """Times as fast as the model says."""
    kv_events_port: int | None = None
    """Where the first engine publishes KV events, the port after it for replay; 0 takes free ones.
    Each further engine takes the next two."""

    def settings(self, model: str, output_tokens: int) -> EngineSettings:
        """What an engine with this KV cache claims to be."""
        longest = self.spec.max_context_tokens or EngineSettings().max_context_tokens
        return EngineSettings(
            model=model,
            output_tokens=output_tokens,
            max_context_tokens=min(longest, self._kv_tokens),
            block_tokens=self.spec.kv_block_tokens,
            kv_blocks=self._kv_tokens // self.spec.kv_block_tokens + 1,
            prompt_tokens_details=True,
        )

    @property
    def _kv_tokens(self) -> int:
        """Tokens of whole KV blocks."""
        block_tokens = self.spec.kv_block_tokens
        return self.spec.kv_capacity_tokens // block_tokens * block_tokens


class _Engine:
    """An emulated engine and, if it is to tell what it caches, its publisher."""

    def __init__(self, settings: EngineSettings, timing: Script | Modelled) -> None:
        self.publisher = None
        if isinstance(timing, Script):
            capacity_tokens = settings.kv_capacity_tokens
            source = ScriptedTiming(timing, kv_capacity_tokens=capacity_tokens)
        else:
            if timing.kv_events_port is not None:
                self.publisher = _publisher()
            on_kv = None if self.publisher is None else self.publisher.publish
            source = ModelledTiming(timing.spec, speed=timing.speed, on_kv=on_kv)
        self.server = EmulatedEngine(settings, source)

    async def start(self, port: int, kv_port: int) -> str:
        """Listen and say where, in one line. Raises StartError."""
        model = self.server.settings.model
        try:
            await self.server.start(HOST, port)
        except OSError as error:
            raise _taken(port, error, "--port") from None
        told = f"engine  http://{HOST}:{self.server.port}  ({model})"
        if self.publisher is None:
            return told
        try:
            topic = f"kv@{HOST}:{self.server.port}@{model}"
            self.publisher.start(HOST, kv_port, topic=topic)
        except OSError as error:
            raise _taken(kv_port, error, "--kv-events") from None
        events, replay = self.publisher.port, self.publisher.replay_port
        return f"{told}  KV events tcp://{HOST}:{events}, replay tcp://{HOST}:{replay}"

    async def close(self) -> None:
        await self.server.close()
        if self.publisher is not None:
            self.publisher.close()


def run_engines(
    settings: EngineSettings,
    timing: Script | Modelled,
    *,
    count: int,
    port: int,
    load_s: float = 0.0,
    terminal: Terminal,
) -> int:
    """Run `count` engines, the first one on `port`, until stopped by a signal.

    With port 0 each takes a free one. None listens before `load_s` are over. Return the exit code.
    Raises StartError.
    """
    kv_port = timing.kv_events_port or 0 if isinstance(timing, Modelled) else 0
    _check_ports("--port", port, count, each=1)
    _check_ports("--kv-events", kv_port, count, each=2)
    engines = [_Engine(settings, timing) for _ in range(count)]
    return run_loop(_run(engines, port, kv_port, load_s, terminal))


async def _run(
    engines: list[_Engine], port: int, kv_port: int, load_s: float, terminal: Terminal
) -> int:
    stop = StopSignals()
    stop.listen()
    try:
        await stop.unless_asked(asyncio.sleep(load_s))
        for number, engine in enumerate(engines):
            own_kv_port = kv_port + 2 * number if kv_port else 0
            terminal.result(await engine.start(port + number if port else 0, own_kv_port))
        await stop.asked.wait()
    except StopAsked:
        pass
    finally:
        for engine in engines:
            await engine.close()
    return 0


def _check_ports(option: str, first: int, count: int, each: int) -> None:
    """Raise StartError where the engines' ports, `each` for one, go beyond the last there is."""
    last = first + each * count - 1
    if not first or last <= LAST_PORT:
        return  # a free one is taken for each, or all are there
    highest = LAST_PORT - each * count + 1
    fitting = f"{highest} or less, or 0" if highest > 0 else "0"
    raise StartError(
        f"{option} {first}: {counted(count, 'engine')} would take the ports {first} to {last}, and "
        f"{LAST_PORT} is the last one; give {fitting} for free ones"
    )


def _publisher() -> KvEventPublisher:
    try:
        # Imported where it is asked for: an extra.
        from headrace.emulator.kv_events import KvEventPublisher  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise StartError(
            f"--kv-events needs {error.name}, which is not installed; install the extra: "
            f"{how_to_install('kv-events')}"
        ) from None
    return KvEventPublisher()


def _taken(port: int, error: OSError, option: str) -> StartError:
    reason = error.strerror or error
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return StartError(f"cannot listen: {reason}; raise the limit (ulimit -n), or ask for fewer")
    return StartError(f"cannot listen on {HOST}:{port}: {reason}; choose another with {option}")
