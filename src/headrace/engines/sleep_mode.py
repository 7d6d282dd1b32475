"""Engines that give their GPU's memory back and take it again: what to ask of them.

vLLM's sleep mode. Calls and answers are those of a real 0.32.0 (acceptance/test_vllm_sleep.py, with
the build for CPUs, which has no memory to give back); what becomes of memory is told by its docs:

    POST /sleep?level=1     weights to the host's memory, KV cache forgotten; running requests are
                            aborted, those that come wait inside the engine until it is woken
    POST /sleep?level=2     the weights are forgotten too; they are read again on the way back:
                            weights' memory, POST /collective_rpc reload_weights, KV cache's memory
    POST /wake_up           answers when the engine is awake: {"status": "awake", …}
    GET  /is_sleeping       {"is_sleeping": true}, also while memory is still missing

They are there only with VLLM_SERVER_DEV_MODE=1, and give nothing back without
`--enable-sleep-mode`: such an engine pauses and says all the same that it sleeps, so that no answer
proves that memory was given back. `/health` answers 200 all the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

LEVELS = (1, 2)


@dataclass(frozen=True, slots=True)
class Post:
    """One request to make; it is done when it is answered by 200."""

    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class SleepMode:
    """What to ask of one kind of engine. Both tables are by level."""

    to_sleep: dict[int, tuple[Post, ...]]
    to_wake: dict[int, tuple[Post, ...]]
    state_path: str
    """Tells whether it sleeps."""
    needs: str
    """What the engine must be started with, for whom it does not work."""


class _State(msgspec.Struct):
    is_sleeping: bool


def is_sleeping(body: bytes) -> bool:
    """Read the answer from `state_path`. Raises `ValueError` if it is none."""
    try:
        return msgspec.json.decode(body, type=_State).is_sleeping
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


VLLM = SleepMode(
    to_sleep={level: (Post(f"/sleep?level={level}"),) for level in LEVELS},
    to_wake={
        1: (Post("/wake_up"),),
        2: (
            Post("/wake_up?tags=weights"),
            Post("/collective_rpc", b'{"method":"reload_weights"}'),
            Post("/wake_up?tags=kv_cache"),
        ),
    },
    state_path="/is_sleeping",
    needs="`--enable-sleep-mode` and the environment variable VLLM_SERVER_DEV_MODE=1",
)
