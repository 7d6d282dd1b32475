"""Readiness of engines that others run, over real HTTP."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from headrace.core.events import ReplicaChanged, ReplicaGone
from headrace.edges.fleets.dns import DnsName
from headrace.edges.fleets.listed import ListedFleet, ListedReplicas
from headrace.edges.fleets.readiness import HealthSettings, ReplicaWatch
from tests.unit.edges.fleets.engine import SETTINGS, Engine, Heard, access, last_is


@pytest.fixture
async def watch():
    """Start a fleet over some engines' URLs; it is closed at the end."""
    fleets = []

    async def start(*urls, heard, **options):
        replicas = ListedReplicas(access=access(**options), health=SETTINGS, urls=urls)
        fleet = ListedFleet(replicas, emit=heard.emit, notice=heard.notice, trouble=heard.trouble)
        fleets.append(fleet)
        await fleet.start()
        return fleet

    yield start
    for fleet in fleets:
        await fleet.close()


async def test_found_then_ready_with_its_context(watch):
    heard = Heard()
    async with Engine() as engine:
        await watch(engine.url, heard=heard)
        await heard.until(last_is(ready=True))
    name = f"pool/127.0.0.1:{engine.port}"
    assert heard.events == [
        ReplicaChanged(name, "pool", engine.url, ready=False),
        ReplicaChanged(name, "pool", engine.url, ready=True, max_context_tokens=4096),
    ]


async def test_adapters_come_and_go(watch):
    heard = Heard()
    async with Engine() as engine:
        await watch(engine.url, heard=heard)
        await heard.until(last_is(ready=True, adapters=frozenset()))
        engine.models.append({"id": "lora", "parent": "m"})
        await heard.until(last_is(adapters=frozenset({"lora"})))
        engine.models.pop()
        await heard.until(last_is(adapters=frozenset(), max_context_tokens=4096))


async def test_other_times_hold_at_once():
    heard, hourly = Heard(), HealthSettings(interval_s=3600.0, models_interval_s=3600.0)
    async with Engine() as engine:
        slow = ListedReplicas(access=access(), health=hourly, urls=(engine.url,))
        fleet = ListedFleet(slow, emit=heard.emit, notice=heard.notice)
        await fleet.start()
        await heard.until(last_is(ready=True))
        await fleet.change(replace(slow, health=SETTINGS))
        engine.models.append({"id": "lora", "parent": "m"})
        await heard.until(last_is(ready=True, adapters=frozenset({"lora"})))
        await fleet.close()
    assert len(heard.lines) == 1  # it is the same replica, ready all the while


async def test_an_engine_that_says_no_is_believed_at_once(watch):
    heard = Heard()
    async with Engine() as engine:
        await watch(engine.url, heard=heard)
        await heard.until(last_is(ready=True))
        engine.status = 503
        await heard.until(last_is(ready=False))
        engine.status = 200
        await heard.until(last_is(ready=True))


async def test_an_engine_that_is_gone_and_comes_back(watch):
    heard = Heard()
    async with Engine() as engine:
        await watch(engine.url, heard=heard)
        await heard.until(last_is(ready=True))
    await heard.until(last_is(ready=False))
    async with Engine(port=engine.port):
        await heard.until(last_is(ready=True))


async def test_one_missed_check_is_not_the_end():
    heard = Heard()
    async with Engine() as engine:
        watch = ReplicaWatch(
            "r", engine.url, access(), SETTINGS, emit=heard.emit, notice=heard.notice
        )
        await watch.check()
        assert last_is(ready=True)(heard)
    await watch.check()
    assert last_is(ready=True)(heard)
    await watch.check()
    assert last_is(ready=False)(heard)


async def test_the_engines_key_is_sent(watch):
    heard = Heard()
    async with Engine(key="sk-1") as engine:
        await watch(engine.url, heard=heard, key="sk-1")
        await heard.until(last_is(ready=True, max_context_tokens=4096))
    assert heard.lines == [f"replica pool/127.0.0.1:{engine.port} is ready"]


