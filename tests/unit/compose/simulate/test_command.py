"""`headrace simulate`: what it shows, and one clear line for what it cannot use."""

import gzip
import json
from pathlib import Path

import pytest

from headrace.compose.simulate import command
from headrace.compose.simulate.input import SimulateError, parse_policies, parse_slo
from headrace.core.policies import POLICIES
from headrace.simulator.settings import Slo
from tests.commands import runner

DAMAGED = "gzip: the file is damaged or not whole"
LINE = '{"timestamp": %s, "input_length": %s, "output_length": %s}\n'


@pytest.fixture
def trace(tmp_path) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(LINE % (i / 2, 900 + i, 5 + i) for i in range(20)))
    return path


@pytest.fixture
def run(capsys):
    return runner(capsys, "simulate", "--jobs", "1")


def test_a_table_with_every_policy(run, trace):
    code, out, err = run("--trace", trace)
    assert code == 0
    for policy in (*POLICIES, "pooled_reference"):
        assert policy in out
    assert "20 requests" in out
    assert f"under {len(POLICIES) + 1} policies in" in err


def test_json(run, trace):
    code, out, err = run("--trace", trace, "--policies", "seconds,round_robin", "--json")
    document = json.loads(out)
    assert code == 0
    assert list(document) == ["runs", "seed"]
    assert [run["policy"] for run in document["runs"]] == ["seconds", "round_robin"]
    assert {run["requests"] for run in document["runs"]} == {20}
    assert "seconds" in err


def test_a_run_of_minutes_is_announced(run, trace, monkeypatch):
    monkeypatch.setattr(command, "MANY_SCRAPES", 70)
    flags = ("--trace", trace, "--policies", "round_robin", "--json")
    _, _, err = run(*flags)
    assert "76 scrapes of metrics take some 0 minutes a policy" in err
    _, _, err = run(*flags, "--replicas", "2")
    assert "scrapes" not in err


def test_generated_traffic_that_would_take_for_ever_is_refused(run):
    code, out, err = run("--traffic", "single_shots:rate=1e-6,requests=5000")
    assert (code, out) == (2, "")
    assert "8 replicas over 5e+09 s are scraped 4e+10 times" in err


def test_duration_is_cut_before_speed(run, trace):
    flags = ("--trace", trace, "--policies", "seconds", "--json")
    _, out, _ = run(*flags, "--duration", "5", "--speed", "10")
    assert json.loads(out)["runs"][0]["requests"] == 10


def test_timing_and_report(run, trace, tmp_path):
    timing, report = tmp_path / "t.json", tmp_path / "out.html"
    code, _, _ = run(
        *("--trace", trace, "--policies", "seconds"), "--timing", timing, "--report", report
    )
    assert code == 0
    document = json.loads(timing.read_text())
    assert [each["policy"] for each in document["runs"]] == ["seconds"]
    assert document["runs"][0]["requests"] == 20
    assert document["wall_s"] >= document["runs"][0]["wall_s"] >= 0
    page = report.read_text()
    assert page.startswith("<!doctype html>")
    assert "h100-llama-3.1-8b" in page


def test_generated_traffic(run):
    code, out, _ = run(
        *("--traffic", "single_shots:rate=5,requests=30", "--policies", "seconds", "--json")
    )
    assert code == 0
    assert json.loads(out)["runs"][0]["requests"] == 30


