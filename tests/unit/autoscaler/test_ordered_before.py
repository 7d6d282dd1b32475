"""A scaler that begins in the middle of a scale-up: replicas are ordered, and in no list yet."""

from __future__ import annotations

import asyncio
import json
import time

from headrace.autoscaler.metrics import ScalingCollector
from headrace.autoscaler.orders import Orders
from headrace.autoscaler.pool import reached_s
from headrace.autoscaler.settings import HistorySettings, PoolScaling, ScalingSection
from headrace.compose.serving.scaler import ScalerHost
from headrace.core.scaling.observation import Phase
from headrace.core.scaling.report import ScalingReport
from headrace.forecasting import pool_scaler
from tests.unit.autoscaler.reports import pool_report, replica, report
from tests.unit.autoscaler.test_history import Prometheus
from tests.unit.autoscaler.test_program import Source, World
from tests.unit.compose.serving.test_scaler_state import Heard
from tests.waiting import until


async def test_who_begins_without_state_in_a_scale_up_publishes_what_was_wanted_before():
    """Two are ready, eight start and are in no list."""
    world = World(report(pool_report(replica("r1"), replica("r2"))))
    world.pool.awaits_former_number = True
    await world.look()
    assert world.value() is None
    told = world.keda.published("llama", 0.0)
    assert told is None or told.value is None
    world.pool.ordered_before(10)
    assert world.value() is None  # until it is decided by
    await world.look(0.5)
    assert world.value() == 10.0
    await world.look(15.0)
    assert world.value() == 10.0
    seen = world.pool.observation
    assert seen is not None
    starting = [each for each in seen.replicas if each.phase is Phase.STARTING]
    assert [each.ordered_at_s for each in starting] == [0.0] * 8  # nobody knows when


async def test_a_guess_is_neither_kept_nor_told_to_prometheus_as_what_is_wanted():
    """A scaler that ends before it has its answer would else mislead the next one."""
    world = World(report(pool_report(replica("r1"), replica("r2"))))
    world.pool.awaits_former_number = True
    await world.look()
    world.autoscaler.store()
    assert world.stored[-1] == {}
    assert wanted_told(world) == []
    world.pool.ordered_before(10)
    world.autoscaler.store()
    assert world.stored[-1] == {}
    await world.look(0.5)
    world.autoscaler.store()
    assert world.stored[-1]["llama"]["granted"] == 10
    assert wanted_told(world) == [10]


def wanted_told(world: World) -> list[float]:
    families = ScalingCollector(world.autoscaler).collect()
    [family] = [each for each in families if each.name == "headrace_scaling_wanted_replicas"]
    return [sample.value for sample in family.samples]


async def test_more_that_are_there_count_and_who_can_not_tell_keeps_nobody_waiting():
    there = report(pool_report(*(replica(f"r{n}") for n in range(5))))
    world = World(there)
    world.pool.ordered_before(3)
    await world.look()
    assert world.value() == 5.0
    world = World(there)
    world.pool.awaits_former_number = True
    await world.look()
    world.pool.ordered_before(None)
    assert world.value() == 5.0


async def test_a_cold_start_that_began_before_a_restart_is_not_measured():
    def seen(*names: str) -> ScalingReport:
        return report(pool_report(*(replica(name, ready_at_s=1_000_050.0) for name in names)))

    world = World(seen("r1"), min_replicas=2)
    again = World(seen("r1"), min_replicas=2)
    await world.look()
    again.now = world.now + 40.0
    scaler = pool_scaler(again.scaler.settings, again.scaler.figures)
    scaler.restore(world.scaler.state())
    again.pool.go_on(scaler)
    await again.look()
    again.sources[0].told = seen("r1", "r2")
    await again.look(15.0)
    assert scaler.state()["cold_starts_s"] == []


async def test_the_number_of_before_is_asked_of_prometheus_where_nothing_was_kept(tmp_path):
    source = Source("gw", report(pool_report(replica("r1"))))
    async with Prometheus({}) as prometheus:
        prometheus.always = {"last_over_time(headrace:scaling_wanted_replicas:max": "9"}
        section = ScalingSection(
            pools={"llama": PoolScaling()},
            history=HistorySettings(prometheus=prometheus.url),
            state_file="state",
        )
        host = ScalerHost(section, tmp_path, [source], {}, Heard())
        pool = host.autoscaler.scaled["llama"]
        await host.start()
        async with asyncio.timeout(60.0):
            while (known := host.autoscaler.value_of("llama", 0.0)) is None:
                await asyncio.sleep(0.01)
        assert known[0].replicas == 9
        await host.stop()
        again = ScalerHost(section, tmp_path, [source], {}, Heard())
        await again.start()
        assert not again.autoscaler.scaled["llama"].awaits_former_number  # its state tells
        await again.stop()
    assert not pool.awaits_former_number


async def test_a_prometheus_that_is_not_there_is_told_and_keeps_nobody_waiting(tmp_path):
    heard = Heard()
    section = ScalingSection(
        pools={"llama": PoolScaling()}, history=HistorySettings(prometheus="http://127.0.0.1:9")
    )
    source = Source("gw", report(pool_report(replica("r1"))))
    host = ScalerHost(section, tmp_path, [source], {}, heard)
    await host.start()
    async with asyncio.timeout(60.0):
        while (known := host.autoscaler.value_of("llama", 0.0)) is None:
            await asyncio.sleep(0.01)
    await host.stop()
    assert known[0].replicas == 2  # warm
    assert any("what is ordered and not ready yet is not known" in line for line in heard.lines)


