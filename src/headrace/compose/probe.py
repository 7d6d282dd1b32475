"""The latency model's prior for engines nobody has measured yet: five seconds of prompts."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from headrace.compose.ask import Answer, AskError, ask
from headrace.core.latency import LatencyProfile
from headrace.core.model import Endpoint
from headrace.core.profile_fit import fit_profile

PROBE_S = 5.0
"""All of it together; what was measured by then is used."""
_PROMPT_WORDS = (24, 96, 224)
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
    samples = Samples()
    try:
        async with asyncio.timeout(PROBE_S):
            await _measure(url, model, rng, samples)
    except TimeoutError:
        pass  # a slow machine: fewer samples, the fit says whether they are enough
    except AskError as error:
        raise ValueError(f"the replica did not answer the probe: {error}") from None
    return fit_profile(samples.prefill, samples.decode, "probed", "probed at start")


async def _measure(url: str, model: str, rng: random.Random, samples: Samples) -> None:
    short, middle, long = _PROMPT_WORDS
    await _ask(url, model, _words(rng, short), 1)  # the first request also warms the engine up
    await _prefill(url, model, _words(rng, short), samples)
    await _decode(url, model, [_words(rng, short)], samples)
    await _prefill(url, model, _words(rng, middle), samples)
    await _decode(url, model, [_words(rng, short), _words(rng, short)], samples)
    await _prefill(url, model, _words(rng, long), samples)


def _words(rng: random.Random, count: int) -> str:
    """Words that no cache has seen."""
    return " ".join("".join(rng.choices(_SYLLABLES, k=3)) for _ in range(count))


async def _ask(url: str, model: str, prompt: str, max_tokens: int) -> Answer:
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    if max_tokens > 1:
        body["ignore_eos"] = True  # every stream decodes as long as the others
    return await ask(url, Endpoint.COMPLETIONS, body, timeout_s=PROBE_S)


async def _prefill(url: str, model: str, prompt: str, samples: Samples) -> None:
    answer = await _ask(url, model, prompt, 1)
    cached = answer.usage.cached_tokens
    samples.prefill.append((answer.usage.input_tokens - cached, cached, answer.ttft_s))


async def _decode(url: str, model: str, prompts: list[str], samples: Samples) -> None:
    """Streams side by side: what a step costs in such a batch."""
    asked = (_ask(url, model, prompt, _DECODE_TOKENS) for prompt in prompts)
    answers = await asyncio.gather(*asked)
    steps = [answer.tpot_s for answer in answers if answer.tpot_s is not None]
    if len(steps) < len(prompts):
        return
    context = sum(answer.usage.input_tokens + answer.usage.output_tokens / 2 for answer in answers)
    samples.decode.append((len(prompts), context, sum(steps) / len(steps)))
