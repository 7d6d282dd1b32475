"""The latency model's prior for engines nobody has measured yet: five seconds of prompts."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from headrace.compose.up.ask import Answer, AskError, ask
from headrace.core.latency import LatencyProfile
from headrace.core.model import Endpoint
from headrace.core.profile_fit import PROBED, fit_profile

PROBE_S = 5.0
"""All of it together; what was measured by then is used."""
_PROMPT_WORDS = (8, 32, 128)
"""Lengths that tell the cost of a token from that of a step, short enough for a laptop's CPU."""
_DECODE_TOKENS = 12
_SYLLABLES = ("ba", "do", "fe", "gi", "ku", "la", "mo", "ne", "pi", "ra", "so", "tu")


@dataclass(slots=True)
class Samples:
    """What `fit_profile` takes."""

    prefill: list[tuple[float, float, float]] = field(
        default_factory=list[tuple[float, float, float]]
    )
    decode: list[tuple[float, float, float]] = field(
        default_factory=list[tuple[float, float, float]]
    )


async def probe(url: str, model: str, rng: random.Random) -> LatencyProfile:
    """Measure one idle replica. Raises ValueError if what was measured supports no profile."""
    samples, cut_off = Samples(), False
    try:
        async with asyncio.timeout(PROBE_S):
            await _measure(url, model, rng, samples)
    except TimeoutError:
        cut_off = True  # a slow machine: fewer samples, the fit says whether they are enough
    except AskError as error:
        raise ValueError(f"the replica did not answer the probe: {error}") from None
    try:
        return fit_profile(samples.prefill, samples.decode, PROBED, "probed at start")
    except ValueError as error:
        if not cut_off:
            raise
        # What the fit lacks is for who chooses the prompts; here nobody does.
        raise ValueError(f"too slow or too busy to measure in {PROBE_S:g} s") from error


async def _measure(url: str, model: str, rng: random.Random, samples: Samples) -> None:
    short, middle, long = _PROMPT_WORDS
    clock = asyncio.get_running_loop().time
    ends_s = clock() + PROBE_S
    await _ask(url, model, "Hi")  # the first request also warms the engine up
    await _alone(url, model, _words(rng, short), samples)
    answer = await _alone(url, model, _words(rng, middle), samples)
    await _together(url, model, [_words(rng, short), _words(rng, short)], samples)
    # A prompt that is cut off would leave the engine with work that the first client waits for.
    decode_s = (answer.tpot_s or 0.0) * answer.usage.output_tokens
    if clock() + answer.ttft_s * long / middle + decode_s < ends_s:
        await _alone(url, model, _words(rng, long), samples)


def _words(rng: random.Random, count: int) -> str:
    """Words that no cache has seen."""
    return " ".join("".join(rng.choices(_SYLLABLES, k=3)) for _ in range(count))


async def _ask(url: str, model: str, prompt: str) -> Answer:
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": _DECODE_TOKENS,
        "temperature": 0,
        "ignore_eos": True,  # every stream decodes as long as the others
    }
    return await ask(url, Endpoint.COMPLETIONS, body, timeout_s=PROBE_S)


async def _alone(url: str, model: str, prompt: str, samples: Samples) -> Answer:
    """One stream: its prefill, and what a step costs with so much context."""
    answer = await _ask(url, model, prompt)
    cached = answer.usage.cached_tokens
    samples.prefill.append((answer.usage.input_tokens - cached, cached, answer.ttft_s))
    _add_decode([answer], samples)
    return answer


async def _together(url: str, model: str, prompts: list[str], samples: Samples) -> None:
    """Streams side by side: what a step costs in such a batch."""
    answers = await asyncio.gather(*(_ask(url, model, prompt) for prompt in prompts))
    _add_decode(answers, samples)


def _add_decode(answers: list[Answer], samples: Samples) -> None:
    steps = [answer.tpot_s for answer in answers if answer.tpot_s is not None]
    if len(steps) < len(answers):
        return  # an engine that sends an answer in one piece shows no step
    context = sum(answer.usage.input_tokens + answer.usage.output_tokens / 2 for answer in answers)
    samples.decode.append((len(answers), context, sum(steps) / len(steps)))