async def test_a_wrong_key_is_told_once(watch):
    heard = Heard()
    async with Engine(key="sk-1") as engine:
        await watch(engine.url, heard=heard, key="sk-2")
        told = "answers 401 to /v1/models; is the pool's API key right?"
        await heard.until_told(told)
        engine.status = 503
        await heard.until(last_is(ready=False))
        engine.status = 200
        await heard.until(last_is(ready=True))
    assert len([line for line in heard.lines if told in line]) == 1


async def test_an_engine_with_another_model_is_told(watch):
    heard = Heard()
    async with Engine() as engine:
        engine.models[:] = [{"id": "other"}]
        await watch(engine.url, heard=heard)
        await heard.until_told("does not serve 'm' but other")


async def test_an_engine_of_another_kind_is_told_once(watch):
    heard, told = Heard(), "lists its models as `engine: llamacpp` does"
    async with Engine() as engine:
        engine.models[:] = [{"id": "m", "owned_by": "llamacpp"}]
        await watch(engine.url, heard=heard)
        await heard.until_told(told)
        engine.status = 503
        await heard.until(last_is(ready=False))
        engine.status = 200
        await heard.until(last_is(ready=True))
    assert len([line for line in heard.lines if told in line]) == 1


async def test_each_change_is_told_once_with_its_reason(watch):
    heard = Heard()
    async with Engine() as engine:
        name = f"pool/127.0.0.1:{engine.port}"
        await watch(engine.url, heard=heard)
        await heard.until_told(f"replica {name} is ready")
        engine.status = 503
        await heard.until_told(f"replica {name} is down: answers 503 to /health")
        assert heard.troubles[name] == "answers 503 to /health"
        engine.status = 200
        await heard.until(lambda h: len(h.lines) == 3)
    await heard.until(lambda h: len(h.lines) == 4)
    assert heard.lines[2] == heard.lines[0]
    assert heard.lines[3].startswith(f"replica {name} is down: cannot connect")
    assert heard.troubles[name].startswith("cannot connect")


async def test_a_replica_that_is_dead_from_the_start_is_told(watch):
    heard = Heard()
    await watch("http://127.0.0.1:9", heard=heard)
    await heard.until_told("replica pool/127.0.0.1:9 is down: ")


def listed(*urls, **options):
    return ListedReplicas(access=access(), health=SETTINGS, urls=urls, **options)


async def test_another_list_drains_who_left_and_leaves_the_others_alone(watch):
    heard = Heard()
    async with Engine() as one, Engine() as two, Engine() as three:
        fleet = await watch(one.url, two.url, heard=heard)
        await heard.until(lambda h: sum(event.ready for event in h.events) == 2)
        before = len(heard.events)
        await fleet.change(listed(two.url, three.url, drain_s=0.05))
        await heard.until(lambda h: ReplicaGone(name_of(one)) in h.events)
        await heard.until(lambda h: name_of(three) in ready_replicas(h))
    after = [event for event in heard.events[before:] if name_of(three) not in repr(event)]
    assert after == [
        ReplicaChanged(name_of(one), "pool", one.url, ready=True, draining=True),
        ReplicaGone(name_of(one)),
    ]


async def test_a_fault_of_ours_ends_neither_the_checks_nor_a_change_of_the_list(watch):
    """A change waits for the first check of those that replace all."""
    heard, faults = Heard(), ["a fault"]

    def emit(event):
        heard.emit(event)
        if faults and event.ready and event.replica == name_of(two):
            raise ZeroDivisionError(faults.pop())

    async with Engine() as one, Engine() as two:
        fleet = await watch(one.url, heard=telling(emit, heard))
        await heard.until(last_is(ready=True))
        async with asyncio.timeout(10):
            await fleet.change(listed(two.url))
        await heard.until_told(f"replica {name_of(two)}: could not be checked: ZeroDivisionError")
        two.status = 503
        await heard.until_told(f"replica {name_of(two)} is down: answers 503")


def telling(emit, heard):
    return SimpleNamespace(emit=emit, notice=heard.notice, trouble=heard.trouble)


