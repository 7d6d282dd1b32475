"""Block ids stand for prefixes: two prompts have an id in common exactly where their texts agree.

The model beside each prompt is its text as a tuple of pieces, each token its own piece's number.
"""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from headrace.traffic.prompts import Popularity, Prompt, block_id

BLOCK_TOKENS = 4

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["grow", "rewrite", "branch"]), st.integers(0, 9), st.integers(0, 30)
    ),
    max_size=25,
)


def played(steps: list[tuple[str, int, int]]) -> list[tuple[Prompt, list[int]]]:
    """Prompts with their texts: tokens are numbers that are never used twice."""
    fresh = iter(range(1_000_000))
    prompts: list[tuple[Prompt, list[int]]] = [(Prompt(BLOCK_TOKENS, Random(1)), [])]
    for what, which, tokens in steps:
        prompt, text = prompts[which % len(prompts)]
        if what == "grow":
            prompt.grow(tokens)
            text += [next(fresh) for _ in range(tokens)]
        elif what == "rewrite":
            prompt.rewrite_from(tokens)
            del text[tokens:]
        else:
            prompts.append((prompt.branch(), text.copy()))
    return prompts


@given(STEPS)
def test_ids_agree_exactly_where_texts_do(steps: list[tuple[str, int, int]]):
    prompts = played(steps)
    for prompt, text in prompts:
        assert prompt.tokens == len(text)
        assert len(prompt.blocks) == len(text) // BLOCK_TOKENS
        assert len(set(prompt.blocks)) == len(prompt.blocks)
    for prompt, text in prompts:
        for other, other_text in prompts:
            for number, (one, two) in enumerate(zip(prompt.blocks, other.blocks, strict=False), 1):
                end = number * BLOCK_TOKENS
                assert (one == two) == (text[:end] == other_text[:end])


@given(
    st.lists(
        st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, 10_000)), unique=True, max_size=50
    )
)
def test_ids_fit_signed_integers_and_do_not_collide(places: list[tuple[int, int]]):
    ids = [block_id(key, position) for key, position in places]
    assert all(0 <= value < 1 << 63 for value in ids)
    # Keys a multiple of the golden number apart meet on purpose: their sums are the same.
    sums = {
        (key + (position + 1) * 0x9E3779B97F4A7C15) & ((1 << 64) - 1) for key, position in places
    }
    assert len(set(ids)) >= len(sums) - 1


@given(st.integers(1, 20), st.floats(0, 3), st.integers(0, 1000))
def test_ranks_are_within_bounds(count: int, exponent: float, seed: int):
    popularity, rng = Popularity(count, exponent), Random(seed)
    assert all(0 <= popularity.draw(rng) < count for _ in range(20))
