"""Users of a closed loop who converse: each prompt is all that was said before, and a message."""

from itertools import islice, pairwise

import pytest

from headrace.traffic.conversations import BLOCK_TOKENS
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Extras, Load, SharedPrefix
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.texts import Sizing, Texts

MIX = parse_lengths("short:40/8:3,long:100~0.5/30~0.5:1")
TURNS = 4


def conversations(users: int = 3, requests: int = 0, **extras) -> list[list[PlannedRequest]]:
    """The first 40 requests of each user, or all there are."""
    load = Load.closed(
        users, MIX, seed=7, think_s=2.0, requests=requests, turns=TURNS, extras=Extras(**extras)
    )
    return [[each for _, each in islice(load.of_user(user), 40)] for user in range(users)]


def test_a_turn_has_all_before_it_as_its_prefix():
    for talk in conversations():
        for first in range(0, 40, TURNS):
            turns = talk[first : first + TURNS]
            assert len({turn.length_class for turn in turns}) == 1
            for before, after in pairwise(turns):
                assert after.blocks[: len(before.blocks)] == before.blocks
                assert after.input_tokens > before.input_tokens + before.output_tokens
                assert len(after.blocks) == after.input_tokens // BLOCK_TOKENS
        firsts = talk[::TURNS]
        assert len({each.blocks[0] for each in firsts}) == len(firsts)  # nobody begins alike


def test_users_talk_of_other_things_and_the_same_seed_says_the_same():
    talks = conversations()
    assert talks == conversations()
    assert len({talk[0].blocks for talk in talks}) == len(talks)
    pauses = [each.at_s for talk in talks for each in talk]
    assert sum(pauses) / len(pauses) == pytest.approx(2.0, rel=0.3)


def test_requests_are_shared_out_and_numbered_once():
    assert [len(talk) for talk in conversations(requests=11)] == [4, 4, 3]
    load = Load.closed(3, MIX, seed=7, requests=11, turns=TURNS)
    numbers = sorted(index for user in range(3) for index, _ in load.of_user(user))
    assert numbers == list(range(11))


def test_tier_and_shared_prefix_are_those_of_a_conversation():
    given = {"tiers": (("gold", 1.0), ("batch", 1.0)), "shared": SharedPrefix(50, 4)}
    plain, dressed = conversations(), conversations(**given)
    for before, after in zip(plain, dressed, strict=True):
        for first in range(0, 40, TURNS):
            turns = after[first : first + TURNS]
            assert len({(each.tier, each.shared) for each in turns}) == 1
        assert [each.input_tokens - 50 for each in after] == [each.input_tokens for each in before]
    assert {each.tier for talk in dressed for each in talk} == {"gold", "batch"}


def test_the_words_of_a_turn_begin_with_those_before():
    texts = Texts(Sizing(), seed=1, block_tokens=BLOCK_TOKENS)
    load = Load.closed(1, MIX, seed=7, turns=TURNS)
    said = [
        (planned, texts.prompt(planned, index)[1].split())
        for index, planned in islice(load.of_user(0), TURNS)
    ]
    for (before, earlier), (after, later) in pairwise(said):
        whole = before.input_tokens // BLOCK_TOKENS * BLOCK_TOKENS
        assert later[:whole] == earlier[:whole]
        assert (len(earlier), len(later)) == (before.input_tokens, after.input_tokens)
