"""`headrace bench` as a user runs it: exit codes, one line for what is wrong, Ctrl-C, files."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.bench.record import from_json_line, info_from_json_line
from headrace.cli import main
from tests.commands import runner
from tests.scripted import Peer, Received, ScriptedEngine, stream_words
from tests.unit.bench.engine_process import HEADRACE, EngineProcess, engine_process

HANG_S = 60.0
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with engine_process() as running:
        yield running


@pytest.fixture
def run(capsys):
    return runner(capsys, "bench")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((NOBODY,), "say what arrives: --rate 20, "),
        ((NOBODY, "--lengths", "bad"), "--lengths: 'bad' is not INPUT/OUTPUT"),
        ((NOBODY, "--arrivals", "normal"), "--arrivals: 'normal' is not known"),
        ((NOBODY, "--extra-body", "[]"), "--extra-body []: not a JSON object"),
        ((NOBODY, "--sweep", "--lengths", "bad"), "--lengths: 'bad' is not INPUT/OUTPUT"),
        ((NOBODY, "--sweep", "--arrivals", "normal"), "--arrivals: 'normal' is not known"),
        ((NOBODY, "--sweep", "--duration", "x"), "--duration: 'x' is not a duration"),
        ((NOBODY, "--rate", "0"), "--rate: '0' is not a number above 0"),
        ((NOBODY, "--rate", "1", "--users", "2"), "--users: not allowed with argument --rate"),
        ((NOBODY, "--rates", "5"), "--rates: '5' has no duration; write 5@60s or 2..10@120s"),
        ((NOBODY, "--rates", "a@5s"), "--rates: 'a' is not a rate such as 20 or 2..10"),
        ((NOBODY, "--rates", "1@1s", "--duration", "5s"), "--duration: the steps of --rates say"),
        ((NOBODY, "--rate", "1", "--arrivals", "normal"), "--arrivals: 'normal' is not known"),
        ((NOBODY, "--rate", "1", "--lengths", "64"), "--lengths: '64' is not INPUT/OUTPUT"),
        ((NOBODY, "--rate", "1", "--leave", "2"), "--leave 2: not a share from 0 to 1"),
        ((NOBODY, "--rate", "1", "--leave", "0.1", "--no-stream"), "--leave needs streams"),
        (
            (NOBODY, "--rate", "1", "--tiers", "a:7"),
            "--tiers a:7: 'a:7' is not a new NAME=WEIGHT, as in gold=1; in the name use at most 63",
        ),
        ((NOBODY, "--rate", "1", "--tiers", "a=x"), "--tiers a=x: 'a=x' is not a new NAME=WEIGHT"),
        ((NOBODY, "--rate", "1", "--shared-prefix", "x"), "--shared-prefix x: not TOKENS[:GROUPS]"),
        ((NOBODY, "--rate", "1", "--timeout", "0"), "--timeout: '0' is not above 0"),
        ((NOBODY, "--rate", "1", "--slo", "speed=1"), "--slo speed=1: 'speed=1' is no target"),
        ((NOBODY, "--rate", "1", "--no-stream", "--slo", "tpot=1s"), "--slo tpot: whole answers"),
        ((NOBODY, "--rate", "1", "--extra-body", "[]"), "--extra-body []: not a JSON object"),
        (
            (NOBODY, "--rate", "1", "--extra-body", '{"max_tokens": 3}'),
            "--extra-body: leave out 'max_tokens': --lengths says how long an answer is",
        ),
        (
            (NOBODY, "--rate", "1", "--extra-body", '{"stream": false}'),
            "--extra-body: leave out 'stream': --no-stream says it",
        ),
        ((NOBODY + "/v1?api-version=2", "--rate", "1"), "leave out what stands behind the path"),
        ((NOBODY, "--rate", "1", "--raw", "/none/x"), "/none/x: cannot write: /none is no direc"),
        ((NOBODY, "--rate", "1", "--report", "/"), "/: cannot write: it is a directory"),
        ((NOBODY, "--rate", "1", "--slo", "gold:ttft=1s"), "--slo gold: no request has this tier"),
        ((NOBODY, "--rate", "1", "--repeats", "2"), "--repeats goes with --sweep"),
        ((NOBODY, "--rate", "1", "--precision", "0.1"), "--precision goes with --sweep"),
        ((NOBODY, "--sweep", "--think", "1s"), "--think goes with --users"),
        ((NOBODY, "--trace", "/none"), "/none: cannot read the trace: No such file"),
        ((NOBODY, "--rate", "1", "--think", "1s"), "--think goes with --users"),
        ((NOBODY, "--rate", "1", "--speed", "2"), "--speed goes with --trace or --traffic"),
        ((NOBODY, "--users", "1", "--arrivals", "constant"), "--arrivals goes with --rate or"),
        ((NOBODY, "--traffic", "agentic", "--lengths", "1/1"), "--lengths goes with --rate, --r"),
        ((NOBODY, "--traffic", "tides"), "--traffic: 'tides' is not known; known are agentic"),
        ((NOBODY, "--traffic", "agentic:rate=1,rate=2"), "rate is given twice"),
        ((NOBODY, "--traffic", "agentic:rate=2e5"), "rate is 200000; give at most 100,000"),
        ((NOBODY, "--traffic", "agentic:speed=2"), "is not KIND:rate=R,requests=N, as in multi"),
        ((NOBODY, "--rate", "1"), f"{NOBODY}: cannot connect: Connection refused"),
        (("localhost:8000", "--rate", "1"), "'localhost:8000' is not a URL"),
        (("http://u:secret@h", "--rate", "1"), "a user or password in it is not used, and not sho"),
        (("http://u:sec/ret@h", "--rate", "1"), "give a key by its variable (HEADRACE_API_KEY, "),
        (("u:secret@h", "--rate", "1"), "a URL with a user or password in it is not used"),
        (("http://u:secret@h:99999", "--rate", "1"), "a URL with a user or password in it"),
    ],
)
def test_what_is_wrong_is_one_line(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("headrace: ")
    assert said in line
    assert "secret" not in line


def test_an_engine_that_refuses_us_is_one_line(run, engine: EngineProcess):
    code, _, err = run(engine.url, "--rate", "1", "--model", "other", "--endpoint", "completions")
    assert code == 2
    assert "a first request got 404" in err.splitlines()[-1]
    assert "The model `other` does not exist." in err


def test_a_model_name_does_nothing_to_a_terminal(run, tmp_path: Path):
    page = tmp_path / "run.html"
    with engine_process(model="\x1b[31mred\x07\x9b2J") as engine:
        code, out, err = run(
            engine.url, "--rate", 100, "--requests", 5, "--lengths", "16/4", "--report", page,
            "--slo", "ttft=60s,tpot=60s", "--max-lag", "60s",
        )  # fmt: skip
    assert code == 0  # and the engine was asked for it as it is called
    assert "(�[31mred��2J)" in err
    for text in (out, err, page.read_text(encoding="utf-8")):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)


def test_a_run_is_judged_shown_and_written(run, engine: EngineProcess, tmp_path: Path):
    raw, page = tmp_path / "raw.jsonl", tmp_path / "run.html"
    code, out, err = run(
        engine.url,
        *("--rate", 100, "--requests", 40, "--lengths", "a:64/8:3,b:600/16"),
        *("--arrivals", "gamma:cv=2", "--shared-prefix", "100:2", "--leave", "0.1"),
        *("--slo", "ttft=60s,tpot=60s", "--raw", raw, "--report", page, "--json", "--seed", 3),
        *("--max-lag", "60s"),
    )
    assert code == 0
    document = json.loads(out)
    first, *lines = raw.read_bytes().splitlines()
    info = info_from_json_line(first)
    assert (info.model, info.seed, info.planned_requests) == ("emulated", 3, 40)
    assert (info.tokens_by, info.valid, info.without_usage) == ("/tokenize", True, 0)
    records = [from_json_line(line) for line in lines]
    assert len(records) == 40
    for record in records:
        # By /tokenize the lengths are exact, with what the engine's template adds.
        assert record.input_tokens == {"a": 164, "b": 700}[record.length_class]
    assert page.read_text().startswith("<!")
    assert document
    assert "100 requests/s, Gamma with CV 2, a:64/8:3,b:600/16 tokens in/out" in err


def test_more_records_than_a_pipe_holds_are_handed_over(run, engine: EngineProcess, tmp_path: Path):
    raw = tmp_path / "raw.jsonl"
    arriving = ("--users", "64", "--requests", "1200", "--lengths", "16/16")
    code, _, _ = run(engine.url, *arriving, "--raw", raw, "--slo", "e2e=60s", "--max-lag", "60s")
    assert code == 0
    assert len(raw.read_bytes().splitlines()) == 1201


def test_targets_that_are_not_met_are_exit_code_1(run, engine: EngineProcess):
    judged = ("--slo", "ttft=1ms", "--max-lag", "60s")
    code, out, _ = run(engine.url, "--rate", 50, "--requests", 5, *judged)
    assert code == 1
    assert out.startswith("NOT MET: ")
    lines = out.splitlines()
    assert lines == [line.rstrip() for line in lines]  # a table is not filled up with blanks
    notes = [line for line in lines if line.startswith("  ") and ". " in line]
    assert max(map(len, notes)) <= 100  # nor is a sentence as wide as a table may be


def test_a_file_that_cannot_be_written_costs_no_figures(run, engine: EngineProcess):
    asked = ("--rate", 50, "--requests", 5, "--slo", "ttft=60s", "--max-lag", "60s")
    code, out, err = run(engine.url, *asked, "--raw", "/dev/full")
    assert code == 2
    assert out.startswith("MET: ")
    assert err.splitlines()[-1] == "headrace: /dev/full: cannot write: No space left on device"


@pytest.mark.parametrize("shown", [(), ("--json",)])
def test_a_reader_who_went_away_costs_no_file(
    engine: EngineProcess, tmp_path: Path, shown: tuple[str, ...]
):
    files = tmp_path / "raw.jsonl", tmp_path / "page.html"
    given = ("--rate", "50", "--requests", "3", "--raw", files[0], "--report", files[1], *shown)
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as pipe:
        command = [*HEADRACE, "bench", engine.url, *map(str, given)]
        ran = subprocess.run(
            command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=HANG_S, check=False
        )
    assert all(file.stat().st_size for file in files)
    assert "Traceback" not in ran.stderr


def test_a_late_generator_says_so_first_and_fails(run, engine: EngineProcess):
    code, out, _ = run(
        engine.url, "--rate", 50, "--requests", 5, "--slo", "ttft=60s", "--max-lag", "0.0001ms"
    )
    assert code == 1
    assert out.startswith("INVALID RUN: the generator was late")


@pytest.mark.parametrize(
    "arriving",
    [
        ("--users", "3", "--think", "10ms", "--requests", "9"),
        ("--rates", "20@0.2s,20..60@0.2s"),
        ("--traffic", "single_shots:rate=50,requests=9"),
        ("--rate", "50", "--requests", "9", "--no-stream"),
        ("--rate", "50", "--requests", "9", "--endpoint", "completions"),
        ("--rate", "50", "--requests", "9", "--workers", "2"),
        ("--users", "1", "--requests", "9", "--workers", "3"),
    ],
)
def test_whatever_arrives_is_answered(run, engine: EngineProcess, arriving):
    code, out, _ = run(engine.url, *arriving, "--json", "--slo", "e2e=60s", "--max-lag", "60s")
    assert code == 0, out
    found = json.loads(out)["all"]
    assert found["completed"] == found["requests"] > 0
    if "--rates" not in arriving:
        assert found["requests"] == 9


def test_a_trace_is_replayed(run, engine: EngineProcess, tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        "".join(
            json.dumps(
                {
                    "timestamp": number * 100,
                    "input_length": 1100 + number,
                    "output_length": 4,
                    "hash_ids": [7, 8, number + 9],
                }
            )
            + "\n"
            for number in range(10)
        )
    )
    raw = tmp_path / "raw.jsonl"
    slo = ("--slo", "e2e=60s", "--max-lag", "60s")
    code, _, _ = run(engine.url, "--trace", trace, "--speed", "4", "--raw", raw, *slo)
    assert code == 0
    records = [from_json_line(line) for line in raw.read_bytes().splitlines()[1:]]
    assert [record.input_tokens for record in records] == [1100 + n for n in range(10)]
    assert [record.intended_s for record in records] == pytest.approx([n / 40 for n in range(10)])


def test_no_two_runs_send_the_same_prompts_unless_they_are_to():
    def prompts(*text_seed: str) -> list[str]:
        with _recording() as (url, bodies):
            arriving = ("--rate", "50", "--requests", "3", "--model", "m")
            assert main(["bench", url, *arriving, *text_seed, "--slo", "e2e=60s"]) in {0, 1}
            sent = [body["messages"][-1]["content"] for body in bodies if body.get("stream")]
        assert len(sent) == 3
        return sorted(sent)  # those of several connections may be taken in another order

    assert not set(prompts()) & set(prompts())
    assert prompts("--text-seed", "5") == prompts("--text-seed", "5")


@contextmanager
def _recording() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server in a thread that answers everything with one token."""
    bodies: list[dict[str, Any]] = []

    async def script(received: Received, peer: Peer) -> None:
        bodies.append(received.json)
        if received.json.get("stream"):
            await stream_words(peer, 1)
        else:
            await peer.json({"error": "busy"}, status=503)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    scripted = ScriptedEngine(script)
    asyncio.run_coroutine_threadsafe(scripted.__aenter__(), loop).result(HANG_S)
    try:
        yield scripted.url, bodies
    finally:
        asyncio.run_coroutine_threadsafe(scripted.__aexit__(), loop).result(HANG_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _kill_twice(pid: int, number: int) -> None:
    os.kill(pid, number)
    os.killpg(pid, number)


@pytest.mark.parametrize(
    ("kill", "number"),
    # A terminal sends it to all of them, Kubernetes to the command alone, `timeout` to it and all.
    [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM), (_kill_twice, signal.SIGTERM)],
)
def test_a_command_that_is_ended_reports_what_there_is(
    engine: EngineProcess, tmp_path: Path, kill: Callable[[int, int], None], number: int
):
    raw = tmp_path / "raw.jsonl"
    line = (*HEADRACE, "bench", engine.url, "--rate", "40", "--duration", "10m", "--raw", str(raw))
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "40 requests/s" in process.stderr.readline()
            time.sleep(1.0)
            kill(process.pid, number)
            out, err = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
    assert "Traceback" not in err
    assert "interrupted" in out.splitlines()[0]
    info = info_from_json_line(raw.read_bytes().splitlines()[0])
    assert info.interrupted
    assert len(raw.read_bytes().splitlines()) > 2


def test_a_terminal_shows_what_moves(engine: EngineProcess):
    ours, theirs = pty.openpty()
    line = (*HEADRACE, "bench", engine.url, "--rate", "40", "--requests", "40")
    try:
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            try:
                while piece := os.read(ours, 65_536):
                    shown += piece
            except OSError:  # how Linux says that the other side is closed
                pass
            process.wait(HANG_S)
    finally:
        os.close(ours)
    assert b"of 40" in shown
    # In 80 columns, and nothing cut off.
    assert re.search(rb"generator lag at most [\d.,]+ ms", shown)
    assert b"Traceback" not in shown


def test_whole_answers_are_not_said_to_keep_a_tpot(run, engine: EngineProcess):
    code, out, _ = run(engine.url, "--rate", 50, "--requests", 5, "--no-stream", "--max-lag", "60s")
    assert code == 0
    assert "TTFT 2.00 s" in out.splitlines()[0]
    assert "TPOT" not in out.splitlines()[0]