async def test_an_answer_that_nobody_can_read_ends_neither_the_scaler_nor_the_wait(tmp_path):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        nested = b"[" * 100_000  # deeper than a decoder goes
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(nested), nested))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    section = ScalingSection(
        pools={"llama": PoolScaling()}, history=HistorySettings(prometheus=url)
    )
    source = Source("gw", report(pool_report(replica("r1"))))
    host = ScalerHost(section, tmp_path, [source], {}, Heard())
    await host.start()
    async with server, asyncio.timeout(60.0):
        while host.autoscaler.value_of("llama", 0.0) is None:
            await asyncio.sleep(0.01)
        told = host.autoscaler.gathering.latest("llama")
        source.told = report(pool_report(replica("r1"), replica("r2")))
        while host.autoscaler.gathering.latest("llama") == told:
            await asyncio.sleep(0.01)
        await host.stop()


async def test_orders_that_prometheus_tells_of_are_as_old_as_it_tells(tmp_path):
    """Two are ready; four were ordered, then four more."""
    now = time.time()
    before = [[now - 90.0, "6"], [now - 75.0, "6"], [now - 30.0, "10"]]
    query = "last_over_time(headrace:scaling_wanted_replicas:max"
    source = Source("gw", report(pool_report(replica("r1"), replica("r2"))))
    async with Prometheus({query: [[now - 105.0, "2"], *before]}) as prometheus:
        prometheus.always = {query: "10"}
        section = ScalingSection(
            pools={"llama": PoolScaling()}, history=HistorySettings(prometheus=prometheus.url)
        )
        host = ScalerHost(section, tmp_path, [source], {}, Heard())
        await host.start()
        await until(lambda: host.autoscaler.value_of("llama", 0.0) is not None)
        pool = host.autoscaler.scaled["llama"]
        pool.look(host.autoscaler.gathering, time.time())
        seen = pool.observation
        await host.stop()
    assert seen is not None
    starting = [each.ordered_at_s for each in seen.replicas if each.phase is Phase.STARTING]
    assert starting == [now - 90.0] * 4 + [now - 30.0] * 4


async def test_no_cold_start_is_measured_from_what_prometheus_tells():
    """What misses may be one that broke down within an hour of the same number."""
    world = World(report(pool_report(replica("r1"))))
    world.pool.ordered_before(2, [(world.now - 3600.0, 2), (world.now, 2)])
    await world.look()
    await world.look(1.0)
    seen = world.pool.observation
    assert seen is not None
    assert [each.ordered_at_s for each in seen.replicas][1:] == [world.now - 1.0 - 3600.0]
    world.sources[0].told = report(
        pool_report(*(replica(name, ready_at_s=-5.0) for name in ("r1", "r2")))
    )
    await world.look(15.0)
    assert world.scaler.state()["cold_starts_s"] == []


def test_a_number_that_was_lower_in_between_was_ordered_anew():
    steps = [(10.0, 9), (20.0, 4), (30.0, 8), (40.0, 9)]
    assert [reached_s(steps, number) for number in (4, 8, 9, 10)] == [10.0, 30.0, 40.0, 0.0]
    assert reached_s([], 1) == 0.0


async def test_orders_outlive_a_restart_with_their_times():
    world = World(report(pool_report(replica("r1"))), min_replicas=3)
    await world.look()
    world.autoscaler.store()
    kept = json.loads(json.dumps(world.stored[-1]["llama"]))
    scaler, orders = pool_scaler(world.scaler.settings, world.scaler.figures), Orders()
    scaler.restore(kept)
    orders.restore(kept["orders"])
    again = World(report(pool_report(replica("r1"), replica("new"))), min_replicas=3)
    again.pool.go_on(scaler, orders)
    again.now = world.now + 40.0
    await again.look()
    await again.look(1.0)
    seen = again.pool.observation
    assert seen is not None
    told = {each.phase: each.ordered_at_s for each in seen.replicas if each.name != "r1"}
    # Who came between two processes was ready nobody knows how long ago: it is no cold start.
    assert told == {Phase.READY: 0.0, Phase.STARTING: world.now}
    # And who comes now is one, since its order is known.
    more = ("r1", "new", "newer")
    # By the gateway's clock, at which it is 0 when it tells.
    replicas = (replica(name, ready_at_s=-5.0) for name in more)
    again.sources[0].told = report(pool_report(*replicas))
    await again.look(15.0)
    assert scaler.state()["cold_starts_s"] == [again.now - 5.0 - world.now]


async def test_a_state_without_orders_reopens_them_without_a_time():
    world = World(report(pool_report(replica("r1"))), min_replicas=3)
    await world.look()
    again = World(report(pool_report(replica("r1"))), min_replicas=5)
    scaler = pool_scaler(again.scaler.settings, again.scaler.figures)
    scaler.restore(world.scaler.state())
    again.pool.go_on(scaler)
    await again.look()
    await again.look(1.0)
    seen = again.pool.observation
    assert seen is not None
    starting = [each.ordered_at_s for each in seen.replicas if each.phase is Phase.STARTING]
    assert starting == [0.0, 0.0, again.now - 1.0, again.now - 1.0]  # what is new is of now
