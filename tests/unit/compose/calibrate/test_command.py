"""`headrace calibrate`: what it shows, writes and answers with. The engine is in virtual time."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.cli import main
from headrace.compose.calibrate import command as calibrating
from headrace.config.modelled_engine import engine_of
from headrace.config.profile_file import load_measured, save
from headrace.core.latency import LatencyProfile
from headrace.core.profile_fit import TERMS
from headrace.engine_model import EngineSpec
from headrace.engine_model.measured import MeasuredProfile
from tests.unit.calibration.virtual_engine import VirtualEngine, replica_of

HANG_S = 120.0
HIDDEN = EngineSpec(
    LatencyProfile("hidden", "made up", 0.006, 3e-4, 8e-7, 3e-3, 1e-5),
    kv_capacity_tokens=8192,
    max_sequences=4,
)
URL = "http://virtual"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine as `HIDDEN` is where the command looks for one."""
    stand_in(monkeypatch, HIDDEN)


def stand_in(monkeypatch: pytest.MonkeyPatch, spec: EngineSpec, model: str = "m") -> None:
    async def identify(*_: object):
        replica = replica_of(spec, max_context_tokens=2048, tells_sequences=True)
        return replace(replica, model=model)

    monkeypatch.setattr(calibrating, "identify", identify)
    monkeypatch.setattr(
        calibrating,
        "StreamClient",
        lambda *_, **__: VirtualEngine(spec, overhead_s=0.001, tick_s=0.001),
    )
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def written(engine: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A profile as the command wrote it."""
    file = tmp_path / "measured.yaml"
    assert main(["calibrate", URL, "-o", str(file), "--machine", "a virtual one"]) == 0
    return file


def test_a_profile_is_shown_and_written(
    written: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "again.yaml"
    assert main(["calibrate", URL, "-o", str(file)]) == 0
    shown = capsys.readouterr()
    assert f"wrote {file}" in shown.err
    assert re.search(r"per_step_s +[56](\.\d+)? ms +5\.9\d* ms – 6(\.\d+)? ms", shown.out)
    assert re.search(r"residuals of \d+ experiments: median 0\.\d %", shown.out)
    assert "about" in shown.err  # how long it will take
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    found = load_measured(file)
    assert found.name == "again"
    assert found.measured is not None
    assert (found.measured.engine, found.measured.model) == ("openai", "m")
    assert found.measured.rounds >= 3
    for term in TERMS:
        assert getattr(found, term) == pytest.approx(getattr(HIDDEN.latency, term), rel=0.03)


def test_a_model_name_does_nothing_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    stand_in(monkeypatch, HIDDEN, model="\x1b[31mred")
    file = tmp_path / "profile.yaml"
    assert main(["calibrate", URL, "-o", str(file)]) == 0
    shown = capsys.readouterr()
    assert "model �[31mred" in shown.err
    assert "\x1b" not in shown.err + shown.out
    found = load_measured(file)
    assert found.measured is not None
    assert found.measured.model == "�[31mred"
    assert found.name.startswith("�[31mred-")


def test_the_file_goes_where_profiles_go(written: Path, capsys: pytest.CaptureFixture[str]):
    assert engine_of(str(written)).kv_capacity_tokens == 8192
    assert load_measured(written).max_sequences == 4
    line = f"simulate --traffic single_shots:requests=20,rate=1 --replicas 1 --profile {written}"
    assert main([*line.split(), "--policies", "round_robin", "--kv-tokens", "200000"]) == 0
    assert "20 requests" in capsys.readouterr().out


def test_a_check_holds_right_after(written: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["calibrate", URL, "--check", str(written)]) == 0
    shown = capsys.readouterr()
    assert "describes the engine" in shown.err
    assert re.search(
        r"decode 4 × [\d,]+ of context +\d+\.\d ms +\d+\.\d ms +[+-]0\.\d %", shown.out
    )
    assert max(len(line) for line in shown.out.splitlines()) <= 80


@pytest.mark.parametrize(("shipped", "code"), [("h100-llama-3.1-8b", 0), ("l40s-llama-3.1-8b", 1)])
def test_a_shipped_profile_is_checked_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shipped: str, code: int
):
    stand_in(monkeypatch, engine_of("h100-llama-3.1-8b"))
    assert main(["calibrate", URL, "--check", shipped]) == code
    assert shipped in capsys.readouterr().err


@pytest.mark.parametrize(("factor", "said"), [(0.8, "less"), (1.2, "longer")])
def test_an_engine_that_changed_by_a_fifth_fails_its_check(
    written: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    factor: float,
    said: str,
):
    was = HIDDEN.latency
    terms = {term: getattr(was, term) * factor for term in TERMS}
    stand_in(monkeypatch, replace(HIDDEN, latency=replace(was, **terms)))
    assert main(["calibrate", URL, "--check", str(written)]) == 1
    assert re.search(
        rf"prefill takes \d\d % {said} than it says, decode \d\d % {said} than it says",
        capsys.readouterr().err,
    )


def test_a_check_tells_what_else_has_changed(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stand_in(monkeypatch, replace(HIDDEN, kv_capacity_tokens=4096), model="other")
    assert main(["calibrate", URL, "--check", str(written)]) == 0
    said = capsys.readouterr().err
    assert "note: the profile is of model m, the engine serves other" in said
    assert "has a KV cache of 8,192 tokens, the engine a KV cache of 4,096 tokens" in said
    assert "has a context of" not in said


def test_a_profile_of_another_engine_fails_its_check(
    engine: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    other = tmp_path / "other.yaml"
    save(other, MeasuredProfile("other", 0.006, 3e-4, 8e-7, 1e-3, 3e-6, max_sequences=4))
    assert main(["calibrate", URL, "--check", str(other), "--json"]) == 1
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["holds"] is False
    assert told["decode_error"] > 0.2 > told["prefill_error"]
    assert "does not describe the engine any more" in shown.err


def test_what_the_data_do_not_support_is_not_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "measured.yaml"
    stand_in(
        monkeypatch, replace(HIDDEN, latency=replace(HIDDEN.latency, per_attended_token_s=1e-8))
    )
    short = ("--max-prompt", "100", "--max-batch", "2", "--budget", "20", "--json")
    assert main(["calibrate", URL, "-o", str(file), *short]) == 1
    shown = capsys.readouterr()
    assert not file.exists()
    assert json.loads(shown.out)["written"] is False
    assert "is not written: the data do not support it" in shown.err
    assert re.search(
        r"per_attended_token_s: it lies between .* measure\s+longer", shown.err, re.DOTALL
    )


def test_a_fit_that_is_refused_predicts_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    stand_in(
        monkeypatch, replace(HIDDEN, latency=replace(HIDDEN.latency, per_attended_token_s=1e-8))
    )
    short = ("--max-prompt", "100", "--budget", "20")
    assert main(["calibrate", URL, "-o", str(tmp_path / "measured.yaml"), *short]) == 1
    shown = capsys.readouterr()
    assert "the data do not support it" in shown.err
    assert "residuals of" in shown.out
    assert "so: " not in shown.out
    assert "prompt tokens take" not in shown.out


def test_a_fit_that_holds_predicts(written: Path, capsys: pytest.CaptureFixture[str]):
    assert "so: 2,048 prompt tokens take" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("http://h", "--tolerance", "0.1"), 2, "--tolerance goes with --check"),
        (("http://h", "--check", "x.yaml", "--name", "n"), 2, "--name is of a profile that is wri"),
        (("http://h", "--check", "x.yaml", "--machine", "m"), 2, "--machine is of a profile that"),
        (("ftp://x",), 2, "is not a URL"),
        (("http://u:pw@h",), 2, "a URL with a user or password in it is not used, and not shown"),
        (("http://127.0.0.1:1/some/path",), 2, "is not an engine address"),
        (("http://127.0.0.1:1/v1/",), 1, "http://127.0.0.1:1 does not answer"),
        (("http://127.0.0.1:1",), 1, "http://127.0.0.1:1 does not answer"),
        (("http://127.0.0.1:1", "-o", "/nowhere/x.yaml"), 2, "/nowhere is no directory"),
        (("http://127.0.0.1:1", "-o", "/"), 2, "--output /: is a directory"),
        (("http://127.0.0.1:1", "--max-prompt", "95"), 2, "--max-prompt 95: too short to measure"),
        (("http://127.0.0.1:1", "--check", "/nowhere/x.yaml"), 2, "cannot be read"),
        (("http://127.0.0.1:1", "--check", "h1000"), 2, "or name a file"),
        (("http://127.0.0.1:1", "--api-key-env", "NOT_THERE"), 2, "NOT_THERE is not set"),
    ],
)
def test_what_cannot_be_used(
    arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["calibrate", *arguments]))
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_an_engine_in_real_time_that_is_another_one(tmp_path: Path):
    hidden, other = tmp_path / "hidden.yaml", tmp_path / "other.yaml"
    known = MeasuredProfile(
        "hidden", 0.006, 3e-4, 8e-7, 3e-3, 1e-5, kv_capacity_tokens=640, max_sequences=4
    )
    save(hidden, known)
    save(other, replace(known, per_step_s=0.002, per_prefill_token_s=1e-4, per_sequence_s=1e-3))
    headrace = [sys.executable, "-m", "headrace"]
    line = [*headrace, "engine", "--profile", str(hidden), "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        url = engine.stdout.readline().split()[1]
        check = ("--check", str(other), "--budget", "1")
        ran = subprocess.run(
            [*headrace, "calibrate", url, *check],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        engine.terminate()
    # However busy this machine is, it makes nothing faster.
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "vLLM 0.32.0, model emulated, context 640" in ran.stderr
    assert "does not describe the engine any more" in ran.stderr