async def test_an_address_that_moves_to_a_name_notices_nothing(watch):
    heard = Heard()
    async with Engine() as engine:
        fleet = await watch(engine.url, heard=heard)
        await heard.until(last_is(ready=True))
        before = list(heard.events)
        name = DnsName("127.0.0.1", engine.port, interval_s=0.02)
        await fleet.change(listed(dns=name))
        assert heard.events == before
        await fleet.change(listed(engine.url))
        assert heard.events == before
        await fleet.change(listed())
        await heard.until(last_is(draining=True))


async def test_another_key_is_used_from_the_next_check_on(watch):
    heard = Heard()
    async with Engine(key="sk-1") as engine:
        fleet = await watch(engine.url, heard=heard, key="sk-2")
        await heard.until(lambda h: h.lines)
        await fleet.change(
            ListedReplicas(access=access(key="sk-1"), health=SETTINGS, urls=(engine.url,))
        )
        await heard.until(last_is(ready=True, max_context_tokens=4096))


def name_of(engine):
    return f"pool/127.0.0.1:{engine.port}"


def ready_replicas(heard):
    changes = [event for event in heard.events if isinstance(event, ReplicaChanged)]
    return {event.replica for event in changes if event.ready}


async def test_who_refuses_the_gateways_own_question_is_doubted(watch):
    heard = Heard()
    async with Engine(key="sk-1") as engine:
        await watch(engine.url, heard=heard, key="sk-2")
        await heard.until(last_is(ready=True, doubted=True))


async def test_who_lacks_the_pools_model_is_doubted_until_it_has_it(watch):
    heard = Heard()
    async with Engine() as engine:
        engine.models.append({"id": "other"})
        own = engine.models.pop(0)
        await watch(engine.url, heard=heard)
        await heard.until(last_is(ready=True, doubted=True))
        engine.models.append(own)
        await heard.until(last_is(ready=True, doubted=False))


async def test_an_empty_list_of_models_is_told_and_no_reason_for_doubt(watch):
    heard = Heard()
    async with Engine() as engine:
        engine.models.clear()
        await watch(engine.url, heard=heard)
        await heard.until_told("does not serve 'm' but nothing")
        await heard.until(last_is(ready=True, doubted=False))


async def test_the_wrong_model_is_told_with_the_remedy_each_time_it_comes(watch):
    told = (
        f"replica {{name}}: does not serve 'm' but {', '.join(f'o{n}' for n in range(10))} and 2 "
        "more and refuses requests for others; make one of these the `model` of pool 'pool', or "
        "start the engine under the pool's name"
    )
    heard = Heard()
    async with Engine() as engine:
        told = told.format(name=name_of(engine))
        own = list(engine.models)
        names = (*(f"o{n}" for n in range(10)), "x0", "x1")
        engine.models.clear()
        engine.models.extend({"id": name} for name in names)
        others = list(engine.models)
        await watch(engine.url, heard=heard)
        await heard.until(lambda h: h.lines.count(told) == 1)
        engine.models[:] = own
        await heard.until(last_is(ready=True, doubted=False))
        engine.models[:] = others
        await heard.until(lambda h: h.lines.count(told) == 2)


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("engine_name", ["vllm", "openai"])
async def test_who_has_no_list_of_models_is_ready_by_its_health_and_not_doubted(
    watch, status, engine_name
):
    heard = Heard()
    async with Engine() as engine:
        engine.models_status = status
        await watch(engine.url, heard=heard, engine=engine_name)
        await heard.until_told(f"has no /v1/models (HTTP {status})")
        await heard.until(last_is(ready=True, doubted=False))
        engine.status = 503
        await heard.until(last_is(ready=False))
        assert heard.troubles[name_of(engine)] == "answers 503 to /health"


async def test_who_has_neither_list_nor_health_is_not_ready(watch):
    heard = Heard()
    async with Engine() as engine:
        engine.status = engine.models_status = 404
        await watch(engine.url, heard=heard, engine="openai")
        await heard.until_told("is down: answers 404 to /health")
