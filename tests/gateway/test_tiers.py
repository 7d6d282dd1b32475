"""How a request chooses what it is promised, whatever way its body is read."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from headrace.gateway.settings import GatewaySettings
from tests.gateway.conftest import Rig, run_gateway
from tests.gateway.holding import HoldingCore

TIERS = ("default", "gold", "batch-2")
GOLD = {"x-headrace-tier": "gold", "x-llm-d-slo-ttft-ms": "500", "x-llm-d-slo-tpot-ms": "12.5"}
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"

WAYS = {
    "usual": (CHAT, {"json": {"model": "m", "messages": MESSAGES}}),
    "tools": (CHAT, {"json": {"model": "m", "messages": MESSAGES, "tools": []}}),
    "completions": ("/v1/completions", {"json": {"model": "m", "prompt": "hi"}}),
    "large": (CHAT, {"json": {"model": "m", "messages": MESSAGES, "x": "y" * 2_000_000}}),
    "form": (
        "/v1/audio/transcriptions",
        {"data": {"model": "m"}, "files": {"file": ("a.wav", b"x", "audio/wav")}},
    ),
}


async def echo(received, peer):
    await peer.json({"ok": True})


def running():
    return run_gateway(echo, make_core=HoldingCore, tiers=TIERS)


def seen(rig: Rig):
    return [
        (each.tier, each.ttft_target_s, each.tpot_target_s)
        for each in cast("HoldingCore", rig.plane.dispatcher).seen
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_asked_for_reaches_the_core(way):
    path, body = WAYS[way]
    async with running() as rig:
        for headers in ({}, GOLD, GOLD, {"x-headrace-tier": "batch-2"}):
            answer = await rig.client.post(path, headers=headers, **body)
            assert answer.status_code == 200
        gold = ("gold", 0.5, 0.0125)
        assert seen(rig) == [("", None, None), gold, gold, ("batch-2", None, None)]


async def test_targets_of_llm_d_go_on_to_the_engine_and_our_tier_does_not():
    async with running() as rig:
        for _ in range(2):
            await rig.client.post(CHAT, headers=GOLD, **WAYS["usual"][1])
        assert len(rig.engines[0].received) == 2
        for received in rig.engines[0].received:
            assert received.headers["x-llm-d-slo-ttft-ms"] == "500"
            assert received.headers["x-llm-d-slo-tpot-ms"] == "12.5"
            assert "x-headrace-tier" not in received.headers


@pytest.mark.parametrize("way", WAYS)
async def test_an_unknown_tier_is_told_which_there_are(way):
    path, body = WAYS[way]
    async with running() as rig:
        for _ in range(2):
            answer = await rig.client.post(path, headers={"x-headrace-tier": "Gold"}, **body)
            assert answer.status_code == 400
            assert answer.json()["error"] == {
                "message": "'x-headrace-tier' is 'Gold'; tiers here are: default, gold, batch-2.",
                "type": "invalid_request_error",
                "param": "x-headrace-tier",
                "code": "unknown_tier",
            }
        assert seen(rig) == []
        assert rig.telemetry.rejects == {("unknown_tier", ""): 2}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "first", "second", "code"),
    [
        ("x-headrace-tier", "gold", "batch-2", "conflicting_tiers"),
        ("x-headrace-tier", "", "gold", "conflicting_tiers"),
        ("x-llm-d-slo-ttft-ms", "500", "5000", "bad_slo"),
        ("x-llm-d-slo-tpot-ms", "25", "25.0", "bad_slo"),
    ],
)
async def test_a_field_with_two_values_is_refused_and_both_are_shown(
    way, name, first, second, code
):
    path, body = WAYS[way]
    async with running() as rig:
        for _ in range(2):
            headers = [(name, first), (name.upper(), second)]
            answer = await rig.client.post(path, headers=headers, **body)
            assert answer.status_code == 400
            assert answer.json()["error"] == {
                "message": f"{name!r} is {first!r} and also {second!r}; send the field once.",
                "type": "invalid_request_error",
                "param": name,
                "code": code,
            }
        assert seen(rig) == []


async def test_a_field_that_says_the_same_twice_is_taken():
    path, body = WAYS["usual"]
    async with running() as rig:
        headers = [*GOLD.items(), *GOLD.items()]
        assert (await rig.client.post(path, headers=headers, **body)).status_code == 200
        assert seen(rig) == [("gold", 0.5, 0.0125)]


@pytest.mark.parametrize(
    "value", ["", "0", "0.0", "-1", "fast", "1e3", "nan", "inf", "3600001", "5_0", "1,5", "9" * 40]
)
@pytest.mark.parametrize("name", ["x-llm-d-slo-ttft-ms", "x-llm-d-slo-tpot-ms"])
async def test_a_target_that_means_nothing_is_refused(name, value):
    async with running() as rig:
        answer = await rig.client.post(CHAT, headers={name: value}, **WAYS["usual"][1])
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, name, "bad_slo")
        assert error["message"].startswith(f"'{name}' is '{value}'; send milliseconds")
        assert seen(rig) == []


@pytest.mark.parametrize(("value", "ttft_s"), [("3600000", 3600.0), ("0.5", 0.0005)])
async def test_the_ends_of_what_a_target_may_be(value, ttft_s):
    async with running() as rig:
        headers = {"x-llm-d-slo-ttft-ms": value}
        assert (await rig.client.post(CHAT, headers=headers, **WAYS["usual"][1])).is_success
        assert seen(rig) == [("", ttft_s, None)]


async def test_what_is_no_request_to_an_engine_is_not_judged():
    async with running() as rig:
        for path in ("/health", "/ready", "/v1/models"):
            answer = await rig.client.get(path, headers={"x-headrace-tier": "none"})
            assert answer.status_code == 200


async def test_tiers_that_come_and_go_hold_for_heads_that_are_known():
    async with running() as rig:

        async def ask() -> int:
            return (await rig.client.post(CHAT, headers=GOLD, **WAYS["usual"][1])).status_code

        assert [await ask(), await ask()] == [200, 200]
        settings: GatewaySettings = rig.plane.settings
        rig.plane.configure(replace(settings, tiers=("default",)), None)
        assert await ask() == 400
        rig.plane.configure(settings, None)
        assert await ask() == 200
