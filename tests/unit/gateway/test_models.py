"""`/v1/models`: what can be asked for by name, each name once."""

from __future__ import annotations

import random

import msgspec
import pytest

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import ConfigChanged, ReplicaChanged
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec, Target
from headrace.gateway.models import model_list, render_model
from headrace.gateway.stored import StoredResponses

STARTED_S = 1_795_000_000
POOLS = (PoolSpec("first", "llama"), PoolSpec("second", "llama"), PoolSpec("third", "qwen"))


def dispatcher(*replicas: ReplicaChanged, aliases: tuple[Alias, ...] = ()) -> Dispatcher:
    made = Dispatcher(DispatcherSettings(), random.Random(1))
    made.handle(ConfigChanged(POOLS, aliases), 0.0)
    for replica in replicas:
        made.handle(replica, 0.0)
    return made


def replica(name: str, pool: str, **facts) -> ReplicaChanged:
    return ReplicaChanged(name, pool, f"http://{name}", ready=True, **facts)


@pytest.mark.parametrize("pools", [("first", "second"), ("second", "first")])
def test_the_context_told_is_one_that_every_replica_of_the_model_has(pools):
    mixed, even = pools
    fleet = dispatcher(
        replica("a", mixed, max_context_tokens=8192),
        replica("b", mixed, max_context_tokens=4096),
        replica("c", even, max_context_tokens=6144),
        replica("d", even),
    ).fleet
    told = {entry["id"]: entry.get("max_model_len") for entry in model_list(fleet, STARTED_S)}
    assert told == {"llama": 4096, "qwen": None}


def test_an_adapter_tells_its_model_and_an_alias_its_targets():
    aliases = (Alias("chat", (Target("llama", 0.9), Target("qwen", 0.1))),)
    lora = frozenset({"lora"})
    fleet = dispatcher(
        replica("a", "first", adapters=lora), replica("b", "second", adapters=lora), aliases=aliases
    ).fleet
    listed = model_list(fleet, STARTED_S)
    assert [entry["id"] for entry in listed] == ["llama", "qwen", "lora", "chat"]
    assert [entry["parent"] for entry in listed] == [None, None, "llama", None]
    assert listed[-1]["targets"] == ["llama", "qwen"]


def test_each_of_the_list_is_there_by_itself_and_nothing_else():
    fleet = dispatcher().fleet
    for entry in model_list(fleet, STARTED_S):
        body = render_model(fleet, STARTED_S, str(entry["id"]))
        assert body is not None
        assert msgspec.json.decode(body) == entry
    assert render_model(fleet, STARTED_S, "lla") is None


def test_of_too_many_stored_responses_the_oldest_are_forgotten():
    stored = StoredResponses(2)
    for number in range(4):
        stored.remember(f"r{number}", "replica", "llama")
    held = [number for number in range(4) if stored.holder_of(f"r{number}")]
    assert held == [2, 3]
