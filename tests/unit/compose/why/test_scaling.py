"""`headrace why --scaling` on a terminal of 80 columns."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import inf

import msgspec
import pytest
from rich.console import Console
from starlette.applications import Starlette

from headrace.autoscaler.app import scaler_routes
from headrace.autoscaler.pool import NOT_LEARNED
from headrace.autoscaler.views import view_all
from headrace.cli import main
from headrace.compose.why.scaling import Document, layout_scaling
from headrace.core.profile_fit import LEARNED, PROBED
from headrace.core.scaling.plan import Signal
from headrace.gateway.control import ControlSettings
from headrace.gateway.control_server import serve_control
from tests.unit.autoscaler.reports import PROFILE, pool_report, replica, report
from tests.unit.autoscaler.test_program import World


def decided(world: World) -> None:
    async def look() -> None:
        for _ in range(3):
            await world.look(15.0)

    asyncio.run(look())


def shown(world: World) -> str:
    return laid_out(msgspec.json.decode(msgspec.json.encode(view_all(world.autoscaler))))


def laid_out(document: Document) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(layout_scaling(document))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_tells_what_is_there_what_is_wanted_and_why():
    world = World(report(pool_report(replica("r1"), replica("r2"))), min_replicas=3)
    decided(world)
    text = shown(world)
    assert "replicas: 2 ready, 1 starting; scaled by KEDA" in text
    assert "wanted: 3 replicas, by floor: min_replicas" in text
    assert "latency model: profile test" in text
    assert "at " in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_one_replica_is_told_as_one():
    world = World(report(pool_report(replica("r1"))), min_replicas=1)
    decided(world)
    assert "replicas: 1 ready; scaled by KEDA" in shown(world)


def test_it_tells_how_busy_memory_is_or_why_that_is_not_known():
    told = pool_report(replica("r1", decode_step_s=0.01, decoding_context_tokens=1e5))
    world = World(report(told))
    decided(world)
    text = " ".join(shown(world).split())
    assert "memory bandwidth: not known: no DCGM, and what seconds are reckoned by" in text
    known = replace(
        PROFILE, memory_bytes_per_s=3e12, weight_bytes_per_step=1e10, kv_bytes_per_token=5e4
    )
    world = World(report(replace(told, latency=known)))
    decided(world)
    text = " ".join(shown(world).split())
    assert "memory bandwidth: 50 % of the peak, modelled: streams show steps of 10.0 ms" in text


def test_where_nobody_gave_a_profile_nobody_is_told_what_bandwidth_would_need():
    told = pool_report(replica("r1", decode_step_s=0.01, decoding_context_tokens=1e5))
    learned = (replace(PROFILE, name=name) for name in (PROBED, f"{LEARNED}llama"))
    for latency in (None, *learned):
        world = World(report(replace(told, latency=latency)))
        decided(world)
        text = shown(world)
        assert f"latency model: {NOT_LEARNED.source if latency is None else latency.source}" in text
        assert "memory bandwidth" not in text


def test_before_demand_is_known_it_says_since_when_it_is_measured_and_what_there_is():
    busy = replica("r1", running=3.0, queue_depth=2.0)
    world = World(report(pool_report(busy, held_requests=1.0, started_at_s=999_000.0)))
    asyncio.run(world.look())
    at = time.strftime("%H:%M:%S", time.localtime(world.now))
    world.now += 10.0
    text = " ".join(shown(world).split())
    assert f"demand has been measured since {at} (10.0 s)" in text
    assert "3 requests running and 2 waiting in engines, 1 held at gateways" in text
    asyncio.run(world.look(5.0))
    text = " ".join(shown(world).split())
    assert "demand has been known since" in text
    assert "nothing is lowered until that is 300 s" in text
    for _ in range(25):
        asyncio.run(world.look(15.0))
    assert "demand has been known since" not in " ".join(shown(world).split())


def test_large_figures_are_written_in_full():
    world = World(report(pool_report(replica("r1"))))
    decided(world)
    document = msgspec.json.decode(msgspec.json.encode(view_all(world.autoscaler)))
    signal = document["pools"][0]["plan"]["signals"][0]
    signal["figures"] = [["exhaustion_s", 86_400.0], ["load", 1.64e-05]]
    assert "exhaustion_s 86,400, load 1.64e-05" in " ".join(laid_out(document).split())


def test_a_gateway_that_is_silent_is_named_and_so_is_what_follows():
    world = World(report(pool_report(replica("r1"))), None)
    decided(world)
    text = " ".join(shown(world).split())
    assert "gateway gw-1 tells nothing: gw-1 does not answer" in text
    assert "not everything is known" in text


def test_before_anything_was_told():
    text = shown(World(None))
    assert "replicas: none; scaled by KEDA" in text
    assert "nothing is decided yet" in text


@pytest.fixture
def control() -> Iterator[str]:
    """A control plane that shows a scaler, on a loop in a thread of its own."""
    world = World(report(pool_report(replica("r1"))))
    decided(world)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    app = Starlette(routes=list(scaler_routes(world.autoscaler)))
    settings = ControlSettings(port=0)
    server = asyncio.run_coroutine_threadsafe(serve_control(app, settings), loop).result(30)
    yield server.url
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_the_command_asks_and_shows(control: str, capsys: pytest.CaptureFixture[str]):
    assert main(["why", "--scaling", "--control", control]) == 0
    assert "pool llama" in capsys.readouterr().out
    assert main(["why", "--scaling", "--control", control, "--json"]) == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    assert told["pools"][0]["plan"]["replicas"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["an-id", "--scaling"], 2, "leave out the id"),
        (["--scaling", "--control", "http://127.0.0.1:9"], 1, "cannot reach http://127.0.0.1:9"),
    ],
    ids=["an id", "nobody there"],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["why", *arguments]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("body", "arguments", "said"),
    [
        (b'{"status":"ok"}', (), "is not a Headrace control plane"),
        (b"[]", ("hr-1",), "is not a Headrace control plane"),
        (b"hello", (), "is not a Headrace control plane"),
        (b'{"status":"ok"}', ("--scaling",), "is no Headrace scaler"),
        (b"[]", ("--scaling",), "is no Headrace scaler"),
    ],
)
def test_another_server_is_called_that(
    body: bytes, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            """Nothing: it is read from stderr what the command says."""

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert main(["why", *arguments, "--control", url]) == 1
        finally:
            server.shutdown()
            thread.join()
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"headrace: {url} {said}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scale", "4:1"], "'4:1' is no range of replicas"),
        (["--scale", "4"], "write it as LEAST:MOST"),
        (["--scale", "0:0"], "is no range"),
        (["--scale", "1:2", "--replicas", "3"], "give one of them"),
        (["--standby", "1"], "--standby needs --scale"),
    ],
)
def test_a_wrong_range_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    try:
        code = main(["up", *arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_pool_that_nobody_needs_says_so():
    world = World(report(pool_report()), min_replicas=0, warm_replicas=0)
    decided(world)
    assert "wanted: 0 replicas: nothing asks for any" in shown(world)


def test_a_figure_without_bound_is_shown_as_such():
    world = World(report(pool_report(replica("r1"))))
    decided(world)
    plan = world.pool.plan
    assert plan is not None
    [*others, ceiling] = plan.signals
    endless = replace(ceiling, figures=(("replica_requests_per_s", inf),))
    world.pool.plan = replace(plan, signals=(*others, endless))
    assert "replica_requests_per_s unbounded" in " ".join(shown(world).split())


def test_a_floor_of_the_calendar_tells_its_times():
    world = World(report(pool_report(replica("r1"))))
    decided(world)
    plan = world.pool.plan
    assert plan is not None
    times = (("begins_s", 1_795_716_000.0), ("ends_s", 1_795_752_000.0))
    office = Signal("schedule", 4, "office", times, kind="floor")
    world.pool.plan = replace(plan, signals=(office,))
    assert "from office, 2026-11-2" in " ".join(shown(world).split()).replace("4.00 ", "from ")
