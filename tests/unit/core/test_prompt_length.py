"""The length of prompts: what one answer teaches, and what the dispatcher makes of it."""

import pytest

from headrace.core import routing
from headrace.core.model import PROMPT_BLOCK_BYTES, Endpoint, Request
from headrace.core.prompt_length import PromptLength
from tests.unit.core.driver import Driver, chain

SKY_BYTES, SKY_TOKENS = 29, 36


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.add("a")
    return driver


def answer(driver: Driver, input_tokens: int, **details) -> None:
    attempt = driver.dispatched(**details).attempt
    driver.first_token(attempt)
    driver.complete(attempt, input_tokens=input_tokens)


def estimate(driver: Driver, endpoint: Endpoint = Endpoint.CHAT, **details) -> int:
    request = Request("asked", "model", endpoint, True, **details)
    return routing.ask_of(request, driver.dispatcher.fleet.pools["pool"], "").prompt_tokens


def test_before_any_answer_there_are_four_bytes_to_a_token():
    length = PromptLength()
    assert length.estimate(4000, True) == length.estimate(4000, False) == 1000.0


def test_one_short_chat_already_shows_the_template():
    length = PromptLength()
    length.learn(SKY_BYTES, SKY_TOKENS, templated=True)
    assert length.estimate(SKY_BYTES, True) == pytest.approx(SKY_TOKENS, abs=1.0)
    assert length.estimate(40_000, True) == pytest.approx(10_000, rel=0.02)


def test_one_long_chat_moves_the_ratio_and_not_the_template():
    length = PromptLength()
    length.learn(40_000, 13_000, templated=True)
    assert length.estimate(40_000, True) == pytest.approx(13_000, rel=0.1)
    assert length.overhead_tokens < 10.0


def test_what_has_no_template_shows_only_the_ratio():
    length = PromptLength()
    for _ in range(50):
        length.learn(120, 40, templated=False)
    assert length.overhead_tokens == 0.0
    assert length.estimate(1200, False) == pytest.approx(400, rel=0.05)


def test_chats_and_plain_prompts_share_the_ratio():
    length = PromptLength()
    for text_bytes in (2000, 6000, 20_000) * 5:
        length.learn(text_bytes, text_bytes // 3, templated=False)
    for _ in range(5):
        length.learn(60, 49, templated=True)
    assert length.estimate(6000, True) == pytest.approx(2029, rel=0.02)
    assert length.estimate(6000, False) == pytest.approx(2000, rel=0.02)


def test_no_coefficient_becomes_negative():
    length = PromptLength()
    for _ in range(50):
        length.learn(100, 1, templated=True)
        length.learn(10_000, 5000, templated=True)
    assert length.overhead_tokens == 0.0
    assert length.tokens_per_byte > 0.0


@pytest.mark.parametrize("tokens", [1, 1_000_000])
def test_the_ratio_stays_within_its_bounds(tokens):
    length = PromptLength()
    for _ in range(2000):
        length.learn(4000, tokens, templated=False)
    assert 1 / 16 <= length.tokens_per_byte <= 2.0


def test_a_wild_count_is_taken_for_an_outlier():
    length = PromptLength()
    for text_bytes in (40, 400, 4000) * 10:
        length.learn(text_bytes, 29 + text_bytes // 4, templated=True)
    length.learn(400, 1_000_000, templated=True)
    assert length.estimate(400, True) == pytest.approx(129, rel=0.05)


def test_a_changed_template_is_learned_anew():
    length = PromptLength()
    for overhead in (29, 90):
        for _ in range(500):
            length.learn(100, overhead + 25, templated=True)
    assert length.estimate(100, True) == pytest.approx(115, rel=0.05)


def test_the_dispatcher_estimates_by_what_answers_taught(driver):
    answer(driver, SKY_TOKENS, text_bytes=SKY_BYTES)
    for endpoint in (Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES):
        assert estimate(driver, endpoint, text_bytes=SKY_BYTES) == pytest.approx(SKY_TOKENS, abs=1)
    for endpoint in (Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS):
        assert estimate(driver, endpoint, text_bytes=SKY_BYTES) == pytest.approx(7, abs=1)


def test_token_ids_are_exact_and_teach_nothing(driver):
    answer(driver, SKY_TOKENS, text_bytes=SKY_BYTES)
    before = estimate(driver, text_bytes=4000)
    answer(driver, 5000, text_bytes=4000, prompt_tokens=5000, endpoint=Endpoint.COMPLETIONS)
    assert estimate(driver, text_bytes=4000) == before
    assert estimate(driver, text_bytes=4000, prompt_tokens=777) == 777


def test_media_are_taken_off_and_a_wrong_guess_of_theirs_moves_little(driver):
    media_tokens = driver.dispatcher.fleet.pools["pool"].spec.media_tokens
    for text_bytes in (40, 400, 4000) * 4:
        answer(driver, 29 + text_bytes // 4, text_bytes=text_bytes)
    answer(driver, 29 + 100 + 2 * media_tokens, text_bytes=400, media_items=2)
    assert estimate(driver, text_bytes=400) == pytest.approx(129, abs=2)
    answer(driver, 29 + 100 + 3 * media_tokens, text_bytes=400, media_items=2)
    assert estimate(driver, text_bytes=400) == pytest.approx(129, abs=3)
    assert estimate(driver, text_bytes=400, media_items=2) == pytest.approx(
        129 + 2 * media_tokens, abs=3
    )


def test_a_hit_holds_the_template_too(driver):
    for text_bytes in (40, 400, 4000) * 10:
        answer(driver, 29 + text_bytes // 4, text_bytes=text_bytes)
    prompt = chain("long")
    text_bytes = len(prompt) * PROMPT_BLOCK_BYTES + 100
    driver.serve(blocks=prompt, text_bytes=text_bytes)
    driver.dispatched(id="again", blocks=prompt, text_bytes=text_bytes)
    driver.dispatched(id="other", blocks=chain("other"), text_bytes=text_bytes)
    hits = [explained_hit(driver, request_id) for request_id in ("again", "other")]
    assert hits == [pytest.approx(29 + 512, abs=3), 0]


def explained_hit(driver: Driver, request_id: str) -> int:
    explanation = driver.dispatcher.decisions.explain(request_id)
    assert explanation is not None
    return explanation.attempts[0].candidates[0].hit_tokens
