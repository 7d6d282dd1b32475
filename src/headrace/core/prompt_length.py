"""How many tokens a prompt has, by its bytes and what engines counted of others.

    tokens = overhead (only where a chat template is applied) + bytes * tokens per byte

The template wraps every chat in tokens that the client never sent (start marks, a default system
prompt, the opening of the answer); "Why is the sky blue?" is 36 tokens to one model, not 7. The
ratio is the tokenizer's and the same for all endpoints.

Both are fitted by weighted least squares with exponential forgetting: recursive least squares in
its information form (Haykin, "Adaptive Filter Theory", chapter on RLS), whose starting weight
is kept as a Gaussian prior rather than forgotten, so that prompts of one length leave it well
conditioned. The prior also settles what one sample means: a short prompt cannot be 29 tokens off
by its ratio, so it moves the overhead; a long one moves the ratio. Samples far off what their
spread allows are weighed down in proportion (Huber, "Robust Estimation of a Location Parameter",
1964).
"""

from __future__ import annotations

from math import sqrt
from typing import Final

START_BYTES_PER_TOKEN: Final = 4.0
LOWEST_BYTES_PER_TOKEN: Final = 0.5
HIGHEST_BYTES_PER_TOKEN: Final = 16.0

_START_RATIO: Final = 1.0 / START_BYTES_PER_TOKEN
_LOWEST_RATIO: Final = 1.0 / HIGHEST_BYTES_PER_TOKEN
_HIGHEST_RATIO: Final = 1.0 / LOWEST_BYTES_PER_TOKEN
_OVERHEAD_PRECISION: Final = 1.0 / 40.0**2
"""The overhead before any sample: 0 tokens, give or take 40."""
_RATIO_PRECISION: Final = 1.0 / 0.08**2
"""The ratio before any sample: 0.25 tokens per byte, give or take 0.08."""
_NOISE_VARIANCE: Final = 2.0**2
"""Of a sample: what no length explains, give or take 2 tokens."""
_TEXT_NOISE: Final = 0.1
"""Give or take a tenth by the text itself: prose and code differ."""
_MEDIA_NOISE: Final = 0.5
"""Give or take half of what media cost, which is only configured."""
_FAR: Final = 5.0
"""Standard deviations beyond which a sample is weighed down."""
_KEPT: Final = 1.0 - 1.0 / 100.0
"""Weight that earlier samples keep with each new one: some 100 are remembered."""

_SOLVED_EACH: Final = 50
_SOLVED_EVERY: Final = 8
"""Each of the first samples is solved for, then every so many: most of the work is in it."""


class PromptLength:
    """The learned length of prompts of one pool; both coefficients are never negative."""

    __slots__ = ("_samples", "_sums", "overhead_tokens", "tokens_per_byte")

    def __init__(self) -> None:
        self.overhead_tokens = 0.0
        self.tokens_per_byte = _START_RATIO
        # Weighted sums over samples of x*x, x*b, b*b, x*tokens and b*tokens, where b is the bytes
        # and x is 1 with a template and 0 without.
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)
        self._samples = 0

    def estimate(self, text_bytes: int, templated: bool) -> float:
        """Tokens of a prompt with this much text."""
        text_tokens = text_bytes * self.tokens_per_byte
        return self.overhead_tokens + text_tokens if templated else text_tokens

    def learn(
        self, text_bytes: int, tokens: int, *, templated: bool, media_tokens: int = 0
    ) -> None:
        """Take in one prompt that an engine counted.

        Args:
            text_bytes: its text, more than 0.
            tokens: the engine's count of all of it.
            templated: whether a chat template was applied.
            media_tokens: what its media are taken to be among `tokens`.
        """
        text_tokens, b = tokens - media_tokens, float(text_bytes)
        expected = b * self.tokens_per_byte
        if templated:
            expected += self.overhead_tokens
        noise = _NOISE_VARIANCE + _TEXT_NOISE**2 * expected * expected
        if media_tokens:
            noise += (_MEDIA_NOISE * media_tokens) ** 2
        weight = 1.0 / noise
        off = text_tokens - expected
        # The second look costs more and is needed only for what the noise alone does not explain.
        if off * off > _FAR * _FAR * noise:
            far = _FAR * sqrt(noise + self._uncertainty(b, templated))
            weight *= min(1.0, far / abs(off))
        xx, xb, bb, xt, bt = self._sums
        if templated:
            xx, xb, xt = xx + weight, xb + weight * b, xt + weight * text_tokens
        weight *= b
        bb, bt = bb + weight * b, bt + weight * text_tokens
        self._sums = (xx * _KEPT, xb * _KEPT, bb * _KEPT, xt * _KEPT, bt * _KEPT)
        self._samples += 1
        # Once much is known, the solution hardly moves from one sample to the next.
        if self._samples < _SOLVED_EACH or self._samples % _SOLVED_EVERY == 0:
            self._solve(xx, xb, bb, xt, bt)

    def _uncertainty(self, b: float, templated: bool) -> float:
        """Variance of an estimate, by what is known of the coefficients so far."""
        xx, xb, bb, _, _ = self._sums
        xx, bb = xx + _OVERHEAD_PRECISION, bb + _RATIO_PRECISION
        # The inverse of the normal matrix, between (x, b) and itself.
        along = xx * b * b + (bb - 2.0 * xb * b if templated else 0.0)
        return along / (xx * bb - xb * xb)

    def _solve(self, xx: float, xb: float, bb: float, xt: float, bt: float) -> None:
        """Minimise the weighted squares, prior included, within the bounds."""
        xx += _OVERHEAD_PRECISION
        bb += _RATIO_PRECISION
        bt += _RATIO_PRECISION * _START_RATIO
        overhead = (bb * xt - xb * bt) / (xx * bb - xb * xb)
        ratio = (bt - xb * overhead) / bb
        if overhead < 0.0 or not _LOWEST_RATIO <= ratio <= _HIGHEST_RATIO:
            # At a bound of one, the other has its best value beside it.
            ratio = (bt - xb * max(0.0, overhead)) / bb
            ratio = min(max(ratio, _LOWEST_RATIO), _HIGHEST_RATIO)
            overhead = max(0.0, (xt - xb * ratio) / xx)
        self.overhead_tokens = overhead
        self.tokens_per_byte = ratio
