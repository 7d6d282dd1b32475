"""A run that would not fit into memory is refused before it begins."""

import pickle
from array import array
from math import inf
from pathlib import Path

import pytest

from headrace.bench.record import Record
from headrace.bench.sending import memory
from headrace.bench.sending.memory import check_memory, free_bytes, kept_bytes
from headrace.bench.settings import BenchError, BenchSettings
from headrace.traffic.arrival_plan import Arrivals
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Load
from tests.unit.bench.runs import load_of

SETTINGS = BenchSettings("http://x")


def hour_of(rate: float, lengths: str = "256/256") -> Load:
    arrivals = Arrivals.at(rate, duration_s=3600.0)
    return Load.drawn(arrivals, parse_lengths(lengths), seed=1)


def test_a_record_is_no_larger_than_what_is_counted():
    chunks = 256
    record = Record(0, itl_s=array("f", [0.01] * (chunks - 1)), chunks=chunks)
    least = len(pickle.dumps(record))
    assert least < memory.RECORD_BYTES + memory.GAP_BYTES * chunks
    memory.let_go()


def test_what_is_kept_grows_with_requests_and_tokens():
    assert kept_bytes(load_of(100, lengths="16/4"), SETTINGS) == pytest.approx(96_800)
    assert kept_bytes(hour_of(200.0), SETTINGS) == pytest.approx(1.51e9, rel=0.01)
    whole = BenchSettings("http://x", stream=False)
    assert kept_bytes(hour_of(200.0), whole) < 0.7e9
    assert kept_bytes(Load.closed(4, parse_lengths("16/4"), seed=1), SETTINGS) == 0.0


def test_much_is_said_and_too_much_refused(monkeypatch: pytest.MonkeyPatch):
    for free, said in ((inf, ""), (4e9, ""), (2e9, "1.5 GB")):
        monkeypatch.setattr(memory, "free_bytes", lambda free=free: free)
        assert (said in check_memory(hour_of(200.0), SETTINGS)) if said else True
        assert bool(check_memory(hour_of(200.0), SETTINGS)) == bool(said)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1e9)
    with pytest.raises(BenchError, match="--duration"):
        check_memory(hour_of(200.0), SETTINGS)


def test_a_machine_that_does_not_tell_has_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert free_bytes() > 0
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert free_bytes() == inf
