"""`headrace engine`: emulated engines on ports of this machine."""

from __future__ import annotations

from dataclasses import fields

from headrace.compose.lifecycle import StopSignals, run_loop
from headrace.compose.terminal import Terminal
from headrace.compose.wiring import StartError
from headrace.config.quantities import parse_duration
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.settings import EngineSettings

HOST = "127.0.0.1"
"""Emulated engines serve this machine only."""


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
        try:
            times[known[name]] = _not_negative(parse_duration(value))
        except ValueError as error:
            raise ValueError(f"--script {text}: {name} must be {error}") from None
    return Script(**times)


def _not_negative(seconds: float) -> float:
    if seconds < 0:
        raise ValueError("0 or more")
    return seconds


def run_engines(
    settings: EngineSettings, script: Script, *, count: int, port: int, terminal: Terminal
) -> int:
    """Run `count` engines, the first one on `port`, until stopped by a signal.

    With port 0 each takes a free one. Return the exit code. Raises StartError.
    """
    engines = [
        EmulatedEngine(
            settings, ScriptedTiming(script, kv_capacity_tokens=settings.kv_capacity_tokens)
        )
        for _ in range(count)
    ]
    return run_loop(_run(engines, port, terminal))


async def _run(engines: list[EmulatedEngine], port: int, terminal: Terminal) -> int:
    stop = StopSignals()
    stop.listen()
    try:
        for number, engine in enumerate(engines):
            await _start(engine, port + number if port else 0)
            terminal.result(f"engine  http://{HOST}:{engine.port}  ({engine.settings.model})")
        await stop.asked.wait()
    finally:
        for engine in engines:
            await engine.close()
    return 0


async def _start(engine: EmulatedEngine, port: int) -> None:
    try:
        await engine.start(HOST, port)
    except OSError as error:
        reason = error.strerror or error
        raise StartError(
            f"cannot listen on {HOST}:{port}: {reason}; choose another with --port"
        ) from None
