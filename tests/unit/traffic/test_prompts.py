"""Prompts as chains of block ids that are numbered when somebody looks."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from headrace.traffic.prompts import Prompt

BLOCK_TOKENS = 16
Changes = list[tuple[bool, int]]
CHANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 200)), max_size=12)
"""Growths (true) and rewrites, with a number of tokens."""


def _changed(prompt: Prompt, changes: Changes, *, looks: bool) -> Prompt:
    for grows, tokens in changes:
        if grows:
            prompt.grow(tokens)
        else:
            prompt.rewrite_from(tokens)
        if looks:
            assert len(prompt.blocks) == prompt.tokens // BLOCK_TOKENS
    return prompt


@given(CHANGES, CHANGES)
def test_ids_do_not_depend_on_who_looks_when(changes: Changes, later: Changes):
    looked_at, alone = Prompt(BLOCK_TOKENS, Random(1)), Prompt(BLOCK_TOKENS, Random(1))
    _changed(looked_at, changes, looks=True)
    _changed(alone, changes, looks=False)
    branches = [_changed(each.branch(), later, looks=False) for each in (looked_at, alone)]
    assert looked_at.blocks == alone.blocks
    assert branches[0].blocks == branches[1].blocks


@given(CHANGES, CHANGES)
def test_a_copy_stays_as_it_is(changes: Changes, later: Changes):
    prompt = _changed(Prompt(BLOCK_TOKENS, Random(1)), changes, looks=False)
    before, kept = (prompt.tokens, prompt.blocks), prompt.copy()
    _changed(prompt, later, looks=True)
    assert (kept.tokens, kept.blocks) == before


def test_a_copy_draws_no_key():
    drawn, left = Random(1), Random(1)
    Prompt(BLOCK_TOKENS, drawn).copy()
    Prompt(BLOCK_TOKENS, left)
    assert drawn.getrandbits(64) == left.getrandbits(64)
