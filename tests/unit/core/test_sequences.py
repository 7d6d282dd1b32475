"""A request with several choices counts in the batch as the sequences that it is."""

import pytest

from headrace.core.decisions import ExplainedCandidate
from headrace.core.model import Endpoint, Outcome, Request
from tests.unit.core.driver import PROFILE, Driver


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.add("a")
    return driver


def sums_of(driver: Driver) -> tuple[int, ...]:
    replica = driver.replica("a")
    return (
        replica.in_flight,
        replica.sequences,
        replica.attended_tokens,
        replica.context_tokens,
        replica.decoding,
        replica.decoding_sequences,
        replica.decoding_context_tokens,
    )


def test_choices_share_the_cache_of_a_prompt_and_each_attends_to_it(driver):
    sent = driver.dispatched(prompt_tokens=1000, sequences=8)
    assert sums_of(driver) == (1, 8, 8000, 1000, 0, 0, 0)
    driver.first_token(sent.attempt)
    driver.progress(sent.attempt, 80)
    assert sums_of(driver) == (1, 8, 8080, 1080, 1, 8, 8080)
    driver.complete(sent.attempt)
    assert not any(sums_of(driver))


def test_each_prompt_of_a_list_is_attended_to_by_its_own_choices(driver):
    sent = driver.dispatched(prompt_tokens=1000, sequences=8, prompts=4)
    assert sums_of(driver)[1:4] == (8, 2000, 1000)
    driver.first_token(sent.attempt)
    driver.fail(sent.attempt, Outcome.BROKEN)
    assert not any(sums_of(driver))
    assert (
        Request("", "", Endpoint.COMPLETIONS, streamed=False, sequences=8, prompts=4).choices == 2
    )


def test_the_predicted_step_is_that_of_as_many_requests():
    """But for the KV cache of the prompt, which is there once."""
    predicted = list[float]()
    for requests, sequences in ((8, 1), (1, 8)):
        driver = Driver()
        driver.add("a")
        for _ in range(requests):
            driver.first_token(driver.dispatched(prompt_tokens=500, sequences=sequences).attempt)
        driver.dispatched(prompt_tokens=100)
        predicted.append(latest(driver).tpot_s or 0.0)
    assert predicted[0] == predicted[1]
    assert predicted[0] == pytest.approx(PROFILE.step_s(9, 8 * 500 + 100))


def test_slots_are_taken_by_sequences():
    predicted = list[float]()
    for slots in (9.0, 8.0):
        driver = Driver()
        driver.add("a")
        driver.scrape("a", max_sequences=slots)
        driver.dispatched(sequences=8)
        driver.dispatched()
        predicted.append(latest(driver).ttft_s or 0.0)
    assert predicted[1] > predicted[0] > 0.0


def test_a_list_of_texts_to_embed_takes_no_slots():
    """They are prefilled one after the other and never decode."""
    driver = Driver()
    driver.add("a")
    driver.scrape("a", max_sequences=256.0)
    texts = 2048
    sent = driver.dispatched(
        endpoint=Endpoint.EMBEDDINGS, prompt_tokens=texts, sequences=texts, prompts=texts
    )
    driver.dispatched()  # and is not refused for a wait of minutes
    assert sums_of(driver)[:2] == (2, 2)
    driver.complete(sent.attempt, output_tokens=0)
    assert sums_of(driver)[:2] == (1, 1)


def test_a_batch_of_choices_does_not_teach_that_the_replica_is_slow(driver):
    sent = driver.dispatched(prompt_tokens=1000, sequences=8)
    driver.wait(0.1)
    driver.first_token(sent.attempt)
    driver.wait(99 * PROFILE.step_s(8, 8000 + 400))
    driver.progress(sent.attempt, 800)
    driver.complete(sent.attempt, output_tokens=800)
    assert driver.replica("a").latency.decode_factor == pytest.approx(1.0, abs=0.02)


def latest(driver: Driver) -> ExplainedCandidate:
    """The replica that was chosen last."""
    explained = driver.dispatcher.decisions.explain_last()
    assert explained is not None
    return explained.attempts[0].candidates[0]
