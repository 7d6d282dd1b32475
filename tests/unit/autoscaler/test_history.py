"""Demand of the past, from Prometheus and from a file."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace.autoscaler import history
from headrace.autoscaler.history import FileHistory, PrometheusHistory
from headrace.autoscaler.minutes import MinuteLog
from headrace.autoscaler.ports import SourceError
from headrace.core.scaling.demand_history import DemandSample
from headrace.core.scaling.observation import GatewayReport, PoolObservation

DAY_S = 86400.0
NOW_S = 1_790_000_030.0


class Prometheus:
    """Answers `query_range` with what a test put there."""

    def __init__(self, values: dict[str, list[list[object]]], status: int = 200) -> None:
        self.values = values
        self.status = status
        self.always: dict[str, str] = {}
        """Values that a query has whenever it is asked."""
        self.asked: list[dict[str, list[str]]] = []
        self.url = ""

    async def __aenter__(self) -> Prometheus:
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        query = parse_qs(urlsplit(head.split()[1]).query)
        self.asked.append(query)
        name = query["query"][0].partition("{")[0]
        begin, end = float(query["start"][0]), float(query["end"][0])
        values = [each for each in self.values.get(name, []) if begin <= float(str(each[0])) <= end]
        values += [[end, self.always[name]]] if name in self.always else []
        series = [{"metric": {"pool": "p"}, "values": values}] if values else []
        body = {"status": "success", "data": {"resultType": "matrix", "result": series}}
        if self.status != 200:
            body = {"status": "error", "error": "too many samples"}
        text = json.dumps(body)
        writer.write(
            f"HTTP/1.1 {self.status} X\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
        )
        await writer.drain()
        writer.close()


async def test_rates_become_totals_of_minutes_and_gaps_stay_gaps():
    minute = NOW_S // 60 * 60
    values: dict[str, list[list[object]]] = {
        "headrace:requests:rate1m": [[minute - 120, "2"], [minute - 60, "NaN"], [minute, "0.5"]],
        "headrace:input_tokens:rate1m": [[minute - 120, "1000"], [minute, "100"]],
        "headrace:output_tokens:rate1m": [[minute - 120, "300"], [minute, "50"]],
    }
    async with Prometheus(values) as prometheus:
        found = await PrometheusHistory(prometheus.url, 1.0).read('p"x', NOW_S)
    assert found == [
        DemandSample(minute - 180, 60.0, 120.0, 60_000.0, 18_000.0),
        DemandSample(minute - 60, 60.0, 30.0, 6_000.0, 3_000.0),
    ]
    assert '{pool="p\\"x"}' in prometheus.asked[0]["query"][0]


async def test_what_was_wanted_last_is_asked_for_as_of_a_moment():
    async with Prometheus({}) as prometheus:
        source = PrometheusHistory(prometheus.url, 1.0)
        assert await source.wanted("p", NOW_S) is None
        query = 'last_over_time(headrace:scaling_wanted_replicas:max{pool="p"}[3600s])'
        asked = prometheus.asked[-1]
        assert asked["query"] == [query]
        assert float(asked["start"][0]) == float(asked["end"][0]) == NOW_S
        prometheus.values["last_over_time(headrace:scaling_wanted_replicas:max"] = [[NOW_S, "7"]]
        assert await source.wanted("p", NOW_S) == 7


async def test_two_weeks_are_asked_for_in_parts():
    async with Prometheus({}) as prometheus:
        assert await PrometheusHistory(prometheus.url, 14.0).read("p", NOW_S) == []
    spans = [(float(q["start"][0]), float(q["end"][0])) for q in prometheus.asked[::3]]
    assert len(spans) == 3
    assert spans[0][0] == pytest.approx(NOW_S - 14 * DAY_S, abs=60)
    assert spans[-1][1] == NOW_S
    assert all(after[0] == before[1] + 60 for before, after in pairwise(spans))


async def test_minutes_whose_lengths_are_not_known_are_left_out():
    at_s = NOW_S // 60 * 60
    values: dict[str, list[list[object]]] = {
        "headrace:requests:rate1m": [[at_s - 60 * n, str(n % 2)] for n in range(1, 7)],
        "headrace:input_tokens:rate1m": [[at_s - 60 * n, "500"] for n in (1, 3)],
        "headrace:output_tokens:rate1m": [[at_s - 60 * n, "100"] for n in (1, 2, 5)],
    }
    async with Prometheus(values) as prometheus:
        found = await PrometheusHistory(prometheus.url, 1.0).read("p", NOW_S)
    assert [(at_s - each.begins_s) / 60 - 1 for each in found] == [6, 4, 2, 1]


async def test_somebody_elses_error_page_is_told_by_its_status():
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 X\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(SourceError, match=r"answers 502$"):
        await PrometheusHistory(url, 1.0).read("p", NOW_S)
    server.close()
    await server.wait_closed()


async def test_what_is_wrong_is_said():
    async with Prometheus({}, status=422) as prometheus:
        with pytest.raises(SourceError, match="answers 422: too many samples"):
            await PrometheusHistory(prometheus.url, 1.0).read("p", NOW_S)
    with pytest.raises(SourceError, match=r"history: http://127\.0\.0\.1:9"):
        await PrometheusHistory("http://127.0.0.1:9", 1.0).read("p", NOW_S)


async def test_a_file_holds_what_was_kept_and_survives_a_line_that_was_cut(tmp_path: Path):
    history = FileHistory(tmp_path / "history.jsonl", 14.0)
    assert await history.read("p", NOW_S) == []
    old = DemandSample(NOW_S - 15 * DAY_S, 60.0, 1.0, 2.0, 3.0)
    one, two = (DemandSample(NOW_S - ago, 60.0, 1.0, 2.0, 3.0) for ago in (120.0, 60.0))
    for sample in (old, two, one):
        history.keep("p", sample)
    history.keep("q", one)
    with history.path.open("ab") as file:
        file.write(b'{"pool":"p","sample":{"begi')
    assert await history.read("p", NOW_S) == [one, two]


def told(
    gateway: str,
    requests: float,
    *,
    started_at_s: float = 1.0,
    at_s: float = 1e4,
    age_s: float = 0.0,
) -> GatewayReport:
    return GatewayReport(
        gateway,
        started_at_s,
        age_s=age_s,
        reported_at_s=at_s,
        requests=requests,
        input_tokens=10 * requests,
        output_tokens=3 * requests,
    )


def seen(*gateways: GatewayReport, expected: tuple[str, ...] = ()) -> PoolObservation:
    return PoolObservation(0.0, "p", gateways=gateways, expected_gateways=expected)


async def test_a_line_that_was_cut_takes_none_of_those_behind_it(tmp_path: Path):
    file = FileHistory(tmp_path / "history.jsonl", 14.0)
    first, second = (DemandSample(60.0 * minute, 60.0, 1.0, 2.0, 3.0) for minute in (1, 2))
    file.path.write_bytes(b'{"pool": "p", "sample": {"begins_s": 0.0, "la')  # a disk that was full
    for sample in (first, second):
        file.keep("p", sample)
    assert await file.read("p", 600.0) == [first, second]


async def test_of_a_minute_that_a_clock_told_twice_the_last_line_holds(tmp_path: Path):
    file = FileHistory(tmp_path / "history.jsonl", 14.0)
    fast = [DemandSample(60.0 * minute, 60.0, 100.0, 2.0, 3.0) for minute in (4, 5, 6)]
    right = [DemandSample(60.0 * minute, 60.0, 1.0, 2.0, 3.0) for minute in (3, 4, 5)]
    for sample in (*fast, *right):
        file.keep("p", sample)
        file.keep("q", fast[0])
    assert await file.read("p", 600.0) == [*right, fast[2]]
    assert await file.read("q", 600.0) == [fast[0]]


def test_minutes_follow_from_totals_over_gateways_and_restarts():
    kept: list[DemandSample] = []
    log = MinuteLog(lambda _pool, sample: kept.append(sample))
    log.look("p", seen(told("a", 100), told("b", 7)), 600.0)
    log.look("p", seen(told("a", 103), told("b", 7)), 630.0)
    log.look("p", seen(told("a", 105), told("b", 8)), 660.0)
    assert kept == [DemandSample(600.0, 60.0, 6.0, 60.0, 18.0)]
    log.look("p", seen(told("a", 2, started_at_s=700.0, at_s=720.0), told("b", 9)), 721.0)
    assert kept[-1] == DemandSample(660.0, 60.0, 3.0, 30.0, 9.0)
    log.look("p", seen(told("a", 9, started_at_s=700.0), told("b", 9)), 900.0)  # after a silence
    assert len(kept) == 2
    log.look("p", seen(told("a", 10, started_at_s=700.0), told("b", 9)), 961.0)
    assert kept[-1] == DemandSample(900.0, 60.0, 1.0, 10.0, 3.0)


def test_what_engines_refuse_is_part_of_no_minute():
    kept: list[DemandSample] = []
    log = MinuteLog(lambda _pool, sample: kept.append(sample))
    log.look("p", seen(told("a", 100)), 600.0)
    refused = replace(told("a", 110), refused_requests=4, refused_input_tokens=4_000)
    log.look("p", seen(refused), 660.0)
    assert kept == [DemandSample(600.0, 60.0, 6.0, 0.0, 30.0)]
    # What came in the minute before is refused in this one: less than nothing is nothing.
    log.look("p", seen(replace(refused, refused_requests=6)), 720.0)
    assert kept[-1] == DemandSample(660.0, 60.0, 0.0, 0.0, 0.0)


def test_gateways_that_have_gone_are_forgotten_and_one_that_is_back_begins_anew():
    kept: list[DemandSample] = []
    log = MinuteLog(lambda _pool, sample: kept.append(sample))
    log.look("p", seen(told("stays", 0), told("gone", 5)), 600.0)
    for minute in range(11, 25):
        log.look("p", seen(told("stays", minute)), 60.0 * minute)
    assert list(log._known["p"]) == ["stays"]
    log.look("p", seen(told("stays", 25), told("gone", 500)), 1500.0)
    assert kept[-1].begins_s == 1380.0  # what came to that one since is not known
    log.look("p", seen(told("stays", 26), told("gone", 507)), 1560.0)
    assert kept[-1] == DemandSample(1500.0, 60.0, 8.0, 80.0, 24.0)


def test_minutes_that_are_known_in_part_are_left_out():
    kept: list[DemandSample] = []
    log = MinuteLog(lambda _pool, sample: kept.append(sample))
    log.look("p", seen(told("a", 100), expected=("a",)), 600.0)
    log.look("p", seen(told("a", 110), expected=("a",)), 660.0)
    assert kept == [DemandSample(600.0, 60.0, 10.0, 100.0, 30.0)]
    # It hangs: the same report grows older, and nothing is demand that came to it meanwhile.
    for minute in range(12, 17):
        at_s = 60.0 * minute
        log.look("p", seen(told("a", 110, age_s=at_s - 660.0), expected=("a",)), at_s)
    log.look("p", seen(told("a", 900), expected=("a",)), 1020.0)
    assert len(kept) == 1
    log.look("p", seen(told("a", 907), expected=("a",)), 1080.0)
    assert kept[1:] == [DemandSample(1020.0, 60.0, 7.0, 70.0, 21.0)]
    # One of two that should tell something tells nothing.
    log.look("p", seen(told("a", 909), expected=("a", "b")), 1140.0)
    log.look("p", seen(told("a", 912), told("b", 1_000), expected=("a", "b")), 1200.0)
    log.look("p", seen(told("a", 915), told("b", 1_001), expected=("a", "b")), 1260.0)
    assert kept[2:] == [DemandSample(1200.0, 60.0, 4.0, 40.0, 12.0)]
    # One of them leaves, and nobody tells how many came to it until then.
    log.look("p", seen(told("a", 916), expected=("a",)), 1320.0)
    log.look("p", seen(told("a", 921), expected=("a",)), 1380.0)
    assert kept[3:] == [DemandSample(1320.0, 60.0, 5.0, 50.0, 15.0)]


def test_totals_that_cannot_be_of_one_gateway_that_goes_on_are_no_demand():
    kept: list[DemandSample] = []
    log = MinuteLog(lambda _pool, sample: kept.append(sample))
    # Two that answer in turns behind one address, and one whose totals went back.
    for minute, (requests, started_at_s) in enumerate(
        [(500, 100.0), (9_000, 200.0), (510, 100.0), (9_020, 200.0), (4_000, 200.0)], 10
    ):
        now = 60.0 * minute
        log.look("p", seen(told("a", requests, started_at_s=started_at_s, at_s=now)), now)
    assert kept == []
    # A gateway that has just begun counts from its start on.
    log.look("p", seen(told("a", 4_005, started_at_s=200.0, at_s=900.0)), 900.0)
    new = told("c", 30, started_at_s=930.0, at_s=960.0)
    log.look("p", seen(told("a", 4_010, started_at_s=200.0, at_s=960.0), new), 960.0)
    assert [(each.begins_s, each.requests) for each in kept] == [(840.0, 5.0), (900.0, 35.0)]


async def test_of_a_file_that_grows_too_long_the_newest_stay(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(history, "MAX_FILE_BYTES", 2000)
    file = FileHistory(tmp_path / "demand.jsonl", days=1.0)
    for minute in range(200):
        file.keep("p", DemandSample(60.0 * minute, 60.0, 1.0, 2.0, 3.0))
        assert sum(part.stat().st_size for part in tmp_path.iterdir()) <= 2200
        found = [each.begins_s for each in await file.read("p", 20_000.0)]
        # At every moment, also when the file has just become its older part.
        assert found == [60.0 * each for each in range(minute + 1 - len(found), minute + 1)]
        assert len(found) >= min(minute + 1, 9)


async def test_a_full_file_is_not_written_anew(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(history, "MAX_FILE_BYTES", 2000)
    file = FileHistory(tmp_path / "demand.jsonl", days=1.0)
    sample, before = DemandSample(60.0, 60.0, 1.0, 2.0, 3.0), None
    while not history.older_part(file.path).exists():
        before = file.path.stat().st_ino if file.path.exists() else None
        file.keep("p", sample)
    assert history.older_part(file.path).stat().st_ino == before
    file.keep("p", sample)
    assert len(file.path.read_bytes().splitlines()) == 1
    # Nobody who reads meanwhile misses a line of it.
    many = [DemandSample(60.0 * minute, 60.0, 1.0, 2.0, 3.0) for minute in range(2, 20)]
    reading = asyncio.create_task(file.read("p", 20_000.0))
    await asyncio.sleep(0)
    for each in many:
        file.keep("p", each)
    assert sample in await reading


async def test_of_a_file_that_is_too_long_already_the_newest_are_read(tmp_path: Path, monkeypatch):
    file = FileHistory(tmp_path / "demand.jsonl", days=1.0)
    for minute in range(100):
        file.keep("p", DemandSample(60.0 * minute, 60.0, 1.0, 2.0, 3.0))
    monkeypatch.setattr(history, "MAX_FILE_BYTES", 1000)
    found = [each.begins_s for each in await file.read("p", 20_000.0)]
    assert found[-1] == 60.0 * 99
    assert 5 <= len(found) <= 12