def test_blocks_of_any_size(run, tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text(
        '{"timestamp": 0, "input_length": 350, "output_length": 5, "block_tokens": 100,'
        ' "hash_ids": [1, 2, 3]}\n'
        '{"timestamp": 9, "input_length": 350, "output_length": 5, "block_tokens": 100,'
        ' "hash_ids": [1, 2, 3]}\n'
    )
    _, out, _ = run("--trace", path, "--policies", "seconds", "--replicas", 1, "--json")
    assert json.loads(out)["runs"][0]["hit_ratio"] == pytest.approx(300 / 700, abs=1e-6)


def test_a_compressed_trace_is_read_and_a_damaged_one_refused(run, trace, tmp_path):
    packed = gzip.compress(trace.read_bytes())
    whole, cut, wrong = (tmp_path / name for name in ("whole.jsonl.gz", "cut.gz", "wrong.gz"))
    whole.write_bytes(packed)
    cut.write_bytes(packed[:-12])
    wrong.write_bytes(packed[:12] + bytes(40))
    flags = ("--policies", "seconds", "--json")
    _, plain, _ = run("--trace", trace, *flags)
    assert run("--trace", whole, *flags)[:2] == (0, plain)
    for path in (cut, wrong):
        code, out, err = run("--trace", path, *flags)
        assert (code, out) == (2, "")
        assert err == f"headrace: {path}: cannot read the trace: {DAMAGED}\n"


def test_a_kv_cache_may_be_as_large_as_a_shipped_profile_has_it(run, trace):
    flags = ("--trace", trace, "--policies", "seconds", "--json")
    profile = ("--profile", "h200-llama-3.3-70b-tp4")
    assert run(*flags, *profile)[:2] == run(*flags, *profile, "--kv-tokens", "1185328")[:2]


def test_what_no_replica_can_hold_is_told(run, tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(LINE % (0, 5000, 5) + LINE % (1, 100, 5))
    code, out, err = run("--trace", path, "--policies", "seconds", "--kv-tokens", "1600")
    assert code == 0
    assert out.splitlines()[0].startswith("2 requests;")
    assert "1 request does not fit in a replica's KV cache of 1,600 tokens: refused" in err


def test_the_table_is_there_though_a_report_cannot_be_written(run, trace, monkeypatch):
    monkeypatch.setattr(command, "check_writable", lambda *_: None)
    flags = ("--trace", trace, "--policies", "seconds")
    code, out, err = run(*flags, "--report", trace / "x.html")
    assert code == 2
    assert "seconds" in out
    assert "cannot write" in err


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", None, "is empty"),
        ("\n\n", None, "is empty"),
        ("nonsense\n", 1, "expected"),
        (LINE % (0, 10, 10) + '{"timestamp": 1}\n', 2, "input_length"),
        (LINE % (0, -5, 10), 1, "-5"),
        (LINE % (0, 10, -1), 1, "-1"),
        (LINE % (5, 10, 10) + LINE % (4, 10, 10), 2, "1 s earlier"),
        (LINE % (0, 10, 10) + "{broken\n", 2, "JSON"),
    ],
)
def test_a_trace_that_cannot_be_used(run, tmp_path, text, line, said):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    code, out, err = run("--trace", path, "--policies", "seconds")
    assert (code, out) == (2, "")
    (only,) = err.splitlines()
    where = str(path) if line is None else f"{path}:{line}:"
    assert only.startswith(f"headrace: {where}")
    assert said in only
    assert "expected" in only


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--report", "/"), "/: cannot write: it is a directory"),
        (("--replicas", "0"), "--replicas: '0' is not a whole number"),
        (("--replicas", "1000000"), "--replicas: '1000000' is not a whole number from 1 to 10,000"),
        (
            ("--speed", "1e-9"),
            (
                "8 replicas over 9.5e+09 s are scraped 7.6e+10 times, and 1e+09 take hours; give a "
                "higher --speed, a shorter --duration or fewer --replicas"
            ),
        ),
        (("--speed", "1e-320"), "8 replicas over inf s are scraped inf times"),
        (("--speed", "0"), "--speed: '0' is not a number above 0"),
        (("--speed", "nan"), "--speed: 'nan' is not a number above 0"),
        (("--profile", "z80"), "--profile: no profile 'z80'; known are h100-llama-3.1-8b"),
        (("--policies", ""), "--policies '' names none; leave it out for all of them"),
        (("--policies", ",,"), "--policies ',,' names none; leave it out for all of them"),
        (("--policies", "nonsense"), "--policies: unknown policy 'nonsense'"),
        (("--policies", "seconds,seconds"), "--policies: seconds is given twice"),
        (("--slo", "ttft=1s,ttft=2s"), "--slo ttft=1s,ttft=2s: ttft is given twice"),
        (("--policies", "dynamo_kv:overlap=4"), "unknown parameter 'overlap'"),
        (
            ("--slo", "ttft=1s", "--slo", "tpot=40ms"),
            "--slo tpot=40ms: the targets of all requests are given twice; write --slo ttft=2s,",
        ),
        (("--slo", "gold:ttft=1s"), "--slo gold:ttft=1s: there are no tiers in a simulation"),
        (("--slo", ":ttft=1s"), "--slo :ttft=1s: there is no tier before the colon"),
        (("--slo", "ttft=soon"), "--slo ttft=soon: ttft: 'soon' is not a duration"),
        (("--slo", "ttft=1e-45"), "--slo ttft=1e-45: ttft is '1e-45'; give at least 0.000001s"),
        (("--slo", "ttft=0"), "--slo ttft=0: ttft: '0' is not more than 0"),
        (("--slo", "itl=1s"), "'itl=1s' is not known; give ttft and tpot"),
        (("--scrape-lag", "x"), "--scrape-lag: 'x' is not a duration"),
        (("--mismatch", "1.5"), "--mismatch is 1.5; give 0 or more, below 1"),
        (("--duration", "-5s"), "--duration: '-5s' is not a duration such as 500ms"),
        (("--duration", "-5"), "--duration: '-5' is not more than 0"),
        (("--scrape-lag", "-.5s"), "--scrape-lag: '-.5s' is not a duration"),
        (("--duration", "0"), "--duration: '0' is not more than 0"),
        (("--index", "guessed"), "--index: invalid choice"),
        (("--seed", "-1"), "--seed: '-1' is not a whole number"),
        (("--report", "/nowhere/out.html"), "/nowhere/out.html: cannot write"),
        (("--traffic", "agentic"), "--traffic: not allowed with argument --trace"),
    ],
)
def test_flags_that_cannot_be_used(run, trace, flags, said):
    code, out, err = run("--trace", trace, *flags)
    assert (code, out) == (2, "")
    (only,) = err.splitlines()
    assert only.startswith("headrace: ")
    assert said in only


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ("noise", "unknown traffic 'noise'; known: agentic"),
        ("agentc", "unknown traffic 'agentc', did you mean 'agentic'? known: agentic"),
        (
            "agentic:speed=3",
            "--traffic agentic:speed=3: 'speed=3' is not known; give rate and requests",
        ),
        ("agentic:rate=x", "rate is a number"),
        ("agentic:rate=0", "rate is 0"),
        ("multi_turn:rate=1e300", "rate is 1e+300; give more than 0 and at most 100,000 requests"),
        ("agentic:rate=1,rate=2", "--traffic agentic:rate=1,rate=2: rate is given twice"),
        ("agentic:requests=0", "requests is 0"),
    ],
)
def test_traffic_that_cannot_be_made(run, traffic, said):
    code, out, err = run("--traffic", traffic)
    assert (code, out) == (2, "")
    (only,) = err.splitlines()
    assert said in only


def test_a_trace_that_is_not_there(run, tmp_path):
    code, _, err = run("--trace", tmp_path / "no.jsonl")
    assert code == 2
    assert "no.jsonl: cannot read the trace: No such file or directory" in err


def test_policies_with_parameters():
    assert parse_policies("seconds, dynamo_kv:overlap_weight=4,temperature=0.5,round_robin") == [
        "seconds",
        "dynamo_kv:overlap_weight=4,temperature=0.5",
        "round_robin",
    ]
    assert parse_policies("pooled_reference") == ["pooled_reference"]
    assert parse_policies(None) == [*POLICIES, "pooled_reference"]
    with pytest.raises(SimulateError, match="pooled_reference"):
        parse_policies("unknown_one")


def test_targets():
    assert parse_slo("ttft=500ms") == Slo(ttft_s=0.5)
    assert parse_slo("tpot=0.1,ttft=1m") == Slo(60.0, 0.1)
