"""Emulated engines of a process of their own, and requests that suit them."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.load import Payloads
from benchmarks.processes import HEADRACE, START_S, Running, StartFailedError, running

MODEL = "emulated"
STREAM_TOKENS = 256
_FAMILIES = 64
"""So many conversations or system prompts are under way at once."""
_SHARED_SHARE = 0.75
"""Of each prompt, this much is what others of its family begin with as well."""
_NUMBER_BYTES = 10


class Engines:
    """Running engines."""

    def __init__(self, process: Running, ports: list[int]) -> None:
        self.process = process
        self.ports = ports

    @property
    def urls(self) -> list[str]:
        """Their addresses."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]


@contextmanager
def engines(script: str, *, count: int) -> Iterator[Engines]:
    """Run engines as `headrace engine` does; `script` is its option."""
    with _engines("--script", script, count=count) as fleet:
        yield fleet


@contextmanager
def modelled_engines(profile: str, *, time_scale: float, count: int) -> Iterator[Engines]:
    """Run engines that behave as the model of this profile, so many times as fast."""
    scale = ("--time-scale", f"{time_scale:g}")
    with _engines("--profile", profile, *scale, count=count) as fleet:
        yield fleet


@contextmanager
def _engines(*timing: str, count: int) -> Iterator[Engines]:
    options = (*timing, "--count", str(count), "--port", "0", "--model", MODEL)
    with running([*HEADRACE, "engine", *options]) as process:
        yield Engines(process, _ports(process, count))


def _ports(process: Running, count: int) -> list[int]:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        process.check()
        ports = re.findall(r"^engine +http://127\.0\.0\.1:(\d+)", process.output(), re.MULTILINE)
        if len(ports) == count:
            return [int(port) for port in ports]
        time.sleep(0.05)
    raise StartFailedError(f"{count} engines did not start:\n{process.output()}")


# ---------------------------------------------------------------- requests


def prompts(prompt_bytes: int) -> Payloads:
    """Requests for one token, not streamed. Each prompt is new, and begins as others of its family.

    Numbers go on over all runs, so that no prompt comes twice.
    """
    shared_bytes = round(prompt_bytes * _SHARED_SHARE)
    rest = _text(_FAMILIES, prompt_bytes - shared_bytes - _NUMBER_BYTES)
    end = rest + b'"}],"max_tokens":1,"ignore_eos":true}'
    begin = b'{"model":"%b","messages":[{"role":"user","content":"' % MODEL.encode()
    head = _head(len(begin) + shared_bytes + _NUMBER_BYTES + len(end))
    begins = [head + begin + _text(family, shared_bytes) for family in range(_FAMILIES)]
    numbers = itertools.count()

    def payload(_: int) -> bytes:
        number = next(numbers)
        return b"%b%0*d%b" % (begins[number % _FAMILIES], _NUMBER_BYTES, number, end)

    return payload


def stream(tokens: int, *, prompt_bytes: int = 1024) -> bytes:
    """A request for a stream of so many tokens."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": _text(0, prompt_bytes).decode()}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    data = json.dumps(body, separators=(",", ":")).encode()
    return _head(len(data)) + data


def _head(body_bytes: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % body_bytes
    )


def _text(seed: int, size_bytes: int) -> bytes:
    """Words, other ones for each seed."""
    words = (
        b"w%05d " % ((seed * 7919 + number * 104_729) % 99_991) for number in itertools.count()
    )
    return b"".join(itertools.islice(words, size_bytes // 7 + 1))[:size_bytes]
